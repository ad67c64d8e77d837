//! What a disk holds and what the program sees: two states of every file and directory, and the states that a power cut may leave.
//!
//! As POSIX promises, no more: an fsync of a file makes its content and length durable, not its name; an fsync of a directory makes its names
//! durable, not what they lead to; a rename happens whole or not at all. Whatever was not synced may be there or not, each sector for itself.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
};

use crate::seed::Seed;

/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;
/// The root directory.
pub const ROOT: u64 = 1;
/// One in so many writes lets a sector that nobody synced reach the disk, as a system's write-back does.
const WRITE_BACK: u64 = 6;

type Names = BTreeMap<OsString, u64>;
type Place = (u64, OsString);

/// A file's content.
#[derive(Clone, Debug, Default)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that differ, or may.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Thing {
    File(File),
    /// The names that the program sees.
    Dir(Names),
}

/// A change of names that no fsync has made durable yet.
#[derive(Clone, Debug)]
enum Change {
    Link(Place, u64),
    Unlink(Place),
    Rename(Place, Place, u64),
}

impl Change {
    fn places(&self) -> Vec<&Place> {
        match self {
            Self::Link(place, _) | Self::Unlink(place) => vec![place],
            Self::Rename(from, to, _) => vec![from, to],
        }
    }

    fn touches(&self, dir: u64) -> bool {
        self.places().iter().any(|place| place.0 == dir)
    }

    fn apply(&self, dirs: &mut HashMap<u64, Names>) {
        let mut remove = |(dir, name): &Place| dirs.entry(*dir).or_default().remove(name);
        match self {
            Self::Link((dir, name), thing) => {
                dirs.entry(*dir).or_default().insert(name.clone(), *thing);
            }
            Self::Unlink(place) => {
                remove(place);
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

/// Why an operation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such file or directory.
    Missing,
    /// The name is taken.
    Exists,
    /// A file where a directory is needed.
    NotDir,
    /// A directory where a file is needed.
    IsDir,
    /// It holds names.
    NotEmpty,
}

/// What there is to say of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its number.
    pub ino: u64,
    /// Bytes; 0 for a directory.
    pub len: u64,
    /// A directory.
    pub is_dir: bool,
}

/// A file system.
#[derive(Clone, Debug)]
pub struct Model {
    things: HashMap<u64, Thing>,
    durable_dirs: HashMap<u64, Names>,
    changes: Vec<Change>,
    next: u64,
    seed: Seed,
}

impl Model {
    /// An empty one. `seed` decides what reaches the disk before anybody asks for it.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self {
            things: HashMap::from([(ROOT, Thing::Dir(Names::new()))]),
            durable_dirs: HashMap::from([(ROOT, Names::new())]),
            changes: Vec::new(),
            next: ROOT + 1,
            seed,
        }
    }

    fn dir(&mut self, dir: u64) -> Result<&mut Names, Refusal> {
        match self.things.get_mut(&dir) {
            Some(Thing::Dir(names)) => Ok(names),
            Some(Thing::File(_)) => Err(Refusal::NotDir),
            None => Err(Refusal::Missing),
        }
    }

    fn file(&mut self, ino: u64) -> Result<&mut File, Refusal> {
        match self.things.get_mut(&ino) {
            Some(Thing::File(file)) => Ok(file),
            Some(Thing::Dir(_)) => Err(Refusal::IsDir),
            None => Err(Refusal::Missing),
        }
    }

    /// What a name leads to.
    ///
    /// # Errors
    /// It leads nowhere.
    pub fn lookup(&mut self, dir: u64, name: &OsStr) -> Result<Facts, Refusal> {
        let ino = *self.dir(dir)?.get(name).ok_or(Refusal::Missing)?;
        self.facts(ino)
    }

    /// What there is to say of a number.
    ///
    /// # Errors
    /// Nobody has it.
    pub fn facts(&self, ino: u64) -> Result<Facts, Refusal> {
        let (len, is_dir) = match self.things.get(&ino).ok_or(Refusal::Missing)? {
            Thing::File(file) => (file.seen.len() as u64, false),
            Thing::Dir(_) => (0, true),
        };
        Ok(Facts { ino, len, is_dir })
    }

    /// The names in a directory.
    ///
    /// # Errors
    /// It is none.
    pub fn list(&mut self, dir: u64) -> Result<Vec<(OsString, Facts)>, Refusal> {
        let names = self.dir(dir)?.clone();
        names
            .into_iter()
            .map(|(name, ino)| Ok((name, self.facts(ino)?)))
            .collect()
    }

    /// Makes a file or a directory.
    ///
    /// # Errors
    /// The name is taken.
    pub fn make(&mut self, dir: u64, name: &OsStr, is_dir: bool) -> Result<Facts, Refusal> {
        if self.dir(dir)?.contains_key(name) {
            return Err(Refusal::Exists);
        }
        let ino = self.next;
        self.next += 1;
        let thing = if is_dir {
            self.durable_dirs.insert(ino, Names::new());
            Thing::Dir(Names::new())
        } else {
            Thing::File(File::default())
        };
        self.things.insert(ino, thing);
        self.dir(dir)?.insert(name.to_owned(), ino);
        self.changes.push(Change::Link((dir, name.to_owned()), ino));
        self.facts(ino)
    }

    /// Takes a name away.
    ///
    /// # Errors
    /// It leads nowhere, or to something of the other kind, or to a directory with names in it.
    pub fn unlink(&mut self, dir: u64, name: &OsStr, is_dir: bool) -> Result<(), Refusal> {
        let facts = self.lookup(dir, name)?;
        match (is_dir, facts.is_dir) {
            (false, true) => return Err(Refusal::IsDir),
            (true, false) => return Err(Refusal::NotDir),
            (true, true) if !self.dir(facts.ino)?.is_empty() => return Err(Refusal::NotEmpty),
            _ => {}
        }
        self.dir(dir)?.remove(name);
        self.changes.push(Change::Unlink((dir, name.to_owned())));
        Ok(())
    }

    /// Gives something another name, which may be taken by a file.
    ///
    /// # Errors
    /// The old name leads nowhere, or the new one to a directory with names in it.
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Refusal> {
        let facts = self.lookup(from.0, from.1)?;
        if let Ok(there) = self.lookup(to.0, to.1)
            && there.is_dir
            && !self.dir(there.ino)?.is_empty()
        {
            return Err(Refusal::NotEmpty);
        }
        self.dir(to.0)?;
        self.dir(from.0)?.remove(from.1);
        self.dir(to.0)?.insert(to.1.to_owned(), facts.ino);
        let (from, to) = ((from.0, from.1.to_owned()), (to.0, to.1.to_owned()));
        self.changes.push(Change::Rename(from, to, facts.ino));
        Ok(())
    }

    /// Bytes of a file; fewer at its end.
    ///
    /// # Errors
    /// It is none.
    pub fn read(&mut self, ino: u64, at: u64, len: usize) -> Result<&[u8], Refusal> {
        let seen = &self.file(ino)?.seen;
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(seen.len());
        Ok(&seen[from..from.saturating_add(len).min(seen.len())])
    }

    /// Writes bytes; a gap before them is zeros.
    ///
    /// # Errors
    /// It is no file.
    pub fn write(&mut self, ino: u64, at: u64, data: &[u8]) -> Result<(), Refusal> {
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
    /// It is no file.
    pub fn set_len(&mut self, ino: u64, len: u64) -> Result<(), Refusal> {
        let file = self.file(ino)?;
        let (old, new) = (file.seen.len(), usize::try_from(len).unwrap_or(usize::MAX));
        file.seen.resize(new, 0);
        file.touch(old.min(new)..old.max(new));
        Ok(())
    }

    /// Makes a file's content and length durable.
    ///
    /// # Errors
    /// It is no file.
    pub fn sync(&mut self, ino: u64) -> Result<(), Refusal> {
        let file = self.file(ino)?;
        file.durable.resize(file.seen.len(), 0);
        for sector in std::mem::take(&mut file.dirty) {
            file.take_over(sector);
        }
        Ok(())
    }

    /// Makes a directory's names durable. A rename from or to another directory is whole, with what happened to its names before.
    ///
    /// # Errors
    /// It is no directory.
    pub fn sync_dir(&mut self, dir: u64) -> Result<(), Refusal> {
        self.dir(dir)?;
        let mut needed: Vec<bool> = self.changes.iter().map(|c| c.touches(dir)).collect();
        let mut places = BTreeSet::new();
        for (change, needed) in self.changes.iter().zip(&mut needed).rev() {
            *needed |= change.places().iter().any(|place| places.contains(*place));
            if *needed {
                places.extend(change.places().into_iter().cloned());
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

    /// What a power cut at this moment leaves, chosen by `seed` among all that is allowed, and in words what was lost.
    #[must_use]
    pub fn cut(&self, seed: &mut Seed) -> (Self, Vec<String>) {
        let mut lost = Vec::new();
        let dirs = self.names_after_cut(seed, &mut lost);
        let mut after = Self::new(seed.fork());
        after.next = self.next;
        after.durable_dirs.clear();
        after.things.clear();
        let mut waiting = vec![(ROOT, OsString::from("/"))];
        while let Some((ino, name)) = waiting.pop() {
            match self.things.get(&ino) {
                Some(Thing::File(file)) => {
                    let (content, words) = file.after_cut(seed);
                    lost.extend(words.map(|words| format!("{}: {words}", name.display())));
                    let file = File {
                        seen: content.clone(),
                        durable: content,
                        dirty: BTreeSet::new(),
                    };
                    after.things.insert(ino, Thing::File(file));
                }
                Some(Thing::Dir(_)) => {
                    let names = dirs.get(&ino).cloned().unwrap_or_default();
                    waiting.extend(names.iter().map(|(name, ino)| (*ino, name.clone())));
                    after.things.insert(ino, Thing::Dir(names.clone()));
                    after.durable_dirs.insert(ino, names);
                }
                None => {}
            }
        }
        (after, lost)
    }

    /// Either the first so many changes, as file systems with a journal leave them, or any of them, as POSIX allows.
    fn names_after_cut(&self, seed: &mut Seed, lost: &mut Vec<String>) -> HashMap<u64, Names> {
        let mut dirs = self.durable_dirs.clone();
        let in_order = seed.below(2) == 0;
        let first = seed.index(self.changes.len() + 1);
        let share = seed.below(101);
        let mut missing: BTreeSet<&Place> = BTreeSet::new();
        for (number, change) in self.changes.iter().enumerate() {
            let wanted = if in_order {
                number < first
            } else {
                seed.below(100) < share
            };
            // What happened to a name later builds on what happened to it before.
            let stands = change.places().iter().all(|place| !missing.contains(place));
            if wanted && stands {
                change.apply(&mut dirs);
            } else {
                missing.extend(change.places());
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

    /// Copies what is seen of a sector to what is durable of it, as far as both reach.
    fn take_over(&mut self, sector: usize) {
        let end = ((sector + 1) * SECTOR)
            .min(self.seen.len())
            .min(self.durable.len());
        let start = (sector * SECTOR).min(end);
        self.durable[start..end].copy_from_slice(&self.seen[start..end]);
    }

    /// One sector reaches the disk unasked; the file grows as far as it has to.
    fn write_back(&mut self, draw: u64) {
        let place = usize::try_from(draw).unwrap_or(0) % self.dirty.len().max(1);
        let Some(sector) = self.dirty.iter().nth(place).copied() else {
            return;
        };
        let end = ((sector + 1) * SECTOR).min(self.seen.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.take_over(sector);
        self.dirty.remove(&sector);
    }

    /// Content after a cut, and what was lost, if anything was at stake.
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
        let words = format!(
            "{kept} of {} unsynced sectors, length {len} of {old} to {new}",
            self.dirty.len()
        );
        (content, Some(words))
    }
}

#[cfg(test)]
mod tests;
