//! Files that somebody names: whatever stands at the path, not only plain files.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Where a process finds its own standard output.
const STANDARD_OUTPUT: &str = "/dev/stdout";

/// Reads a file, or says why not. A device or a pipe tells no size beforehand, and a file may grow: so it
/// is read no further than one byte beyond the limit, which is named in the refusal.
pub(crate) fn read_at_most(path: &Path, name: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let told = file.metadata().map_err(|error| error.to_string())?.len();
    if told > bytes_max {
        return Err(format!("{told} bytes are more than {name}, {bytes_max}"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it has more bytes than {name}, {bytes_max}"));
    }
    Ok(bytes)
}

/// Writes over whatever is there. A plain file is replaced, all or nothing; a device or a pipe stays what
/// it is and is written to, and of a symbolic link, what it points to is written.
pub(crate) fn write_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match std::fs::metadata(path) {
        // A second description of it would have a position of its own, and write over what is printed.
        Ok(there) if is_standard_output(&there) => {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        Ok(there) if !there.is_file() => OpenOptions::new().write(true).open(path)?.write_all(bytes),
        Ok(_) => replace(&std::fs::canonicalize(path)?, bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link may point to nothing yet.
            if path.is_symlink() {
                let mut file = File::create(path)?;
                file.write_all(bytes)?;
                file.sync_all()
            } else {
                replace(path, bytes)
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether a path leads to this process's standard output.
pub(crate) fn leads_to_standard_output(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| is_standard_output(&there))
}

fn is_standard_output(there: &Metadata) -> bool {
    std::fs::metadata(STANDARD_OUTPUT).is_ok_and(|out| (out.dev(), out.ino()) == (there.dev(), there.ino()))
}

/// All or nothing, by a file beside it that takes its place.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.part", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    use super::*;

    #[test]
    fn nothing_is_read_beyond_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proof");
        std::fs::write(&path, [7; 10]).unwrap();
        assert_eq!(read_at_most(&path, "BYTES_MAX", 10).unwrap(), [7; 10]);
        let refused = read_at_most(&path, "BYTES_MAX", 9).unwrap_err();
        assert_eq!(refused, "10 bytes are more than BYTES_MAX, 9");
        // It says that it has none, and has no end.
        let refused = read_at_most(Path::new("/dev/zero"), "BYTES_MAX", 9).unwrap_err();
        assert_eq!(refused, "it has more bytes than BYTES_MAX, 9");
    }

    #[test]
    fn a_file_is_replaced_and_a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link, dangling) =
            (folder.path().join("file"), folder.path().join("link"), folder.path().join("dangling"));
        symlink("file", &link).unwrap();
        symlink("later", &dangling).unwrap();
        write_over(&file, b"first").unwrap();
        write_over(&link, b"second").unwrap();
        write_over(&dangling, b"third").unwrap();
        assert!(link.is_symlink() && dangling.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"second");
        assert_eq!(std::fs::read(folder.path().join("later")).unwrap(), b"third");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "nothing else is left behind");
    }

    #[test]
    fn a_pipe_is_written_to_and_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || std::fs::read(pipe).unwrap())
        };
        write_over(&pipe, b"evidence").unwrap();
        assert_eq!(reader.join().unwrap(), b"evidence");
        assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_full_device_is_no_place() {
        let error = write_over(Path::new("/dev/full"), b"evidence").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
