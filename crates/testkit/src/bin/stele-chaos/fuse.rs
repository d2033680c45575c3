//! A [`Disk`] as a file system that programs use without knowing.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use crate::dice::Dice;
use crate::disk::{Body, Disk, Node};

/// The kernel keeps nothing of what it was told: after a power cut all of it could be wrong.
const NOT_KEPT: Duration = Duration::ZERO;
const BLOCK_BYTES: u32 = 4096;
const NAME_BYTES_MAX: u32 = 255;

/// A mounted disk; unmounted when dropped.
pub(crate) struct Mounted {
    disk: Arc<Mutex<Disk>>,
    _session: BackgroundSession,
}

impl Mounted {
    pub(crate) fn mount(at: &Path, capacity_bytes: u64, dice: Dice) -> anyhow::Result<Self> {
        let disk = Arc::new(Mutex::new(Disk::new(capacity_bytes, dice)));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("stele-chaos".to_owned())];
        let session = fuser::spawn_mount(Served(Arc::clone(&disk)), at, &config)
            .with_context(|| format!("cannot mount a FUSE file system at {}", at.display()))?;
        Ok(Self { disk, _session: session })
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Served(Arc<Mutex<Disk>>);

fn told(error: nix::errno::Errno) -> Errno {
    Errno::from_i32(error as i32)
}

impl Served {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn attributes(id: u64, node: &Node) -> FileAttr {
    let (kind, size) = match &node.body {
        Body::Folder(_) => (FileType::Directory, u64::from(BLOCK_BYTES)),
        Body::File(file) => (FileType::RegularFile, file.now.len() as u64),
    };
    FileAttr {
        ino: INodeNo(id),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: node.mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk();
        let found = disk.lookup(parent.0, name).and_then(|id| Ok(attributes(id, disk.node(id)?)));
        match found {
            Ok(attributes) => reply.entry(&NOT_KEPT, &attributes, Generation(0)),
            Err(error) => reply.error(told(error)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.disk().node(ino.0) {
            Ok(node) => reply.attr(&NOT_KEPT, &attributes(ino.0, node)),
            Err(error) => reply.error(told(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        let changed = mode
            .map_or(Ok(()), |mode| disk.set_mode(ino.0, (mode & 0o7777) as u16))
            .and_then(|()| size.map_or(Ok(()), |size| disk.resize(ino.0, size)))
            .and_then(|()| Ok(attributes(ino.0, disk.node(ino.0)?)));
        match changed {
            Ok(attributes) => reply.attr(&NOT_KEPT, &attributes),
            Err(error) => reply.error(told(error)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let mut disk = self.disk();
        let mode = (mode & !umask & 0o7777) as u16;
        let made = disk.make(parent.0, name, mode, true).and_then(|id| Ok(attributes(id, disk.node(id)?)));
        match made {
            Ok(attributes) => reply.entry(&NOT_KEPT, &attributes, Generation(0)),
            Err(error) => reply.error(told(error)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.disk().remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.disk().remove(parent.0, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        empty(self.disk().rename((parent.0, name), (newparent.0, newname)), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mut disk = self.disk();
        let truncates = flags.0 & nix::libc::O_TRUNC != 0;
        let opened = disk.open(ino.0).and_then(|()| if truncates { disk.resize(ino.0, 0) } else { Ok(()) });
        match opened {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(told(error)),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mut disk = self.disk();
        let mode = (mode & !umask & 0o7777) as u16;
        let made = disk.make(parent.0, name, mode, false).and_then(|id| {
            disk.open(id)?;
            Ok(attributes(id, disk.node(id)?))
        });
        match made {
            Ok(attributes) => reply.created(
                &NOT_KEPT,
                &attributes,
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            Err(error) => reply.error(told(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().read(ino.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(told(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disk().write(ino.0, offset, data) {
            // The kernel never sends more than fits.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(told(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file is no promise.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut disk = self.disk();
        // Others wait, too: a disk does one thing after the other.
        std::thread::sleep(Duration::from_millis(disk.ailment.sync_ms));
        empty(disk.sync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let fails = self.disk().ailment.fails_syncs;
        empty(if fails { Err(nix::errno::Errno::EIO) } else { Ok(()) }, reply);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.disk().close(ino.0);
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let disk = self.disk();
        let entries = match disk.entries(ino.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(told(error)),
        };
        let own = [(OsStr::new("."), ino.0), (OsStr::new(".."), ino.0)];
        let listed = entries.iter().map(|(name, id)| (name.as_os_str(), *id));
        for (index, (name, id)) in own.into_iter().chain(listed).enumerate().skip(offset as usize) {
            let is_folder = matches!(disk.node(id), Ok(Node { body: Body::Folder(_), .. }));
            let kind = if is_folder { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(id), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (all, free) = self.disk().space();
        let block = u64::from(BLOCK_BYTES);
        let (all, free) = (all / block, free / block);
        reply.statfs(all, free, free, u64::MAX, u64::MAX, BLOCK_BYTES, NAME_BYTES_MAX, BLOCK_BYTES);
    }
}

fn empty(outcome: Result<(), nix::errno::Errno>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(told(error)),
    }
}
