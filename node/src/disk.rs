//! Free space and health of the data directory's file system: new work is refused while there is still space
//! to finish what was begun, and while the disk hangs.
//!
//! A full disk in the middle of an append ends the process, because a log that may be half written cannot be
//! trusted. So writes are refused earlier, while the reserve is untouched; they are accepted again as soon as
//! space returns.
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use node_db::Bounds;

/// Free bytes below which no new entry is accepted: one log chunk (16 MiB) and one checkpoint's worth of WAL
/// fit in it.
pub const RESERVE_BYTES: u64 = 48 << 20;
/// How old the known free space may be. At 100 MB/s this is a fifth of the reserve.
const MAX_AGE: Duration = Duration::from_millis(100);

/// Watches one file system.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    reserve_bytes: u64,
    started: Instant,
    /// Milliseconds since `started` of the last check, plus one.
    looked: AtomicU64,
    free_bytes: AtomicU64,
    /// How long a write has been pending, in milliseconds, if that is too long; 0 means that the disk
    /// responds.
    hanging_millis: AtomicU64,
    /// Bytes that one transaction may take of the members' disks, and pages to which the database may grow; 0
    /// means unknown.
    transaction_bytes: AtomicU64,
    most_pages: AtomicU32,
}

/// Bytes that a transaction may always take, so that a member without space does not stop the others. Twice
/// the writer's page cache, and as much again for the checkpoint: the database counts only beyond that.
const LEAST_TRANSACTION_BYTES: u64 = 64 << 20;

/// Why no write is accepted now.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiskRefusal {
    /// The file system is nearly full.
    #[error("disk full: {free_bytes} bytes free under {path}, {reserve_bytes} needed; no write is accepted until there is room", path = path.display())]
    Full {
        /// The data directory.
        path: PathBuf,
        /// Left.
        free_bytes: u64,
        /// Kept.
        reserve_bytes: u64,
    },
    /// The disk hangs.
    #[error("disk hangs: a write under {path} has been under way for {seconds} s; no write is accepted until it ends", path = path.display())]
    Hangs {
        /// The data directory.
        path: PathBuf,
        /// So far.
        seconds: u64,
    },
}

/// The free space of the members.
#[derive(Clone, Copy, Debug)]
pub struct FreeSpace {
    /// The smallest free space of any member, beside its reserve.
    pub spare_bytes: u64,
    /// Pages of the database at that time.
    pub pages: u32,
    /// Bytes of a page.
    pub page_bytes: u32,
}

impl FreeSpace {
    fn transaction_bytes(self) -> u64 {
        self.spare_bytes.max(LEAST_TRANSACTION_BYTES)
    }

    /// A new page takes its size in the WAL and again in the main file; as much is left for the log and for
    /// what was proposed meanwhile. The result is an absolute size, so concurrent writes do not each take all
    /// the space.
    fn most_pages(self) -> u32 {
        let growth = self.spare_bytes / 3 / u64::from(self.page_bytes.max(512));
        let pages = u64::from(self.pages) + growth;
        // SQLite's own limit is one less.
        u32::try_from(pages).unwrap_or(u32::MAX - 1).max(1)
    }
}

impl Disk {
    /// Watches the file system of `path`. On a file system smaller than eight reserves, the reserve is an
    /// eighth of it.
    pub fn new(path: &Path) -> Self {
        let total = fs4::total_space(path).unwrap_or(u64::MAX);
        Self {
            path: path.to_owned(),
            reserve_bytes: RESERVE_BYTES.min(total / 8),
            started: Instant::now(),
            looked: AtomicU64::new(0),
            free_bytes: AtomicU64::new(u64::MAX),
            hanging_millis: AtomicU64::new(0),
            transaction_bytes: AtomicU64::new(0),
            most_pages: AtomicU32::new(0),
        }
    }

    /// Sets for how long a write has been pending, if that is too long; `None` if the disk responds.
    pub fn set_hanging(&self, age: Option<Duration>) {
        let millis = age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        self.hanging_millis.store(millis, Ordering::Relaxed);
    }

    /// Whether the disk responds.
    ///
    /// # Errors
    /// It does not.
    pub fn responds(&self) -> Result<(), DiskRefusal> {
        match self.hanging_millis.load(Ordering::Relaxed) {
            0 => Ok(()),
            millis => Err(DiskRefusal::Hangs {
                path: self.path.clone(),
                seconds: millis / 1000,
            }),
        }
    }

    /// Sets the members' free space. `None`: it is not known.
    pub fn note_free_space(&self, room: Option<FreeSpace>) {
        let (bytes, pages) =
            room.map_or((0, 0), |room| (room.transaction_bytes(), room.most_pages()));
        self.transaction_bytes.store(bytes, Ordering::Relaxed);
        self.most_pages.store(pages, Ordering::Relaxed);
    }

    /// Adds the limits of the members' disks to the bounds of a request, as far as they are known.
    pub fn bound(&self, bounds: Bounds) -> Bounds {
        let disk_bytes = self.transaction_bytes.load(Ordering::Relaxed);
        if disk_bytes == 0 {
            return bounds;
        }
        Bounds {
            disk_bytes,
            max_pages: self.most_pages.load(Ordering::Relaxed),
            ..bounds
        }
    }

    /// Bytes available beside the reserve. Calls the file system, which may hang.
    pub fn spare_bytes(&self) -> u64 {
        let free_bytes = fs4::available_space(&self.path).unwrap_or(0);
        free_bytes.saturating_sub(self.reserve_bytes)
    }

    /// Whether the disk responds and has space for new entries. Checks the file system at most ten times a
    /// second.
    ///
    /// # Errors
    /// The disk is full or hangs.
    pub fn check(&self) -> Result<(), DiskRefusal> {
        self.responds()?;
        let now = u64::try_from(self.started.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let looked = self.looked.load(Ordering::Relaxed);
        if looked == 0
            || now.saturating_sub(looked) >= u64::try_from(MAX_AGE.as_millis()).unwrap_or(u64::MAX)
        {
            self.looked.store(now, Ordering::Relaxed);
            // If the file system reports an error, it is not known to be full; an append will find out.
            self.free_bytes.store(
                fs4::available_space(&self.path).unwrap_or(u64::MAX),
                Ordering::Relaxed,
            );
        }
        let free_bytes = self.free_bytes.load(Ordering::Relaxed);
        if free_bytes >= self.reserve_bytes {
            return Ok(());
        }
        Err(DiskRefusal::Full {
            path: self.path.clone(),
            free_bytes,
            reserve_bytes: self.reserve_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_members_can_spare_bounds_a_write() {
        let disk = Disk::new(Path::new("/"));
        assert_eq!(disk.bound(Bounds::NONE), Bounds::NONE, "nothing is known");
        let mut room = FreeSpace {
            spare_bytes: 300 << 20,
            pages: 1_000,
            page_bytes: 4096,
        };
        disk.note_free_space(Some(room));
        let bounds = disk.bound(Bounds::NONE);
        assert_eq!(bounds.disk_bytes, 300 << 20);
        assert_eq!(bounds.max_pages, 1_000 + 25_600);
        // Small writes go on, but nothing grows.
        room.spare_bytes = 0;
        disk.note_free_space(Some(room));
        let bounds = disk.bound(Bounds::NONE);
        assert_eq!(bounds.disk_bytes, LEAST_TRANSACTION_BYTES);
        assert_eq!(bounds.max_pages, 1_000);
        room.spare_bytes = u64::MAX;
        disk.note_free_space(Some(room));
        assert_eq!(disk.bound(Bounds::NONE).max_pages, u32::MAX - 1);
        disk.note_free_space(None);
        assert_eq!(disk.bound(Bounds::NONE), Bounds::NONE);
    }
}
