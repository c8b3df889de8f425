//! tracefs: where it is, and what each tracepoint's record looks like on this kernel.
//!
//! Output:  a [`Format`]: id, field offsets by name, and the names the kernel prints for numbers.
//! Rules:   offsets and numbers differ by kernel: nothing is assumed, everything is read from `format`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One tracepoint's record.
#[derive(Clone, Debug, Default)]
pub(super) struct Format {
    /// What perf and the record's first field call it.
    pub(super) id: u64,
    /// Offset and size by field name.
    fields: BTreeMap<String, (usize, usize)>,
    /// Names by number, by field, from `__print_symbolic`.
    symbols: BTreeMap<String, BTreeMap<u64, Arc<str>>>,
}

impl Format {
    /// Reads the text of a `format` file.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut format = Self { id: line_after(text, "ID:")?.parse().ok()?, ..Self::default() };
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("field:")) {
            let mut parts = line.split(';');
            let declaration = parts.next()?;
            let name = declaration.split('[').next()?.split_whitespace().last()?;
            let mut numbers = parts.filter_map(|part| part.trim().split_once(':')?.1.parse::<usize>().ok());
            format.fields.insert(name.to_owned(), (numbers.next()?, numbers.next()?));
        }
        // `__print_symbolic(REC->reason, { 0, "NOT_SPECIFIED" }, { 1, "NO_SOCKET" })`
        for part in text.split("__print_symbolic(REC->").skip(1) {
            let (field, rest) = part.split_once(',')?;
            let list = &rest[..rest.find(')').unwrap_or(rest.len())];
            let names = list.split('{').skip(1).filter_map(|item| {
                let (number, name) = item.split_once(',')?;
                let name = name.split('"').nth(1)?;
                Some((number.trim().parse().ok()?, Arc::from(name)))
            });
            format.symbols.entry(field.to_owned()).or_default().extend(names);
        }
        Some(format)
    }

    /// A field's bytes.
    pub(super) fn bytes<'a>(&self, record: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let (offset, size) = *self.fields.get(name)?;
        record.get(offset..offset + size)
    }

    /// A field that is a number of any width.
    pub(super) fn number(&self, record: &[u8], name: &str) -> Option<u64> {
        let bytes = self.bytes(record, name)?;
        Some(match bytes.len() {
            1 => bytes[0].into(),
            2 => u16::from_ne_bytes(bytes.try_into().ok()?).into(),
            4 => u32::from_ne_bytes(bytes.try_into().ok()?).into(),
            8 => u64::from_ne_bytes(bytes.try_into().ok()?),
            _ => return None,
        })
    }

    /// The name the kernel prints for a field's number; the number itself where it has none.
    pub(super) fn symbol(&self, record: &[u8], name: &str) -> Option<Arc<str>> {
        let number = self.number(record, name)?;
        let known = self.symbols.get(name).and_then(|names| names.get(&number));
        Some(known.map_or_else(|| number.to_string().into(), Arc::clone))
    }

    /// True when the kernel's record has such a field.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }
}

fn line_after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(prefix)).map(str::trim)
}

/// Formats of the tracepoints `wanted` names (`tcp/tcp_send_reset`); those this kernel lacks are left out.
///
/// # Errors
/// `NotFound` when tracefs is nowhere to be had, `PermissionDenied` when it may not be read.
pub(super) fn formats(wanted: &[String]) -> io::Result<BTreeMap<String, Format>> {
    match mounted()? {
        Some(root) => read(&root, wanted),
        None => privately(wanted),
    }
}

/// Names of all tracepoints of one system, for example `tcp`.
pub(super) fn names_of(system: &str) -> io::Result<Vec<String>> {
    let list = |root: &Path| -> io::Result<Vec<String>> {
        let entries = fs::read_dir(root.join("events").join(system))?;
        let mut names: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .map(|name| format!("{system}/{name}"))
            .collect();
        names.sort_unstable();
        Ok(names)
    };
    match mounted()? {
        Some(root) => list(&root),
        None => in_private_mount(|root| list(root)),
    }
}

fn mounted() -> io::Result<Option<PathBuf>> {
    for root in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
        match fs::metadata(Path::new(root).join("events")) {
            Ok(_) => return Ok(Some(root.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn read(root: &Path, wanted: &[String]) -> io::Result<BTreeMap<String, Format>> {
    let mut found = BTreeMap::new();
    for name in wanted {
        match fs::read_to_string(root.join("events").join(name).join("format")) {
            Ok(text) => {
                if let Some(format) = Format::parse(&text) {
                    found.insert(name.clone(), format);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn privately(wanted: &[String]) -> io::Result<BTreeMap<String, Format>> {
    in_private_mount(|root| read(root, wanted))
}

/// Mounts tracefs where only one thread of ours can see it, so that nothing is left behind.
fn in_private_mount<T: Send>(work: impl FnOnce(&Path) -> io::Result<T> + Send) -> io::Result<T> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            #[allow(deprecated, reason = "this thread opens no file that others use, and ends here")]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            let root = Path::new("/sys/kernel/tracing");
            mount("tracefs", root, "tracefs", MountFlags::RDONLY, None)?;
            work(root)
        });
        worker.join().unwrap_or_else(|_| Err(io::Error::other("the thread that reads tracefs panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name: tcp_send_reset\nID: 2280\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:const void * skaddr;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:enum sk_rst_reason reason;\toffset:28;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 saddr[28];\toffset:32;\tsize:28;\tsigned:0;\n\n\
        print fmt: \"x=%s\", __print_symbolic(REC->reason, { 0, \"NOT_SPECIFIED\" }, { 1, \"NO_SOCKET\" })\n";

    #[test]
    fn offsets_and_names_come_from_the_kernel_s_text() {
        let format = Format::parse(TEXT).expect("a format");
        let mut record = vec![0; 60];
        record[28] = 1;
        record[32] = 9;
        assert_eq!((format.id, format.number(&record, "reason")), (2280, Some(1)));
        assert_eq!(format.symbol(&record, "reason").as_deref(), Some("NO_SOCKET"));
        assert_eq!(format.bytes(&record, "saddr").map(|b| (b.len(), b[0])), Some((28, 9)));
        record[28] = 77;
        assert_eq!(format.symbol(&record, "reason").as_deref(), Some("77"));
        assert_eq!(format.number(&record[..20], "reason"), None, "cut short");
        assert!(format.has("skaddr") && !format.has("err"));
    }
}
