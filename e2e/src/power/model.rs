//! A file system with two states, the one that programs see and the durable one, and the states that a power
//! cut may leave.
//!
//! Promises as much as POSIX and no more. fsync of a file makes its content and length durable, not its name.
//! fsync of a directory makes its entries durable, not the content of what they name. A rename is atomic.
//! Anything not synced may survive or not, each sector independently.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
};

use crate::seed::Seed;

/// Bytes that a disk writes atomically.
pub const SECTOR: usize = 512;
/// Inode number of the root directory.
pub const ROOT: u64 = 1;
/// One in this many writes makes a sector durable without a sync, as the kernel's write-back does.
const WRITE_BACK: u64 = 6;

type Names = BTreeMap<OsString, u64>;
type DirEntry = (u64, OsString);

/// A file's content.
#[derive(Clone, Debug, Default)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that differ between the two states, or may.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Inode {
    File(File),
    /// The entries that programs see.
    Dir(Names),
}

/// A change of directory entries that no fsync has made durable yet.
#[derive(Clone, Debug)]
enum Change {
    Link(DirEntry, u64),
    Unlink(DirEntry),
    Rename(DirEntry, DirEntry, u64),
}

impl Change {
    fn entries(&self) -> Vec<&DirEntry> {
        match self {
            Self::Link(entry, _) | Self::Unlink(entry) => vec![entry],
            Self::Rename(from, to, _) => vec![from, to],
        }
    }

    fn touches(&self, dir: u64) -> bool {
        self.entries().iter().any(|entry| entry.0 == dir)
    }

    fn apply(&self, dirs: &mut HashMap<u64, Names>) {
        let mut remove = |(dir, name): &DirEntry| dirs.entry(*dir).or_default().remove(name);
        match self {
            Self::Link((dir, name), thing) => {
                dirs.entry(*dir).or_default().insert(name.clone(), *thing);
            }
            Self::Unlink(entry) => {
                remove(entry);
            }
            Self::Rename(from, (dir, name), thing) => {
                remove(from);
                dirs.entry(*dir).or_default().insert(name.clone(), *thing);
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Link((_, name), _) => format!("new name {}", name.display()),
            Self::Unlink((_, name)) => format!("unlink {}", name.display()),
            Self::Rename((_, from), (_, to), _) => {
                format!("rename {} to {}", from.display(), to.display())
            }
        }
    }
}

/// Error of a file-system operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsError {
    /// No such file or directory.
    Missing,
    /// The name exists already.
    Exists,
    /// Not a directory.
    NotDir,
    /// Is a directory.
    IsDir,
    /// The directory is not empty.
    NotEmpty,
}

/// Metadata of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Inode number.
    pub ino: u64,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// The simulated file system.
#[derive(Clone, Debug)]
pub struct Model {
    inodes: HashMap<u64, Inode>,
    durable_dirs: HashMap<u64, Names>,
    changes: Vec<Change>,
    next: u64,
    seed: Seed,
}

impl Model {
    /// An empty file system. `seed` determines which sectors reach the disk without a sync.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self {
            inodes: HashMap::from([(ROOT, Inode::Dir(Names::new()))]),
            durable_dirs: HashMap::from([(ROOT, Names::new())]),
            changes: Vec::new(),
            next: ROOT + 1,
            seed,
        }
    }

    fn dir(&mut self, dir: u64) -> Result<&mut Names, FsError> {
        match self.inodes.get_mut(&dir) {
            Some(Inode::Dir(names)) => Ok(names),
            Some(Inode::File(_)) => Err(FsError::NotDir),
            None => Err(FsError::Missing),
        }
    }

    fn file(&mut self, ino: u64) -> Result<&mut File, FsError> {
        match self.inodes.get_mut(&ino) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Dir(_)) => Err(FsError::IsDir),
            None => Err(FsError::Missing),
        }
    }

    /// Looks up a name in a directory.
    ///
    /// # Errors
    /// If the name does not exist.
    pub fn lookup(&mut self, dir: u64, name: &OsStr) -> Result<Metadata, FsError> {
        let ino = *self.dir(dir)?.get(name).ok_or(FsError::Missing)?;
        self.metadata(ino)
    }

    /// Metadata of an inode.
    ///
    /// # Errors
    /// If the inode does not exist.
    pub fn metadata(&self, ino: u64) -> Result<Metadata, FsError> {
        let (len, is_dir) = match self.inodes.get(&ino).ok_or(FsError::Missing)? {
            Inode::File(file) => (file.seen.len() as u64, false),
            Inode::Dir(_) => (0, true),
        };
        Ok(Metadata { ino, len, is_dir })
    }

    /// The entries of a directory.
    ///
    /// # Errors
    /// If it is not a directory.
    pub fn list(&mut self, dir: u64) -> Result<Vec<(OsString, Metadata)>, FsError> {
        let names = self.dir(dir)?.clone();
        names
            .into_iter()
            .map(|(name, ino)| Ok((name, self.metadata(ino)?)))
            .collect()
    }

    /// Creates a file or directory.
    ///
    /// # Errors
    /// If the name exists.
    pub fn make(&mut self, dir: u64, name: &OsStr, is_dir: bool) -> Result<Metadata, FsError> {
        if self.dir(dir)?.contains_key(name) {
            return Err(FsError::Exists);
        }
        let ino = self.next;
        self.next += 1;
        let thing = if is_dir {
            self.durable_dirs.insert(ino, Names::new());
            Inode::Dir(Names::new())
        } else {
            Inode::File(File::default())
        };
        self.inodes.insert(ino, thing);
        self.dir(dir)?.insert(name.to_owned(), ino);
        self.changes.push(Change::Link((dir, name.to_owned()), ino));
        self.metadata(ino)
    }

    /// Removes a name.
    ///
    /// # Errors
    /// If the name does not exist, is of the other kind, or is a directory that is not empty.
    pub fn unlink(&mut self, dir: u64, name: &OsStr, is_dir: bool) -> Result<(), FsError> {
        let metadata = self.lookup(dir, name)?;
        match (is_dir, metadata.is_dir) {
            (false, true) => return Err(FsError::IsDir),
            (true, false) => return Err(FsError::NotDir),
            (true, true) if !self.dir(metadata.ino)?.is_empty() => return Err(FsError::NotEmpty),
            _ => {}
        }
        self.dir(dir)?.remove(name);
        self.changes.push(Change::Unlink((dir, name.to_owned())));
        Ok(())
    }

    /// Renames a file or directory; an existing file of the new name is replaced.
    ///
    /// # Errors
    /// If the old name does not exist, or the new one is a directory that is not empty.
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), FsError> {
        let metadata = self.lookup(from.0, from.1)?;
        if let Ok(there) = self.lookup(to.0, to.1)
            && there.is_dir
            && !self.dir(there.ino)?.is_empty()
        {
            return Err(FsError::NotEmpty);
        }
        self.dir(to.0)?;
        self.dir(from.0)?.remove(from.1);
        self.dir(to.0)?.insert(to.1.to_owned(), metadata.ino);
        let (from, to) = ((from.0, from.1.to_owned()), (to.0, to.1.to_owned()));
        self.changes.push(Change::Rename(from, to, metadata.ino));
        Ok(())
    }

    /// Bytes of a file; fewer at its end.
    ///
    /// # Errors
    /// If it is not a file.
    pub fn read(&mut self, ino: u64, at: u64, len: usize) -> Result<&[u8], FsError> {
        let seen = &self.file(ino)?.seen;
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(seen.len());
        Ok(&seen[from..from.saturating_add(len).min(seen.len())])
    }

    /// Writes bytes; a gap before them is filled with zeros.
    ///
    /// # Errors
    /// If it is not a file.
    pub fn write(&mut self, ino: u64, at: u64, data: &[u8]) -> Result<(), FsError> {
        let draw = (self.seed.below(WRITE_BACK), self.seed.next_u64());
        let file = self.file(ino)?;
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let (old, end) = (file.seen.len(), at + data.len());
        if end > old {
            file.seen.resize(end, 0);
        }
        file.seen[at..end].copy_from_slice(data);
        file.touch(at.min(old)..end);
        if draw.0 == 0 {
            file.write_back(draw.1);
        }
        Ok(())
    }

    /// Changes a file's length.
    ///
    /// # Errors
    /// If it is not a file.
    pub fn set_len(&mut self, ino: u64, len: u64) -> Result<(), FsError> {
        let file = self.file(ino)?;
        let (old, new) = (file.seen.len(), usize::try_from(len).unwrap_or(usize::MAX));
        file.seen.resize(new, 0);
        file.touch(old.min(new)..old.max(new));
        Ok(())
    }

    /// Makes a file's content and length durable (fsync).
    ///
    /// # Errors
    /// If it is not a file.
    pub fn sync(&mut self, ino: u64) -> Result<(), FsError> {
        let file = self.file(ino)?;
        file.durable.resize(file.seen.len(), 0);
        for sector in std::mem::take(&mut file.dirty) {
            file.make_durable(sector);
        }
        Ok(())
    }

    /// Makes a directory's entries durable (fsync). Renames from or to other directories become durable on
    /// both sides, together with earlier changes of their names.
    ///
    /// # Errors
    /// If it is not a directory.
    pub fn sync_dir(&mut self, dir: u64) -> Result<(), FsError> {
        self.dir(dir)?;
        let mut needed: Vec<bool> = self.changes.iter().map(|c| c.touches(dir)).collect();
        let mut entries = BTreeSet::new();
        for (change, needed) in self.changes.iter().zip(&mut needed).rev() {
            *needed |= change
                .entries()
                .iter()
                .any(|entry| entries.contains(*entry));
            if *needed {
                entries.extend(change.entries().into_iter().cloned());
            }
        }
        let mut needed = needed.into_iter();
        let durable = &mut self.durable_dirs;
        self.changes.retain(|change| {
            let applies = needed.next().unwrap_or(false);
            if applies {
                change.apply(durable);
            }
            !applies
        });
        Ok(())
    }

    /// A state that a power cut at this moment may leave, chosen by `seed`, and a description of what was
    /// lost.
    #[must_use]
    pub fn cut(&self, seed: &mut Seed) -> (Self, Vec<String>) {
        let mut lost = Vec::new();
        let dirs = self.names_after_cut(seed, &mut lost);
        let mut after = Self::new(seed.fork());
        after.next = self.next;
        after.durable_dirs.clear();
        after.inodes.clear();
        let mut waiting = vec![(ROOT, OsString::from("/"))];
        while let Some((ino, name)) = waiting.pop() {
            match self.inodes.get(&ino) {
                Some(Inode::File(file)) => {
                    let (content, loss) = file.after_cut(seed);
                    lost.extend(loss.map(|loss| format!("{}: {loss}", name.display())));
                    let file = File {
                        seen: content.clone(),
                        durable: content,
                        dirty: BTreeSet::new(),
                    };
                    after.inodes.insert(ino, Inode::File(file));
                }
                Some(Inode::Dir(_)) => {
                    let names = dirs.get(&ino).cloned().unwrap_or_default();
                    waiting.extend(names.iter().map(|(name, ino)| (*ino, name.clone())));
                    after.inodes.insert(ino, Inode::Dir(names.clone()));
                    after.durable_dirs.insert(ino, names);
                }
                None => {}
            }
        }
        (after, lost)
    }

    /// Either a prefix of the pending changes, as journaling file systems keep, or any subset, as POSIX
    /// allows.
    fn names_after_cut(&self, seed: &mut Seed, lost: &mut Vec<String>) -> HashMap<u64, Names> {
        let mut dirs = self.durable_dirs.clone();
        let in_order = seed.below(2) == 0;
        let first = seed.index(self.changes.len() + 1);
        let share = seed.below(101);
        let mut missing: BTreeSet<&DirEntry> = BTreeSet::new();
        for (number, change) in self.changes.iter().enumerate() {
            let wanted = if in_order {
                number < first
            } else {
                seed.below(100) < share
            };
            // A later change of a name depends on the earlier ones.
            let stands = change
                .entries()
                .iter()
                .all(|entry| !missing.contains(entry));
            if wanted && stands {
                change.apply(&mut dirs);
            } else {
                missing.extend(change.entries());
                lost.push(change.text());
            }
        }
        dirs
    }
}

impl File {
    fn touch(&mut self, bytes: std::ops::Range<usize>) {
        if !bytes.is_empty() {
            self.dirty
                .extend(bytes.start / SECTOR..=(bytes.end - 1) / SECTOR);
        }
    }

    /// Makes the visible content of a sector durable, as far as both states reach.
    fn make_durable(&mut self, sector: usize) {
        let end = ((sector + 1) * SECTOR)
            .min(self.seen.len())
            .min(self.durable.len());
        let start = (sector * SECTOR).min(end);
        self.durable[start..end].copy_from_slice(&self.seen[start..end]);
    }

    /// One sector becomes durable without a sync; the durable file grows as needed.
    fn write_back(&mut self, draw: u64) {
        let entry = usize::try_from(draw).unwrap_or(0) % self.dirty.len().max(1);
        let Some(sector) = self.dirty.iter().nth(entry).copied() else {
            return;
        };
        let end = ((sector + 1) * SECTOR).min(self.seen.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.make_durable(sector);
        self.dirty.remove(&sector);
    }

    /// Content after a cut, and what was lost, if anything was not durable.
    fn after_cut(&self, seed: &mut Seed) -> (Vec<u8>, Option<String>) {
        let (old, new) = (self.durable.len(), self.seen.len());
        if self.dirty.is_empty() && old == new {
            return (self.seen.clone(), None);
        }
        let len = match seed.below(4) {
            0 => old,
            1 | 2 => new,
            _ => old.min(new) + seed.index(old.abs_diff(new) + 1),
        };
        let share = [0, 20, 50, 80, 100, 100][seed.index(6)];
        let mut content = self.durable.clone();
        content.resize(old.max(new), 0);
        let mut kept = 0;
        for sector in &self.dirty {
            if seed.below(100) < share {
                kept += 1;
                let start = (sector * SECTOR).min(new);
                let end = (start + SECTOR).min(new);
                content[start..end].copy_from_slice(&self.seen[start..end]);
            }
        }
        content.resize(len, 0);
        let loss = format!(
            "{kept} of {} unsynced sectors, length {len} of {old} to {new}",
            self.dirty.len()
        );
        (content, Some(loss))
    }
}

#[cfg(test)]
mod tests;
