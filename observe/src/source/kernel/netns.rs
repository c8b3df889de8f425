//! Network namespaces: finding them, and doing something inside one.
//!
//! Entering needs CAP_SYS_ADMIN; it is done by a thread that ends there, so this process never moves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Inode of the network namespace the calling thread is in.
pub(super) fn own() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |found| found.ino())
}

/// The file of the namespace `text` names: a path, a process id, or a name under `/run/netns`.
pub(super) fn path_of(text: &str) -> PathBuf {
    if text.parse::<u32>().is_ok() {
        PathBuf::from(format!("/proc/{text}/ns/net"))
    } else if text.contains('/') {
        PathBuf::from(text)
    } else {
        Path::new("/run/netns").join(text)
    }
}

/// Every namespace that a process is in or that is bound under `/run/netns`, by inode, our own included.
pub(super) fn all() -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    let mut add = |path: PathBuf| {
        if let Ok(metadata) = fs::metadata(&path) {
            found.entry(metadata.ino()).or_insert(path);
        }
    };
    add(PathBuf::from("/proc/self/ns/net"));
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        add(entry.path());
    }
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    for pid in pids {
        add(PathBuf::from(format!("/proc/{pid}/ns/net")));
    }
    found
}

/// Runs `work` in the namespace at `path`, on a thread of its own.
pub(super) fn inside<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let file = File::open(path)?;
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        worker.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}
