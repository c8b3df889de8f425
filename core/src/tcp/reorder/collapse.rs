//! The queue is too small: pieces that touch are copied together, so that they cost less memory.
//!
//! Rules:   Linux `tcp_collapse_ofo_queue`, `tcp_collapse`: each run of pieces without a hole between them, from the first that costs more
//!          than its share of the window or overlaps another, into pieces of almost a page. One alone is left as it is unless it is that long.
//! Not here: the receive queue (`receive::memory`), dropping pieces ([`Reorder::prune`]).

use bytes::{Bytes, BytesMut};

use super::{Piece, Reorder, charge_of};
use crate::tcp::receive::{COPY_MAX, Charge};
use crate::tcp::seq::{SeqNum, SeqRange};

/// Pieces without a hole between them.
#[derive(Debug)]
struct Run {
    keys: Vec<u32>,
    end: SeqNum,
    charge: u32,
}

impl Reorder {
    /// Copies together what can be. `patience`: so many bytes in lone small pieces, and the rest is not looked at. `window_of`: what
    /// memory is worth as window. How many packets were copied.
    pub(crate) fn collapse(&mut self, patience: u32, window_of: impl Fn(u32) -> u32) -> usize {
        let (mut collapsed, mut tiny) = (0, 0);
        let mut from = 0;
        while let Some(run) = self.run(from) {
            from = run.keys.last().map_or(u32::MAX, |last| last + 1);
            let first = &self.pieces[&run.keys[0]];
            if run.charge != charge_of(first) || run.end.since(first.range.start) >= COPY_MAX {
                collapsed += self.collapse_run(&run, &window_of);
                continue;
            }
            tiny += run.charge;
            if tiny > patience {
                break;
            }
        }
        collapsed
    }

    /// The first run at or right of `from`.
    fn run(&self, from: u32) -> Option<Run> {
        let mut pieces = self.pieces.range(from..);
        let (key, first) = pieces.next()?;
        let mut run = Run { keys: vec![*key], end: first.range.end, charge: charge_of(first) };
        for (key, piece) in pieces {
            if piece.range.start.after(run.end) {
                break;
            }
            run.keys.push(*key);
            run.end = run.end.max(piece.range.end);
            run.charge += charge_of(piece);
        }
        Some(run)
    }

    fn collapse_run(&mut self, run: &Run, window_of: &impl Fn(u32) -> u32) -> usize {
        let Some((begin, mut start)) = self.where_it_pays(run, window_of) else { return 0 };
        // A FIN ends what is copied.
        let mut data = BytesMut::new();
        let (mut count, mut end) = (0, start);
        for key in &run.keys[begin..] {
            let Some(mut piece) = self.pieces.remove(key) else { continue };
            if piece.fin {
                self.pieces.insert(*key, piece);
                break;
            }
            self.charge -= charge_of(&piece);
            piece.trim_front(end);
            data.extend_from_slice(&piece.data);
            end = piece.range.end;
            count += 1;
        }
        while !data.is_empty() {
            let room = COPY_MAX.min(run.end.since(start));
            let used = room.min(data.len() as u32);
            let piece = Piece {
                range: SeqRange::new(start, start + used),
                data: Bytes::copy_from_slice(&data.split_to(used as usize)),
                fin: false,
                truesize: used,
                charge: Charge::of_copy(room, used),
            };
            self.charge += charge_of(&piece);
            self.pieces.insert(start.since(self.origin), piece);
            start += used;
        }
        count
    }

    /// The piece of a run to begin with, and what of it is not in the one before.
    fn where_it_pays(&self, run: &Run, window_of: &impl Fn(u32) -> u32) -> Option<(usize, SeqNum)> {
        let mut start = self.pieces[&run.keys[0]].range.start;
        for (at, key) in run.keys.iter().enumerate() {
            let piece = &self.pieces[key];
            let next = run.keys.get(at + 1).map(|key| self.pieces[key].range.start);
            let is_dear = window_of(charge_of(piece)) > piece.data.len() as u32;
            let overlaps =
                piece.range.start.before(start) || next.is_some_and(|next| next != piece.range.end);
            if is_dear || overlaps {
                return (!piece.fin).then_some((at, start));
            }
            start = piece.range.end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Counters;

    /// A packet of its own for each, as none lets the next one behind it.
    fn queue(ranges: &[(u32, u32)]) -> Reorder {
        let mut reorder = Reorder::default();
        for (start, end) in ranges {
            let data: Vec<u8> = (*start..*end).map(|n| n as u8).collect();
            let piece = Piece {
                range: SeqRange::new(SeqNum(*start), SeqNum(*end)),
                truesize: data.len() as u32,
                charge: Charge::of_merged(40 + data.len() as u32, 1),
                data: data.into(),
                fin: false,
            };
            reorder.insert(SeqNum(1), piece, true, &mut Counters::default());
        }
        reorder
    }

    fn half(space: u32) -> u32 {
        space / 2
    }

    fn pieces(reorder: &Reorder) -> Vec<(u32, u32, u32)> {
        let told = |piece: &Piece| {
            let range = piece.range;
            let bytes = (range.start.0..range.end.0).map(|n| n as u8);
            assert!(piece.data.iter().copied().eq(bytes), "the bytes of {range:?}");
            (range.start.0, range.end.0, piece.charge.truesize)
        };
        assert_eq!(reorder.charge(), reorder.pieces.values().map(charge_of).sum::<u32>());
        reorder.pieces.values().map(told).collect()
    }

    #[test]
    fn pieces_that_touch_become_one() {
        let mut reorder = queue(&[(101, 111), (111, 121), (121, 131), (201, 211)]);
        assert_eq!(reorder.charge(), 4 * 832);
        assert_eq!(reorder.collapse(10_000, half), 3);
        assert_eq!(pieces(&reorder), [(101, 131, 832), (201, 211, 832)]);
        assert_eq!(reorder.collapse(10_000, half), 0, "nothing is left to do");
    }

    #[test]
    fn overlaps_are_stored_once() {
        let mut reorder = queue(&[(101, 2101), (1101, 3101), (3001, 5001)]);
        assert_eq!(reorder.collapse(10_000, half), 3);
        let sizes = [(101, 3877), (3877, 5001)]
            .map(|(start, end)| (start, end, Charge::of_copy(end - start, 0).truesize));
        assert_eq!(pieces(&reorder), sizes);
    }

    #[test]
    fn what_is_worth_its_memory_stays() {
        // 1460 bytes in 2304: at this ratio nothing is gained.
        let mut reorder = queue(&[(101, 1561), (1561, 3021), (3021, 3031), (3031, 3041)]);
        assert_eq!(reorder.collapse(10_000, |space| space * 162 / 256), 2);
        assert_eq!(pieces(&reorder), [(101, 1561, 2304), (1561, 3021, 2304), (3021, 3041, 832)]);
    }

    #[test]
    fn the_fin_is_not_copied() {
        let mut reorder = queue(&[(101, 111), (111, 121), (121, 131)]);
        let last = reorder.pieces.last_entry().expect("three pieces").into_mut();
        (last.fin, last.range.end) = (true, SeqNum(132));
        assert_eq!(reorder.collapse(10_000, half), 2);
        assert_eq!(reorder.pieces.len(), 2);
        assert_eq!(reorder.charge(), 2 * 832);
    }

    #[test]
    fn patience_ends_with_many_lone_pieces() {
        let lone: Vec<(u32, u32)> = (0..10).map(|n| (100 + n * 100, 110 + n * 100)).collect();
        let mut ranges = lone.clone();
        ranges.extend([(2000, 2010), (2010, 2020)]);
        assert_eq!(queue(&ranges).collapse(10 * 832 - 1, half), 0);
        assert_eq!(queue(&ranges).collapse(10 * 832, half), 2);
    }
}
