//! A disk in memory that forgets what was not synced, and fails on request.
//!
//! It knows what a program wrote and what of it would be there after a power cut. Names (made, renamed,
//! removed) are there at once, as on a file system whose journal is written first; bytes are there once
//! they are synced.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use nix::errno::Errno;

use crate::dice::Dice;

/// The folder everything is in.
pub(crate) const ROOT: u64 = 1;

/// What goes wrong with a disk, for as long as it is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ailment {
    /// Syncing answers EIO.
    pub(crate) fails_syncs: bool,
    /// Writing answers EIO.
    pub(crate) fails_writes: bool,
    /// Of a thousand reads, so many come with one bit flipped.
    pub(crate) flips_per_mille: u64,
    /// Syncing takes so long, in milliseconds.
    pub(crate) sync_ms: u64,
}

/// A file or folder.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Permissions.
    pub(crate) mode: u16,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Folder(BTreeMap<OsString, u64>),
    File(File),
}

/// A file's bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    /// As its writer sees them.
    pub(crate) now: Vec<u8>,
    /// As they are after a power cut that keeps nothing unsynced.
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// Whoever has it open; what has no name any more goes when nobody has.
    opened: u64,
    named: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Resize(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at..end].copy_from_slice(bytes);
            }
            Self::Resize(size) => to.resize(*size, 0),
        }
    }
}

/// What a power cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Files with something unsynced.
    pub(crate) files: usize,
    /// Changes that are gone.
    pub(crate) changes: usize,
    /// Writes of which a part is there.
    pub(crate) torn: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Disk {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    pub(crate) ailment: Ailment,
    capacity_bytes: u64,
    used_bytes: u64,
    dice: Dice,
    /// Syncing answers that all is well, and keeps nothing. No fleet survives that, and a run must notice.
    pub(crate) lies: bool,
    /// Bits flipped so far.
    pub(crate) flipped: u64,
    /// Requests that were answered with EIO.
    pub(crate) failed: u64,
}

type Result<T> = std::result::Result<T, Errno>;

impl Disk {
    pub(crate) fn new(capacity_bytes: u64, dice: Dice) -> Self {
        let root = Node { mode: 0o755, body: Body::Folder(BTreeMap::new()) };
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            ailment: Ailment::default(),
            capacity_bytes,
            used_bytes: 0,
            dice,
            lies: false,
            flipped: 0,
            failed: 0,
        }
    }

    pub(crate) fn node(&self, id: u64) -> Result<&Node> {
        self.nodes.get(&id).ok_or(Errno::ENOENT)
    }

    /// All bytes, and those that nobody uses.
    pub(crate) fn space(&self) -> (u64, u64) {
        (self.capacity_bytes, self.capacity_bytes.saturating_sub(self.used_bytes))
    }

    pub(crate) fn entries(&self, folder: u64) -> Result<&BTreeMap<OsString, u64>> {
        match &self.node(folder)?.body {
            Body::Folder(entries) => Ok(entries),
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn entries_mut(&mut self, folder: u64) -> Result<&mut BTreeMap<OsString, u64>> {
        match &mut self.nodes.get_mut(&folder).ok_or(Errno::ENOENT)?.body {
            Body::Folder(entries) => Ok(entries),
            Body::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn file_mut(&mut self, id: u64) -> Result<&mut File> {
        match &mut self.nodes.get_mut(&id).ok_or(Errno::ENOENT)?.body {
            Body::File(file) => Ok(file),
            Body::Folder(_) => Err(Errno::EISDIR),
        }
    }

    pub(crate) fn lookup(&self, folder: u64, name: &OsStr) -> Result<u64> {
        self.entries(folder)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(crate) fn make(&mut self, folder: u64, name: &OsStr, mode: u16, is_folder: bool) -> Result<u64> {
        if self.entries(folder)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let body = if is_folder {
            Body::Folder(BTreeMap::new())
        } else {
            Body::File(File { named: true, ..File::default() })
        };
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, Node { mode, body });
        self.entries_mut(folder)?.insert(name.to_owned(), id);
        Ok(id)
    }

    pub(crate) fn remove(&mut self, folder: u64, name: &OsStr) -> Result<()> {
        let id = self.lookup(folder, name)?;
        if let Body::Folder(entries) = &self.node(id)?.body
            && !entries.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.entries_mut(folder)?.remove(name);
        if let Ok(file) = self.file_mut(id) {
            file.named = false;
            self.drop_unused(id);
        } else {
            self.nodes.remove(&id);
        }
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<()> {
        let id = self.lookup(from.0, from.1)?;
        if let Ok(old) = self.lookup(to.0, to.1)
            && old != id
        {
            self.remove(to.0, to.1)?;
        }
        self.entries_mut(from.0)?.remove(from.1);
        self.entries_mut(to.0)?.insert(to.1.to_owned(), id);
        Ok(())
    }

    pub(crate) fn set_mode(&mut self, id: u64, mode: u16) -> Result<()> {
        self.nodes.get_mut(&id).ok_or(Errno::ENOENT)?.mode = mode;
        Ok(())
    }

    pub(crate) fn open(&mut self, id: u64) -> Result<()> {
        self.file_mut(id)?.opened += 1;
        Ok(())
    }

    pub(crate) fn close(&mut self, id: u64) {
        if let Ok(file) = self.file_mut(id) {
            file.opened = file.opened.saturating_sub(1);
            self.drop_unused(id);
        }
    }

    fn drop_unused(&mut self, id: u64) {
        if let Ok(file) = self.file_mut(id)
            && !file.named
            && file.opened == 0
        {
            let bytes = file.now.len() as u64;
            self.used_bytes = self.used_bytes.saturating_sub(bytes);
            self.nodes.remove(&id);
        }
    }

    pub(crate) fn read(&mut self, id: u64, at: u64, size: usize) -> Result<Vec<u8>> {
        let file = self.file_mut(id)?;
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(file.now.len());
        let to = from.saturating_add(size).min(file.now.len());
        let mut bytes = file.now[from..to].to_vec();
        if !bytes.is_empty()
            && self.ailment.flips_per_mille > 0
            && self.dice.below(1000) < self.ailment.flips_per_mille
        {
            let bit = self.dice.below(bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            self.flipped += 1;
        }
        Ok(bytes)
    }

    pub(crate) fn write(&mut self, id: u64, at: u64, bytes: &[u8]) -> Result<()> {
        if self.ailment.fails_writes {
            self.failed += 1;
            return Err(Errno::EIO);
        }
        let at = usize::try_from(at).map_err(|_| Errno::EFBIG)?;
        self.change(id, Change::Write { at, bytes: bytes.to_vec() })
    }

    pub(crate) fn resize(&mut self, id: u64, size: u64) -> Result<()> {
        let size = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        self.change(id, Change::Resize(size))
    }

    fn change(&mut self, id: u64, change: Change) -> Result<()> {
        let before = self.file_mut(id)?.now.len();
        let after = match &change {
            Change::Write { at, bytes } => before.max(at.saturating_add(bytes.len())),
            Change::Resize(size) => *size,
        };
        let used = (self.used_bytes + after as u64).saturating_sub(before as u64);
        if after > before && used > self.capacity_bytes {
            return Err(Errno::ENOSPC);
        }
        let file = self.file_mut(id)?;
        change.apply(&mut file.now);
        file.unsynced.push(change);
        self.used_bytes = used;
        Ok(())
    }

    pub(crate) fn sync(&mut self, id: u64) -> Result<()> {
        if self.ailment.fails_syncs {
            self.failed += 1;
            return Err(Errno::EIO);
        }
        let lies = self.lies;
        let file = self.file_mut(id)?;
        if lies {
            return Ok(());
        }
        for change in std::mem::take(&mut file.unsynced) {
            change.apply(&mut file.synced);
        }
        Ok(())
    }

    /// The power goes: of each file's unsynced changes the first few are there, as many as the dice say,
    /// and of the next write perhaps a part.
    pub(crate) fn cut_power(&mut self) -> Lost {
        let mut lost = Lost::default();
        let mut unused = Vec::new();
        for (id, node) in &mut self.nodes {
            let Body::File(file) = &mut node.body else { continue };
            file.opened = 0;
            if !file.named {
                unused.push(*id);
            }
            let changes = std::mem::take(&mut file.unsynced);
            if !changes.is_empty() {
                lost.files += 1;
                // Whoever lies keeps nothing at all.
                let most = if self.lies { 0 } else { changes.len() as u64 };
                let kept = self.dice.between(0, most) as usize;
                changes[..kept].iter().for_each(|change| change.apply(&mut file.synced));
                lost.changes += changes.len() - kept;
                if let Some(Change::Write { at, bytes }) = changes.get(kept)
                    && bytes.len() > 1
                    && self.dice.below(2) == 0
                {
                    let part = self.dice.between(1, bytes.len() as u64 - 1) as usize;
                    Change::Write { at: *at, bytes: bytes[..part].to_vec() }.apply(&mut file.synced);
                    lost.torn += 1;
                }
            }
            file.now.clone_from(&file.synced);
        }
        for id in unused {
            self.nodes.remove(&id);
        }
        let sizes = self.nodes.values().filter_map(|node| match &node.body {
            Body::File(file) => Some(file.now.len() as u64),
            Body::Folder(_) => None,
        });
        self.used_bytes = sizes.sum();
        lost
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn disk() -> (Disk, u64) {
        let mut disk = Disk::new(1000, Dice::new(7));
        let file = disk.make(ROOT, OsStr::new("a"), 0o644, false).unwrap();
        (disk, file)
    }

    #[test]
    fn what_is_synced_survives_a_power_cut() {
        let (mut disk, file) = disk();
        disk.write(file, 0, b"promised").unwrap();
        disk.sync(file).unwrap();
        disk.write(file, 8, b" and not").unwrap();
        assert_eq!(disk.read(file, 0, 100).unwrap(), b"promised and not");
        disk.cut_power();
        let after = disk.read(file, 0, 100).unwrap();
        assert!(after.starts_with(b"promised") && b"promised and not".starts_with(&after[..]), "{after:?}");
    }

    #[test]
    fn what_is_not_synced_is_lost_whole_in_part_or_not_at_all() {
        let lengths: std::collections::BTreeSet<usize> = (0..64)
            .map(|seed| {
                let mut disk = Disk::new(1000, Dice::new(seed));
                let file = disk.make(ROOT, OsStr::new("a"), 0o644, false).unwrap();
                disk.write(file, 0, b"12345678").unwrap();
                disk.cut_power();
                disk.read(file, 0, 100).unwrap().len()
            })
            .collect();
        assert!(lengths.contains(&0) && lengths.contains(&8), "{lengths:?}");
        assert!(lengths.iter().any(|length| (1..8).contains(length)), "{lengths:?}");
    }

    #[test]
    fn an_ailing_disk_fails_and_flips() {
        let (mut disk, file) = disk();
        disk.write(file, 0, b"12345678").unwrap();
        disk.ailment = Ailment { fails_syncs: true, fails_writes: true, flips_per_mille: 1000, sync_ms: 0 };
        assert_eq!(disk.sync(file), Err(Errno::EIO));
        assert_eq!(disk.write(file, 0, b"x"), Err(Errno::EIO));
        let read = disk.read(file, 0, 8).unwrap();
        let flipped: u32 = read.iter().zip(b"12345678").map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((flipped, disk.flipped, disk.failed), (1, 1, 2));
        disk.ailment = Ailment::default();
        assert_eq!(disk.read(file, 0, 8).unwrap(), b"12345678", "what is stored is whole");
    }

    #[test]
    fn it_holds_what_it_holds() {
        let (mut disk, file) = disk();
        assert_eq!(disk.write(file, 0, &[0; 1001]), Err(Errno::ENOSPC));
        disk.write(file, 0, &[0; 1000]).unwrap();
        disk.open(file).unwrap();
        disk.remove(ROOT, OsStr::new("a")).unwrap();
        assert_eq!(disk.space(), (1000, 0), "an open file is there without its name");
        disk.close(file);
        assert_eq!(disk.space(), (1000, 1000));
        assert_eq!(disk.read(file, 0, 1), Err(Errno::ENOENT));
    }

    #[test]
    fn a_renamed_file_takes_the_others_place() {
        let (mut disk, file) = disk();
        let other = disk.make(ROOT, OsStr::new("b"), 0o644, false).unwrap();
        disk.rename((ROOT, OsStr::new("a")), (ROOT, OsStr::new("b"))).unwrap();
        assert_eq!(disk.lookup(ROOT, OsStr::new("b")), Ok(file));
        assert_eq!(disk.lookup(ROOT, OsStr::new("a")), Err(Errno::ENOENT));
        assert!(disk.node(other).is_err());
    }
}
