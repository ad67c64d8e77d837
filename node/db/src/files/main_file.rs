//! What the main file equals at this moment, and who holds it still.
//!
//! A pin reads the main file where it lies, so no checkpoint may change it. One that lasts (a snapshot on a slow way) is moved: the file is
//! copied aside once, the pin goes on reading the copy, and checkpoints come again.
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{entry::Position, files::sidecar::Base};

#[derive(Debug)]
struct Pin {
    file: Arc<File>,
    /// What it was pinned for; `None` for a copy that is made at the disk's speed.
    position: Option<Position>,
    /// It reads the main file itself. Otherwise a copy, or a file that was replaced since: both stay as they are.
    in_place: bool,
}

#[derive(Debug)]
struct State {
    base: Base,
    /// The writer changes the file now.
    changing: bool,
    pins: BTreeMap<u64, Pin>,
    last_pin: u64,
    /// Raised when the file is replaced.
    generation: u64,
    /// The file is being copied aside.
    copying: bool,
}

impl State {
    fn is_pinned(&self) -> bool {
        self.pins.values().any(|pin| pin.in_place)
    }
}

/// Shared between the writer and those who send the file.
#[derive(Debug)]
pub(crate) struct MainFile {
    state: Mutex<State>,
    changed: Condvar,
}

/// The main file as it is at a position: what is read from this value stays the same, whatever happens meanwhile.
#[derive(Debug)]
pub struct Pinned {
    /// Its length in bytes.
    pub len_bytes: u64,
    /// The position it equals.
    pub position: Position,
    /// The caller's metadata at that position.
    pub meta: Bytes,
    /// Releases the pin when dropped.
    pub guard: PinGuard,
}

/// Releases a pin when dropped.
#[derive(Debug)]
pub struct PinGuard {
    main: Arc<MainFile>,
    id: u64,
}

/// The main file being copied aside. It is pinned meanwhile.
pub(crate) struct PinCopy {
    pin: PinGuard,
    generation: u64,
    pub(crate) len_bytes: u64,
}

impl MainFile {
    pub(crate) fn new(base: Base) -> Arc<Self> {
        let state = State {
            base,
            changing: false,
            pins: BTreeMap::new(),
            last_pin: 0,
            generation: 0,
            copying: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file equals.
    pub(crate) fn base(&self) -> Base {
        self.lock().base.clone()
    }

    /// Keeps new pins out while the file changes. `false` if it is pinned.
    pub(crate) fn begin_change(&self) -> bool {
        let mut state = self.lock();
        state.changing = !state.is_pinned();
        state.changing
    }

    /// The same for a replacement, which pins do not hinder: they hold an unlinked file from now on.
    pub(crate) fn begin_replacement(&self) {
        let mut state = self.lock();
        state.changing = true;
        state.generation += 1;
        state.pins.values_mut().for_each(|pin| pin.in_place = false);
    }

    /// The change is done (`Some`) or was not begun after all.
    pub(crate) fn end_change(&self, base: Option<Base>) {
        let mut state = self.lock();
        state.changing = false;
        if let Some(base) = base {
            state.base = base;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The writer has failed: what the file holds is unknown until the next start.
    pub(crate) fn mark_failed(&self) {
        let mut state = self.lock();
        state.base.position = None;
        state.changing = false;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits out a change (a few to a hundred milliseconds).
    fn settled(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.changing {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn enter(
        self: &Arc<Self>,
        state: &mut State,
        path: &Path,
        position: Option<Position>,
    ) -> io::Result<PinGuard> {
        let file = Arc::new(File::open(path)?);
        state.last_pin += 1;
        let pin = Pin {
            file,
            position,
            in_place: true,
        };
        state.pins.insert(state.last_pin, pin);
        Ok(PinGuard {
            main: Arc::clone(self),
            id: state.last_pin,
        })
    }

    /// Waits out a change. `None` before the first checkpoint.
    pub(crate) fn pin(self: &Arc<Self>, path: &Path) -> Option<Pinned> {
        let mut state = self.settled();
        let position = state.base.position?;
        match self.enter(&mut state, path, Some(position)) {
            Ok(guard) => Some(Pinned {
                len_bytes: state.base.main_len,
                position,
                meta: state.base.meta.clone().into(),
                guard,
            }),
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "cannot open the main file");
                None
            }
        }
    }

    /// The main file held still, and the WAL that belongs to it: whatever is replaced later, these two go together.
    pub(crate) fn hold(self: &Arc<Self>, path: &Path, wal: &Path) -> io::Result<(PinGuard, File)> {
        let mut state = self.settled();
        let wal = File::open(wal)?;
        Ok((self.enter(&mut state, path, None)?, wal))
    }

    /// The lowest position that somebody still reads, moved or not.
    pub(crate) fn oldest_pin(&self) -> Option<Position> {
        self.lock()
            .pins
            .values()
            .filter_map(|pin| pin.position)
            .min()
    }

    /// Begins to copy the main file aside for those who send it; `None` if nobody does, or that is under way.
    pub(crate) fn begin_copy(self: &Arc<Self>, path: &Path) -> io::Result<Option<PinCopy>> {
        let mut state = self.lock();
        let lasts = |pin: &Pin| pin.in_place && pin.position.is_some();
        if state.changing || state.copying || !state.pins.values().any(lasts) {
            return Ok(None);
        }
        let pin = self.enter(&mut state, path, None)?;
        state.copying = true;
        let len_bytes = state.base.main_len;
        Ok(Some(PinCopy {
            pin,
            generation: state.generation,
            len_bytes,
        }))
    }
}

impl PinCopy {
    /// Reads from the main file as it was.
    pub(crate) fn read_at(&self, piece: &mut [u8], offset: u64) -> io::Result<usize> {
        self.pin.read_at(piece, offset)
    }

    /// The copy is whole: whoever pins the main file reads the copy from now on.
    pub(crate) fn take_exceeded(self, copy: File) {
        let mut state = self.pin.main.lock();
        let copy = Arc::new(copy);
        let stands_for_it = state.generation == self.generation;
        for pin in state.pins.values_mut() {
            if stands_for_it && pin.in_place && pin.position.is_some() {
                pin.file = Arc::clone(&copy);
                pin.in_place = false;
            }
        }
    }
}

impl Drop for PinCopy {
    fn drop(&mut self) {
        self.pin.main.lock().copying = false;
    }
}

impl PinGuard {
    /// Reads at an offset, and says how much came; 0 is the end.
    pub(crate) fn read_at(&self, piece: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = {
            let state = self.main.lock();
            state.pins.get(&self.id).map(|pin| Arc::clone(&pin.file))
        };
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        file.read_at(piece, offset)
    }

    /// Bytes in the file.
    pub(crate) fn len_bytes(&self) -> io::Result<u64> {
        let state = self.main.lock();
        let pin = state.pins.get(&self.id).ok_or(io::ErrorKind::NotFound)?;
        Ok(pin.file.metadata()?.len())
    }
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        self.main.lock().pins.remove(&self.id);
    }
}

impl Pinned {
    /// Reads at an offset, and says how much came; 0 is the end. Blocks as reading a file does.
    ///
    /// # Errors
    /// The disk's.
    pub fn read_at(&self, piece: &mut [u8], offset: u64) -> io::Result<usize> {
        self.guard.read_at(piece, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main_file(dir: &Path) -> Arc<MainFile> {
        std::fs::write(dir.join("main"), b"old").unwrap();
        MainFile::new(Base {
            position: Some(Position { term: 1, index: 7 }),
            meta: Vec::new(),
            main_len: 3,
        })
    }

    fn read(pinned: &Pinned) -> Vec<u8> {
        let mut piece = [0; 10];
        let len = pinned.read_at(&mut piece, 0).unwrap();
        piece[..len].to_vec()
    }

    #[test]
    fn a_moved_pin_hinders_nobody_and_reads_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("main"), dir.path().join("copy"));
        let main = main_file(dir.path());
        assert!(main.begin_copy(&path).unwrap().is_none(), "nobody pins it");
        let pins = [main.pin(&path).unwrap(), main.pin(&path).unwrap()];
        let pin_copy = main.begin_copy(&path).unwrap().unwrap();
        assert!(main.begin_copy(&path).unwrap().is_none(), "under way");
        assert!(!main.begin_change());
        std::fs::copy(&path, &copy).unwrap();
        pin_copy.take_exceeded(File::open(&copy).unwrap());
        assert!(main.begin_change());
        main.end_change(None);
        std::fs::write(&path, b"new").unwrap();
        assert_eq!(pins.each_ref().map(read), [b"old", b"old"]);
        assert_eq!(main.oldest_pin().unwrap().index, 7);
        let third = main.pin(&path).unwrap();
        assert_eq!(read(&third), b"new");
        assert!(!main.begin_change());
        drop((pins, third));
        assert!(main.begin_change());
        assert_eq!(main.oldest_pin(), None);
    }

    #[test]
    fn a_copy_that_fails_or_comes_too_late_moves_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main");
        let main = main_file(dir.path());
        let pinned = main.pin(&path).unwrap();
        drop(main.begin_copy(&path).unwrap().unwrap());
        assert!(!main.begin_change());
        let pin_copy = main.begin_copy(&path).unwrap().unwrap();
        // Replaced meanwhile: the pin holds the old file, and a new one is of another.
        main.begin_replacement();
        std::fs::rename(&path, dir.path().join("gone")).unwrap();
        std::fs::write(&path, b"new").unwrap();
        main.end_change(None);
        let next = main.pin(&path).unwrap();
        std::fs::write(dir.path().join("copy"), b"???").unwrap();
        pin_copy.take_exceeded(File::open(dir.path().join("copy")).unwrap());
        assert_eq!(
            (read(&pinned), read(&next)),
            (b"old".to_vec(), b"new".to_vec())
        );
        assert!(!main.begin_change());
    }
}
