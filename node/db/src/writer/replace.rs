//! Replaces the main file as a whole: by a received snapshot or a loaded database.
use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{
    entry::Position,
    files::{
        layout::{self, JournalMode, VERSIONS_AT, set_journal_mode},
        sidecar::{Base, Intent, Sidecar},
    },
    sqlite::error::{fatal, fatal_io, message},
    types::Fatal,
    writer::Writer,
};

/// How long running reads may continue before they are ended.
const GRACE: Duration = Duration::from_secs(5);
/// The first bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Length of SQLite's file header.
const HEADER_BYTES: usize = 100;
/// Bytes read at a time.
const PIECE_BYTES: usize = 256 << 10;

impl Writer {
    /// See [`crate::Database::install`].
    pub(crate) fn install(&mut self, position: Position, meta: Bytes) -> Result<(), Fatal> {
        let snapshot = self.files.snapshot.clone();
        check_header(&snapshot)
            .map_err(|invalid| Fatal(format!("the received snapshot: {}", invalid.text())))?;
        // An unfinished load does not exist at the snapshot's position: its last chunk is among the entries
        // that will not be applied.
        self.drop_load()?;
        self.replace_main(&snapshot, position, meta)
    }

    /// Makes `file` the main file, whose content equals `position`. Durable when it returns.
    pub(crate) fn replace_main(
        &mut self,
        file: &Path,
        position: Position,
        meta: Bytes,
    ) -> Result<(), Fatal> {
        let io = |error| fatal_io("replace the database", &error);
        set_journal_mode(file, JournalMode::Wal).map_err(io)?;
        layout::sync(file).map_err(io)?;
        let main_len = layout::len(file).map_err(io)?;
        self.readers.close_connections(GRACE);
        self.main.begin_replacement();
        self.close_session();
        fs::rename(file, &self.files.replacement).map_err(io)?;
        self.files.sync_dir().map_err(io)?;
        self.failpoint("replacement ready")?;
        let intent = Intent::Replace {
            position,
            meta: meta.to_vec(),
            main_len,
        };
        self.write_sidecar(&Sidecar {
            base: self.main.base(),
            intent: Some(intent),
            wal_end: None,
        })?;
        self.failpoint("replacement intended")?;
        self.files.remove_wal().map_err(io)?;
        self.failpoint("wal removed")?;
        fs::rename(&self.files.replacement, &self.files.main).map_err(io)?;
        self.files.sync_dir().map_err(io)?;
        self.failpoint("replacement renamed")?;
        let base = Base {
            position: Some(position),
            meta: meta.to_vec(),
            main_len,
        };
        self.write_sidecar(&Sidecar::at_rest(base.clone()))?;
        self.failpoint("replacement stated")?;
        self.meta = meta;
        self.open_session()
            .map_err(|error| fatal("open the new database", &error))?;
        self.main.end_change(Some(base));
        self.set_applied(position);
        self.readers.resume();
        Ok(())
    }
}

/// Why a file cannot replace the database.
pub(crate) enum InvalidFile {
    /// The content is not a valid database. Every node that has the same bytes finds the same defect.
    Content(String),
    /// This machine could not check the file.
    Machine(String),
}

impl InvalidFile {
    /// The reason, of either kind.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Content(text) | Self::Machine(text) => text,
        }
    }
}

fn check_header(path: &Path) -> Result<(), InvalidFile> {
    let machine =
        |doing: &str, error: std::io::Error| InvalidFile::Machine(format!("{doing}: {error}"));
    let content = |text: String| Err(InvalidFile::Content(text));
    let mut header = [0; HEADER_BYTES];
    let mut file = File::open(path).map_err(|error| machine("cannot open it", error))?;
    let len = file
        .metadata()
        .map_err(|error| machine("cannot read it", error))?
        .len();
    if len < HEADER_BYTES as u64 {
        return content(format!("{len} bytes are too few for an SQLite file"));
    }
    file.read_exact(&mut header)
        .map_err(|error| machine("cannot read it", error))?;
    if header[..16] != *MAGIC {
        return content("it does not begin as an SQLite file".to_owned());
    }
    let page_size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size if size >= 512 && size.is_power_of_two() => u64::from(size),
        size => return content(format!("page size {size} is not possible")),
    };
    if !len.is_multiple_of(page_size) {
        return content(format!(
            "{len} bytes are no whole number of pages of {page_size} bytes"
        ));
    }
    if !matches!(header[VERSIONS_AT], 1 | 2) || !matches!(header[VERSIONS_AT + 1], 1 | 2) {
        return content("its format version is not known".to_owned());
    }
    Ok(())
}

/// How thoroughly a file is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckDepth {
    /// `integrity_check`: everything, including whether indexes match their tables. Reads the file once per
    /// index.
    Full,
    /// `quick_check`: pages and rows. For files that had the full check elsewhere.
    Quick,
}

/// See [`crate::Database::validate_file`].
pub(crate) fn validate(path: &Path, depth: CheckDepth) -> Result<(), InvalidFile> {
    check_header(path)?;
    // `immutable` prevents SQLite from looking for a WAL, or creating one, beside the file.
    let text = path
        .to_str()
        .ok_or_else(|| InvalidFile::Machine("its path is not UTF-8".to_owned()))?;
    let escaped = text
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let check = || {
        let conn = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)?;
        let pragma = match depth {
            CheckDepth::Full => "PRAGMA integrity_check(1)",
            CheckDepth::Quick => "PRAGMA quick_check(1)",
        };
        conn.query_row(pragma, [], |row| row.get::<_, String>(0))
    };
    match check() {
        Ok(answer) if answer == "ok" => Ok(()),
        Ok(answer) => Err(InvalidFile::Content(answer)),
        Err(error) if is_content_fault(&error) => Err(InvalidFile::Content(message(&error))),
        Err(error) => Err(InvalidFile::Machine(message(&error))),
    }
}

/// Whether SQLite found a defect in the file's bytes. Any other error (reading, memory, opening) may come
/// from this machine.
fn is_content_fault(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_none_or(|code| {
        matches!(
            code.code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown
        )
    })
}

/// The CRC-32 of the file as the disk returns it now.
pub(crate) fn crc32_of(path: &Path) -> std::io::Result<u32> {
    let mut file = File::open(path)?;
    let mut crc = crc32fast::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(crc.finalize()),
            got => crc.update(&piece[..got]),
        }
    }
}
