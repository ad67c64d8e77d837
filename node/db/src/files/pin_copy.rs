//! Copies of the pinned main file: for pins that last, and for backups.
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use crate::files::{layout, main_file::MainFile};

/// Bytes read and written at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes copied between two checks of the free space.
pub(crate) const SPACE_CHECK_BYTES: u64 = 16 << 20;

/// Copies `len_bytes` (everything, if `None`) from `read_at`. Fails when the disk of `dir` has no more spare
/// space, or when `is_wanted` returns `false`.
pub(crate) fn copy(
    read_at: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    len_bytes: Option<u64>,
    to: &mut File,
    dir: &Path,
    is_wanted: impl Fn() -> bool,
) -> io::Result<u64> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    let mut looked = 0;
    loop {
        if !is_wanted() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let left = len_bytes.map_or(u64::MAX, |len| len - at);
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        if want == 0 {
            return Ok(at);
        }
        let got = read_at(piece.get_mut(..want).unwrap_or_default(), at)?;
        let Some(part) = piece.get(..got).filter(|part| !part.is_empty()) else {
            return match len_bytes {
                None => Ok(at),
                Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        };
        to.write_all(part)?;
        at += got as u64;
        if at - looked >= SPACE_CHECK_BYTES {
            looked = at;
            layout::check_space(dir, 0)?;
        }
    }
}

/// Starts a thread that copies the main file and moves its pins to the copy, if there is space. `temporary`
/// is the copy's path; it is unlinked once it is open, so that its last reader frees it.
pub(crate) fn move_pins(main: &Arc<MainFile>, path: &Path, temporary: PathBuf, dir: PathBuf) {
    let pin_copy = match main.begin_copy(path) {
        Ok(Some(pin_copy)) => pin_copy,
        Ok(None) => return,
        Err(error) => {
            return tracing::warn!(%error, "cannot open the main file to copy it");
        }
    };
    if let Err(error) = layout::check_space(&dir, pin_copy.len_bytes) {
        return tracing::warn!(%error, "sending a snapshot takes long, and there is no space for a copy: checkpoints wait for it");
    }
    let started = thread::Builder::new()
        .name("db-pin-copy".to_owned())
        .spawn(move || {
            let len_bytes = pin_copy.len_bytes;
            let copied = || {
                let mut file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&temporary)?;
                layout::remove(&temporary)?;
                copy(
                    |piece, at| pin_copy.read_at(piece, at),
                    Some(len_bytes),
                    &mut file,
                    &dir,
                    || true,
                )?;
                io::Result::Ok(file)
            };
            match copied() {
                Ok(file) => {
                    pin_copy.redirect_pins(file);
                    tracing::info!(bytes = len_bytes, "the snapshot being sent was moved to a copy, so checkpoints can continue");
                }
                Err(error) => tracing::warn!(%error, "cannot copy the main file: checkpoints wait for the snapshot being sent"),
            }
        });
    if let Err(error) = started {
        tracing::warn!(%error, "cannot start a thread to copy the main file");
    }
}
