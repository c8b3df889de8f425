//! The file of `--pcap`: written by the capture's thread, and what the disk refused is told at the end.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::cmd::run::unwritable;
use crate::failure::Failure;

/// The file, its name, and the first error of writing it; clones are of the same file.
#[derive(Clone, Debug)]
pub(crate) struct PcapFile {
    path: PathBuf,
    file: Arc<File>,
    refused: Arc<OnceLock<io::Error>>,
}

impl PcapFile {
    /// Makes the file, or empties it.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| unwritable(Some(path), &error))?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file), refused: Arc::default() })
    }

    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Why packets are missing at its end, if they are.
    pub(crate) fn refused(&self) -> Option<&io::Error> {
        self.refused.get()
    }
}

impl Write for PcapFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.file).write(bytes).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                // The first is the reason of those that follow.
                let _ = self.refused.set(io::Error::new(error.kind(), error.to_string()));
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.file).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_refuses_is_remembered() {
        let mut file = PcapFile::create(Path::new("/dev/full")).unwrap();
        assert!(file.refused().is_none());
        assert!(file.clone().write_all(b"packet").is_err());
        assert_eq!(file.refused().unwrap().kind(), io::ErrorKind::StorageFull);
        assert!(file.flush().is_ok() && file.path() == "/dev/full");
    }
}
