//! Places for sockets: dense indices, reused, in pages, so that growing never copies what is there.
//!
//! Owns:    [`Slab`] (an index is enough) and [`Arena`] (an index with a generation, for names an application holds).
//! Rules:   everything is O(1); iteration goes by index, so its order is the same every time.
//! Differs: memory of a peak is kept in whole pages until the stack ends.

/// Entries a page. A page is the unit memory is taken in.
const PAGE: usize = 64;

/// A growable array in pages.
#[derive(Debug)]
pub(crate) struct Pages<T> {
    pages: Vec<Vec<T>>,
}

impl<T> Pages<T> {
    pub(crate) const fn new() -> Self {
        Self { pages: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.last().map_or(0, |last| (self.pages.len() - 1) * PAGE + last.len())
    }

    pub(crate) fn push(&mut self, value: T) {
        match self.pages.last_mut() {
            Some(page) if page.len() < PAGE => page.push(value),
            _ => {
                let mut page = Vec::with_capacity(PAGE);
                page.push(value);
                self.pages.push(page);
            }
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.pages.get(index as usize / PAGE)?.get(index as usize % PAGE)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.pages.get_mut(index as usize / PAGE)?.get_mut(index as usize % PAGE)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten()
    }
}

/// Values by index.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Pages<Option<T>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Pages::new(), free: Vec::new(), len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if let Some(index) = self.free.pop() {
            *self.entries.get_mut(index).expect("a free index lies in a page") = Some(value);
            return index;
        }
        let index = self.entries.len() as u32;
        self.entries.push(Some(value));
        index
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.entries.get_mut(index)?.take()?;
        self.free.push(index);
        self.len -= 1;
        Some(value)
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index)?.as_mut()
    }

    /// Values with their indices, in index order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| entry.as_ref().map(|value| (index as u32, value)))
    }
}

/// Values by index and generation: an index that outlived its value is refused.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    slab: Slab<T>,
    generations: Pages<u32>,
}

impl<T> Arena<T> {
    pub(crate) const fn new() -> Self {
        Self { slab: Slab::new(), generations: Pages::new() }
    }

    pub(crate) const fn len(&self) -> usize {
        self.slab.len()
    }

    /// Stores `value`; gives index and generation.
    pub(crate) fn insert(&mut self, value: T) -> (u32, u32) {
        let index = self.slab.insert(value);
        if index as usize == self.generations.len() {
            self.generations.push(0);
        }
        (index, self.generation(index))
    }

    /// The generation that the value at `index` has now.
    pub(crate) fn generation(&self, index: u32) -> u32 {
        self.generations.get(index).copied().unwrap_or(0)
    }

    pub(crate) fn remove(&mut self, index: u32, generation: u32) -> Option<T> {
        if self.generation(index) != generation {
            return None;
        }
        let value = self.slab.remove(index)?;
        if let Some(current) = self.generations.get_mut(index) {
            *current = current.wrapping_add(1);
        }
        Some(value)
    }

    #[inline]
    pub(crate) fn get(&self, index: u32, generation: u32) -> Option<&T> {
        if self.generation(index) == generation { self.slab.get(index) } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        if self.generation(index) == generation { self.slab.get_mut(index) } else { None }
    }

    /// Whatever lives at `index` now.
    #[inline]
    pub(crate) fn at(&self, index: u32) -> Option<&T> {
        self.slab.get(index)
    }

    /// Values with index and generation, in index order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32, &T)> {
        self.slab.iter().map(|(index, value)| (index, self.generation(index), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_outlived_its_value_is_refused() {
        let mut arena = Arena::new();
        let (index, generation) = arena.insert('a');
        assert_eq!(arena.remove(index, generation), Some('a'));
        let (again, next) = arena.insert('b');
        assert_eq!(again, index, "places are reused");
        assert_eq!(arena.get(index, generation), None);
        assert_eq!(arena.get(again, next), Some(&'b'));
        assert_eq!(arena.remove(index, generation), None);
        assert_eq!(arena.len(), 1);
    }

    #[test]
    fn many_values_keep_their_places() {
        let mut slab = Slab::new();
        let places: Vec<u32> = (0..1000).map(|n| slab.insert(n)).collect();
        for &place in places.iter().step_by(2) {
            slab.remove(place);
        }
        assert_eq!(slab.len(), 500);
        assert!(slab.iter().all(|(place, n)| places[*n as usize] == place && n % 2 == 1));
        for n in 0..500 {
            slab.insert(n);
        }
        assert_eq!(slab.iter().count(), 1000);
        assert_eq!(slab.entries.len(), 1000, "no place is wasted");
    }
}
