//! What the main file equals at this moment, and who holds it still.
use std::{
    fs::File,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::{Pinned, sidecar::Base};

#[derive(Debug)]
struct State {
    base: Base,
    /// The writer changes the file now.
    changing: bool,
    pins: usize,
    /// Raised when the file is replaced; pins of an earlier one hold an unlinked file and stop nobody.
    generation: u64,
}

/// Shared between the writer and those who send the file.
#[derive(Debug)]
pub(crate) struct MainFile {
    state: Mutex<State>,
    changed: Condvar,
}

/// Releases a pin when dropped.
#[derive(Debug)]
pub struct PinGuard {
    main: Arc<MainFile>,
    generation: u64,
    file: File,
}

impl MainFile {
    pub(crate) fn new(base: Base) -> Arc<Self> {
        let state = State {
            base,
            changing: false,
            pins: 0,
            generation: 0,
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
        state.changing = state.pins == 0;
        state.changing
    }

    /// The same for a replacement, which pins do not hinder.
    pub(crate) fn begin_replacement(&self) {
        let mut state = self.lock();
        state.changing = true;
        state.generation += 1;
        state.pins = 0;
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
    pub(crate) fn give_up(&self) {
        let mut state = self.lock();
        state.base.position = None;
        state.changing = false;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits out a change (a few to a hundred milliseconds). `None` before the first checkpoint.
    pub(crate) fn pin(self: &Arc<Self>, path: &Path) -> Option<Pinned> {
        let mut state = self.lock();
        while state.changing {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let position = state.base.position?;
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "cannot open the main file");
                return None;
            }
        };
        state.pins += 1;
        Some(Pinned {
            path: path.to_owned(),
            len_bytes: state.base.main_len,
            position,
            meta: state.base.meta.clone().into(),
            guard: PinGuard {
                main: Arc::clone(self),
                generation: state.generation,
                file,
            },
        })
    }
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        let mut state = self.main.lock();
        if state.generation == self.generation {
            state.pins -= 1;
        }
    }
}

impl Pinned {
    /// The file to read, with its own read position shared by all handles from this call. Prefer it to opening
    /// [`Pinned::path`], which leads to another file after an install or a load.
    ///
    /// # Errors
    /// The system has no more file handles.
    pub fn file(&self) -> io::Result<File> {
        self.guard.file.try_clone()
    }
}
