//! The main file: the position that it equals, and its pins.
//!
//! A pin reads the main file in place, so no checkpoint may change the file meanwhile. A pin that lasts (a
//! snapshot over a slow connection) is moved: the file is copied once, the pin continues in the copy, and
//! checkpoints become possible again.
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
    /// The pinned position; `None` for a pin held only while a copy is made.
    position: Option<Position>,
    /// The pin reads the main file itself. Otherwise it reads a copy, or a file that has been replaced; both
    /// do not change.
    in_place: bool,
}

#[derive(Debug)]
struct State {
    base: Base,
    /// The writer is changing the file.
    changing: bool,
    pins: BTreeMap<u64, Pin>,
    last_pin: u64,
    /// Incremented when the file is replaced.
    generation: u64,
    /// The file is being copied for its pins.
    copying: bool,
}

impl State {
    fn is_pinned(&self) -> bool {
        self.pins.values().any(|pin| pin.in_place)
    }
}

/// Shared between the writer and the senders of the file.
#[derive(Debug)]
pub(crate) struct MainFile {
    state: Mutex<State>,
    changed: Condvar,
}

/// The main file as of a position. What is read through this value does not change.
#[derive(Debug)]
pub struct Pinned {
    /// Length in bytes.
    pub len_bytes: u64,
    /// The position that the file equals.
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

/// A copy of the main file in progress; it pins the file meanwhile.
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

    /// The position, metadata and length of the file.
    pub(crate) fn base(&self) -> Base {
        self.lock().base.clone()
    }

    /// Prevents new pins while the file changes. Returns `false` if the file is pinned.
    pub(crate) fn begin_change(&self) -> bool {
        let mut state = self.lock();
        state.changing = !state.is_pinned();
        state.changing
    }

    /// Like [`MainFile::begin_change`] for a replacement, which pins do not prevent: they keep reading the
    /// unlinked file.
    pub(crate) fn begin_replacement(&self) {
        let mut state = self.lock();
        state.changing = true;
        state.generation += 1;
        state.pins.values_mut().for_each(|pin| pin.in_place = false);
    }

    /// The change has been made (`Some`) or was not started (`None`).
    pub(crate) fn end_change(&self, base: Option<Base>) {
        let mut state = self.lock();
        state.changing = false;
        if let Some(base) = base {
            state.base = base;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The writer has failed; the content of the file is uncertain until the next start.
    pub(crate) fn mark_failed(&self) {
        let mut state = self.lock();
        state.base.position = None;
        state.changing = false;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until no change is in progress (a few to a hundred milliseconds).
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

    /// Pins the file; blocks while it is being changed. `None` before the first checkpoint.
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

    /// Pins the main file and opens the WAL that belongs to it. The two match, whatever is replaced later.
    pub(crate) fn hold(self: &Arc<Self>, path: &Path, wal: &Path) -> io::Result<(PinGuard, File)> {
        let mut state = self.settled();
        let wal = File::open(wal)?;
        Ok((self.enter(&mut state, path, None)?, wal))
    }

    /// The lowest pinned position, moved pins included.
    pub(crate) fn oldest_pin(&self) -> Option<Position> {
        self.lock()
            .pins
            .values()
            .filter_map(|pin| pin.position)
            .min()
    }

    /// Starts a copy of the main file for its pins; `None` if there are no pins in place, or a copy is
    /// already in progress.
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
    /// Reads from the pinned main file.
    pub(crate) fn read_at(&self, piece: &mut [u8], offset: u64) -> io::Result<usize> {
        self.pin.read_at(piece, offset)
    }

    /// The copy is complete: pins of the main file read the copy from now on.
    pub(crate) fn redirect_pins(self, copy: File) {
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
    /// Reads at an offset and returns the number of bytes; 0 is the end of the file.
    pub(crate) fn read_at(&self, piece: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = {
            let state = self.main.lock();
            state.pins.get(&self.id).map(|pin| Arc::clone(&pin.file))
        };
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        file.read_at(piece, offset)
    }

    /// Length of the file in bytes.
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
    /// Reads at an offset and returns the number of bytes; 0 is the end of the file. Blocks like any file
    /// access.
    ///
    /// # Errors
    /// The file system's.
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
        pin_copy.redirect_pins(File::open(&copy).unwrap());
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
        // The file was replaced meanwhile: the existing pin reads the old file, a new pin the new one.
        main.begin_replacement();
        std::fs::rename(&path, dir.path().join("gone")).unwrap();
        std::fs::write(&path, b"new").unwrap();
        main.end_change(None);
        let next = main.pin(&path).unwrap();
        std::fs::write(dir.path().join("copy"), b"???").unwrap();
        pin_copy.redirect_pins(File::open(dir.path().join("copy")).unwrap());
        assert_eq!(
            (read(&pinned), read(&next)),
            (b"old".to_vec(), b"new".to_vec())
        );
        assert!(!main.begin_change());
    }
}
