//! Control groups: the id sock_diag reports, as a path, as the unit or container people know.
//!
//! Rules: the id is the inode of the group's directory in the cgroup-2 tree.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Directories visited at most: a host with more groups than this is not walked to the end.
const MAX_GROUPS: usize = 20_000;

/// Paths by id, walked only when one is asked for that is not known.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    /// `None` for a group that had been removed when it was asked for: it does not come back.
    by_id: HashMap<u64, Option<Arc<str>>>,
    /// Walked since the present look began.
    walked: bool,
    /// Asked for in vain since that walk: removed before it, or made after.
    unknown: BTreeSet<u64>,
    of_process: HashMap<u32, Option<u64>>,
}

impl Cgroups {
    /// The path below the cgroup root, for example `/system.slice/nginx.service`; the root is `/`.
    fn path(&mut self, id: u64) -> Option<Arc<str>> {
        if let Some(known) = self.by_id.get(&id) {
            return known.clone();
        }
        self.unknown.insert(id);
        if std::mem::replace(&mut self.walked, true) {
            return None;
        }
        self.by_id.retain(|_, path| path.is_none());
        if self.by_id.len() > MAX_GROUPS {
            self.by_id.clear();
        }
        self.by_id.extend(walk().into_iter().map(|(id, path)| (id, Some(path))));
        for unknown in std::mem::take(&mut self.unknown) {
            self.by_id.entry(unknown).or_default();
        }
        self.by_id.get(&id)?.clone()
    }

    /// The service or container of a group; nothing for the root and for bare slices, which say nothing.
    pub(super) fn unit(&mut self, id: u64) -> Option<Arc<str>> {
        let path = self.path(id)?;
        unit_of(&path).map(Into::into)
    }

    /// The group a process is in; looked up once a look, however many sockets ask.
    pub(super) fn of_process(&mut self, pid: u32) -> Option<u64> {
        *self.of_process.entry(pid).or_insert_with(|| group_of(pid))
    }

    /// Another look begins: processes move, their numbers are given out again, and groups are made.
    pub(super) fn begin_look(&mut self) {
        self.of_process.clear();
        self.walked = false;
    }
}

fn group_of(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(fs::metadata(mount()?.join(path.trim_start_matches('/'))).ok()?.ino())
}

/// The part of a path that names a service, scope or container: the innermost one, as engines and services make
/// groups of their own below (podman's `container`, systemd's `init.scope`); without one, the innermost group.
fn unit_of(path: &str) -> Option<String> {
    let mut groups = path.rsplit('/').filter(|part| !part.is_empty() && !part.ends_with(".slice"));
    let named = groups.clone().find_map(|part| {
        let of_container = container(part).map(|id| format!("container:{}", &id[..12]));
        of_container.or_else(|| (part.contains('.') && part != "init.scope").then(|| part.to_owned()))
    });
    named
        .or_else(|| groups.find(|part| *part == "init.scope" || !part.starts_with("init")).map(str::to_owned))
}

/// The id of the container whose group has this name, by Docker, containerd, CRI-O, nerdctl or podman.
fn container(group: &str) -> Option<&str> {
    let bare = group.trim_end_matches(".scope");
    ["docker-", "cri-containerd-", "nerdctl-", "crio-", "libpod-"]
        .into_iter()
        .find_map(|prefix| bare.strip_prefix(prefix))
        .or_else(|| (bare.len() == 64).then_some(bare))
        .filter(|id| id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Where the cgroup-2 tree is mounted.
fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

fn walk() -> HashMap<u64, Arc<str>> {
    let mut found = HashMap::new();
    let Some(root) = mount() else { return found };
    let mut todo = vec![root.clone()];
    while let Some(directory) = todo.pop() {
        if found.len() >= MAX_GROUPS {
            break;
        }
        if let Ok(metadata) = fs::metadata(&directory) {
            let path = directory.strip_prefix(&root).unwrap_or(Path::new(""));
            found.insert(metadata.ino(), format!("/{}", path.display()).into());
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        todo.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_made_since_is_found_at_the_next_look_and_a_removed_one_not_looked_for_again() {
        let Some(root) = mount() else { return };
        let made = root.join(format!("lastack-test-{}", std::process::id()));
        let mut cgroups = Cgroups::default();
        let known = fs::metadata(&root).expect("mounted").ino();
        assert_eq!(cgroups.path(known).as_deref(), Some("/"));
        if let Err(error) = fs::create_dir(&made) {
            eprintln!("SKIPPED: no control group can be made: {error}");
            return;
        }
        let id = fs::metadata(&made).expect("made just now").ino();
        assert_eq!(cgroups.path(id), None, "one walk a look");
        cgroups.begin_look();
        let path = cgroups.path(id);
        fs::remove_dir(&made).expect("nobody is in it");
        assert_eq!(
            path.as_deref(),
            made.strip_prefix(&root).ok().and_then(|p| Some(format!("/{}", p.to_str()?))).as_deref()
        );
        cgroups.begin_look();
        assert_eq!(cgroups.path(u64::MAX), None);
        assert!(cgroups.by_id.contains_key(&u64::MAX), "once is enough");
    }

    #[test]
    fn units_and_containers_are_named_as_people_know_them() {
        let hash = "4f".repeat(32);
        for (path, unit) in [
            ("/system.slice/nginx.service", Some("nginx.service".to_owned())),
            ("/system.slice/docker-".to_owned().as_str(), Some("docker-".to_owned())),
            (
                format!("/system.slice/docker-{hash}.scope").as_str(),
                Some("container:4f4f4f4f4f4f".to_owned()),
            ),
            (format!("/docker/{hash}").as_str(), Some("container:4f4f4f4f4f4f".to_owned())),
            // podman: by root, by a user (its payload in a group below), and with cgroupfs.
            (
                format!("/machine.slice/libpod-{hash}.scope/container").as_str(),
                Some("container:4f4f4f4f4f4f".to_owned()),
            ),
            (
                format!(
                    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{hash}.scope/container"
                )
                .as_str(),
                Some("container:4f4f4f4f4f4f".to_owned()),
            ),
            (format!("/libpod_parent/libpod-{hash}").as_str(), Some("container:4f4f4f4f4f4f".to_owned())),
            // The monitor beside it is not the container.
            (
                format!("/machine.slice/libpod-conmon-{hash}.scope").as_str(),
                Some(format!("libpod-conmon-{hash}.scope")),
            ),
            // containerd: under Kubernetes with systemd and with cgroupfs, and by nerdctl.
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod4f.slice/cri-containerd-{hash}.scope"
                )
                .as_str(),
                Some("container:4f4f4f4f4f4f".to_owned()),
            ),
            (format!("/kubepods/besteffort/pod4f/{hash}").as_str(), Some("container:4f4f4f4f4f4f".to_owned())),
            (format!("/system.slice/nerdctl-{hash}.scope").as_str(), Some("container:4f4f4f4f4f4f".to_owned())),
            (format!("/default/{hash}").as_str(), Some("container:4f4f4f4f4f4f".to_owned())),
            (format!("/kubepods.slice/crio-{hash}.scope").as_str(), Some("container:4f4f4f4f4f4f".to_owned())),
            // systemd in a container: the service that holds the socket says more than its container.
            (
                format!("/machine.slice/libpod-{hash}.scope/system.slice/nginx.service").as_str(),
                Some("nginx.service".to_owned()),
            ),
            (
                format!("/system.slice/docker-{hash}.scope/init.scope").as_str(),
                Some("container:4f4f4f4f4f4f".to_owned()),
            ),
            ("/system.slice/postgres.service/workers", Some("postgres.service".to_owned())),
            ("/init.scope", Some("init.scope".to_owned())),
            ("/batch/night", Some("night".to_owned())),
            ("/user.slice/user-1000.slice", None),
            ("/", None),
        ] {
            assert_eq!(unit_of(path), unit, "{path}");
        }
    }
}
