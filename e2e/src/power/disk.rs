//! The model of [`super::model`] as a mounted file system (FUSE), and a power supply that fails for several
//! at the same instant.
use std::{
    ffi::OsStr,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    WriteFlags,
};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tempfile::TempDir;

use super::model::{FsError, Metadata, Model};
use crate::seed::Seed;

/// How long the kernel may cache names and attributes: nothing else changes them while it is mounted.
const KEEP: Duration = Duration::from_secs(3600);
/// Free blocks that `statfs` reports: enough for everything that a node writes.
const FREE_BLOCKS: u64 = 1 << 24;
const BLOCK_BYTES: u32 = 4096;

/// A power supply: all disks attached to it lose power at the same instant.
#[derive(Clone, Debug, Default)]
pub struct PowerSupply(Arc<RwLock<bool>>);

impl PowerSupply {
    /// From now on every operation on every attached disk fails and changes nothing.
    pub fn cut(&self) {
        *self.0.write() = true;
    }

    /// Restores the power; first call [`Disk::remount_after_cut`].
    pub fn restore(&self) {
        *self.0.write() = false;
    }
}

/// A mounted disk; unmounted when the value is dropped.
#[derive(Debug)]
pub struct Disk {
    power: PowerSupply,
    model: Arc<Mutex<Model>>,
    session: Option<BackgroundSession>,
    root: TempDir,
}

impl Disk {
    /// Mounts an empty disk.
    ///
    /// # Errors
    /// Without `/dev/fuse` or the right to mount; the error says why.
    pub fn mount(power: &PowerSupply, seed: Seed) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("rq-power-")
            .tempdir()
            .context("create the mount point")?;
        let mut disk = Self {
            power: power.clone(),
            model: Arc::new(Mutex::new(Model::new(seed))),
            session: None,
            root,
        };
        disk.attach()?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.root.path().to_owned()
    }

    /// Replaces the content by what the cut has left, chosen by `seed`, and mounts it again. Call it after
    /// [`PowerSupply::cut`], once no process uses the disk, and before [`PowerSupply::restore`]. Returns what
    /// was lost, as text.
    ///
    /// # Errors
    /// If the disk is in use or cannot be mounted.
    pub fn remount_after_cut(&mut self, seed: &mut Seed) -> Result<Vec<String>> {
        self.detach();
        let (after, lost) = lock(&self.model).cut(seed);
        self.model = Arc::new(Mutex::new(after));
        self.attach()?;
        Ok(lost)
    }

    fn attach(&mut self) -> Result<()> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("rq-power".to_owned())];
        let files = PowerFs {
            power: self.power.clone(),
            model: Arc::clone(&self.model),
        };
        let session = fuser::spawn_mount(files, self.root.path(), &config)
            .context("mount a FUSE file system")?;
        self.session = Some(session);
        Ok(())
    }

    fn detach(&mut self) {
        if let Some(session) = self.session.take()
            && session.umount_and_join().is_err()
        {
            // A process still has a file open. The lazy unmount ends with its last use.
            let _ = Command::new("umount")
                .arg("-l")
                .arg(self.root.path())
                .status();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Why such disks are not available here; `None` if they are.
///
/// # Errors
/// Under `CI=true`, where the test must not be skipped.
pub fn unavailable() -> Result<Option<String>> {
    match Disk::mount(&PowerSupply::default(), Seed::new(0)) {
        Ok(_) => Ok(None),
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => Err(error),
        Err(error) => Ok(Some(format!("{error:#}"))),
    }
}

fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock()
}

struct PowerFs {
    power: PowerSupply,
    model: Arc<Mutex<Model>>,
}

fn errno(error: FsError) -> Errno {
    match error {
        FsError::Missing => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotDir => Errno::ENOTDIR,
        FsError::IsDir => Errno::EISDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
    }
}

fn attributes(metadata: Metadata) -> FileAttr {
    let then = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(metadata.ino),
        size: metadata.len,
        blocks: metadata.len.div_ceil(512),
        atime: then,
        mtime: then,
        ctime: then,
        crtime: then,
        kind: if metadata.is_dir {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: 0o777,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

impl PowerFs {
    /// Executes one operation, which is entirely before or entirely after a cut.
    fn act<T>(&self, act: impl FnOnce(&mut Model) -> Result<T, FsError>) -> Result<T, Errno> {
        let off = self.power.0.read();
        if *off {
            return Err(Errno::EIO);
        }
        act(&mut lock(&self.model)).map_err(errno)
    }

    fn answer(&self, reply: ReplyEmpty, act: impl FnOnce(&mut Model) -> Result<(), FsError>) {
        match self.act(act) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn entry(&self, reply: ReplyEntry, act: impl FnOnce(&mut Model) -> Result<Metadata, FsError>) {
        match self.act(act) {
            Ok(metadata) => reply.entry(&KEEP, &attributes(metadata), Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }
}

impl Filesystem for PowerFs {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, |model| model.lookup(parent.0, name));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.act(|model| model.metadata(ino.0)) {
            Ok(metadata) => reply.attr(&KEEP, &attributes(metadata)),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<fuser::TimeOrNow>,
        _mtime: Option<fuser::TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = self.act(|model| {
            if let Some(size) = size {
                model.set_len(ino.0, size)?;
            }
            model.metadata(ino.0)
        });
        match set {
            Ok(metadata) => reply.attr(&KEEP, &attributes(metadata)),
            Err(errno) => reply.error(errno),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.entry(reply, |model| model.make(parent.0, name, true));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer(reply, |model| model.unlink(parent.0, name, false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answer(reply, |model| model.unlink(parent.0, name, true));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.answer(reply, |model| {
            model.rename((parent.0, name), (newparent.0, newname))
        });
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.act(|model| model.make(parent.0, name, false)) {
            Ok(metadata) => reply.created(
                &KEEP,
                &attributes(metadata),
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.act(|model| Ok(model.read(ino.0, offset, size as usize)?.to_vec()));
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.act(|model| model.write(ino.0, offset, data)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.answer(reply, |model| model.sync(ino.0));
    }

    fn fsyncdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.answer(reply, |model| model.sync_dir(ino.0));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = match self.act(|model| model.list(ino.0)) {
            Ok(listed) => listed,
            Err(errno) => return reply.error(errno),
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (number, (name, metadata)) in (1..).zip(&listed).skip(from) {
            if reply.add(
                INodeNo(metadata.ino),
                number,
                attributes(*metadata).kind,
                name,
            ) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = FREE_BLOCKS;
        reply.statfs(
            blocks,
            blocks,
            blocks,
            blocks,
            blocks,
            BLOCK_BYTES,
            255,
            BLOCK_BYTES,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write as _,
        path::Path,
    };

    use super::*;

    /// Two disks on one power supply; `None` if they are not available here.
    fn disks() -> Option<(PowerSupply, Disk, Disk)> {
        if let Some(reason) = unavailable().unwrap() {
            println!("skipped: {reason}");
            return None;
        }
        let power = PowerSupply::default();
        let disk = |seed| Disk::mount(&power, Seed::new(seed)).unwrap();
        let (one, other) = (disk(1), disk(2));
        Some((power, one, other))
    }

    #[test]
    fn what_was_synced_stays_and_nothing_else_is_promised() {
        let Some((power, mut one, mut other)) = disks() else {
            return;
        };
        let mut seed = Seed::new(3);
        for disk in [&one, &other] {
            let dir = disk.path().join("d");
            fs::create_dir(&dir).unwrap();
            let mut file = File::create(dir.join("kept")).unwrap();
            file.write_all(&[7; 3000]).unwrap();
            file.sync_all().unwrap();
            File::open(&dir).unwrap().sync_all().unwrap();
            File::open(disk.path()).unwrap().sync_all().unwrap();
            file.write_all(&[8; 3000]).unwrap();
            fs::write(dir.join("lost"), "x").unwrap();
            assert_eq!(fs::read(dir.join("kept")).unwrap().len(), 6000);
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        }
        power.cut();
        for disk in [&one, &other] {
            let refused = fs::write(disk.path().join("d/late"), "x").unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(5), "EIO: {refused}");
        }
        let mut lost = Vec::new();
        for disk in [&mut one, &mut other] {
            lost.extend(disk.remount_after_cut(&mut seed).unwrap());
        }
        power.restore();
        for disk in [&one, &other] {
            let kept = fs::read(disk.path().join("d/kept")).unwrap();
            assert!(kept.len() >= 3000 && kept[..2560] == [7; 2560]);
            assert!(!disk.path().join("d/late").exists());
        }
        assert!(lost.iter().any(|loss| loss.contains("kept")), "{lost:?}");
    }

    #[test]
    fn sqlite_works_on_it_in_wal_mode() {
        let Some((power, mut one, _)) = disks() else {
            return;
        };
        let path = one.path().join("x.db");
        let open = |path: &Path| {
            let conn = rusqlite::Connection::open(path).unwrap();
            conn.pragma_update(None, "journal_mode", "WAL").unwrap();
            conn.pragma_update(None, "synchronous", "FULL").unwrap();
            conn
        };
        for round in 0..20 {
            let (conn, reader) = (open(&path), open(&path));
            conn.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES({round}); INSERT INTO t VALUES({round})"
            ))
            .unwrap();
            let count: i64 = reader
                .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .unwrap();
            assert_eq!(count, 2 * (round + 1));
            power.cut();
            drop((conn, reader));
            one.remount_after_cut(&mut Seed::new(round.unsigned_abs()))
                .unwrap();
            power.restore();
        }
    }
}
