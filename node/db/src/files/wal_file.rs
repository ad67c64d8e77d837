//! Reads SQLite's WAL as plain bytes. When SQLite opens a database, it may change the files beside it (it
//! empties a WAL next to an empty main file). So recovery reads the WAL before SQLite does.
//!
//! The format is SQLite's (<https://sqlite.org/fileformat2.html#the_write_ahead_log>): a header of 32 bytes,
//! then frames of a 24-byte header and one page. Each checksum continues the one before, so the last one
//! covers all bytes before it.
use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

/// Length of the WAL's header.
pub(crate) const WAL_HEADER_BYTES: u64 = 32;
/// Length of a frame's header; a page follows it.
pub(crate) const FRAME_HEADER_BYTES: u64 = 24;
const HEADER_LEN: usize = WAL_HEADER_BYTES as usize;
const FRAME_HEADER_LEN: usize = FRAME_HEADER_BYTES as usize;
/// The lowest bit is set if checksums are computed over big-endian words.
const MAGIC: u32 = 0x377f_0682;
const FORMAT: u32 = 3_007_000;

/// Bytes 16..24 of the header. SQLite changes these salts whenever the WAL restarts.
pub(crate) type Salts = [u8; 8];

/// The last frame of a WAL that ends with a commit: page size, length of the database, and the checksum of
/// all frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WalEnd {
    pub(crate) page_bytes: u32,
    /// Pages of the database after this commit.
    pub(crate) pages: u32,
    pub(crate) checksum: [u8; 8],
}

impl WalEnd {
    /// Length of the main file after all frames have been copied.
    pub(crate) fn main_bytes(&self) -> u64 {
        u64::from(self.pages) * u64::from(self.page_bytes)
    }
}

/// SQLite's checksum: two running sums over all frames.
#[derive(Clone, Copy)]
struct Sums {
    sums: [u32; 2],
    big_endian: bool,
}

impl Sums {
    fn add(&mut self, bytes: &[u8]) {
        let word = |chunk: &[u8]| {
            let bytes = [chunk[0], chunk[1], chunk[2], chunk[3]];
            if self.big_endian {
                u32::from_be_bytes(bytes)
            } else {
                u32::from_le_bytes(bytes)
            }
        };
        let [mut first, mut second] = self.sums;
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(word(&pair[..4])).wrapping_add(second);
            second = second.wrapping_add(word(&pair[4..])).wrapping_add(first);
        }
        self.sums = [first, second];
    }

    fn matches(&self, stored: &[u8]) -> bool {
        stored[..4] == self.sums[0].to_be_bytes() && stored[4..8] == self.sums[1].to_be_bytes()
    }
}

struct Header {
    page_bytes: u32,
    salts: Salts,
    sums: Sums,
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn salts_in(bytes: &[u8]) -> Salts {
    let mut salts = [0; 8];
    salts.copy_from_slice(bytes);
    salts
}

/// The error says why the bytes are not a WAL header.
fn parse_header(bytes: &[u8; HEADER_LEN]) -> Result<Header, &'static str> {
    let magic = number(bytes);
    if magic & !1 != MAGIC || number(&bytes[4..]) != FORMAT {
        return Err("it does not begin as a WAL");
    }
    let page_bytes = number(&bytes[8..]);
    if !(512..=65_536).contains(&page_bytes) || !page_bytes.is_power_of_two() {
        return Err("its page size is not possible");
    }
    let mut sums = Sums {
        sums: [0; 2],
        big_endian: magic & 1 == 1,
    };
    sums.add(&bytes[..24]);
    if !sums.matches(&bytes[24..]) {
        return Err("the checksum of its header does not match");
    }
    Ok(Header {
        page_bytes,
        salts: salts_in(&bytes[16..24]),
        sums,
    })
}

/// Fills `buffer`. Returns `false` at the end of the file.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The salts of the WAL.
pub(crate) fn salts(wal: &Path) -> io::Result<Salts> {
    let mut header = [0; HEADER_LEN];
    File::open(wal)?.read_exact(&mut header)?;
    Ok(salts_in(&header[16..24]))
}

/// Reads frame number `frames` (from 1) without checking checksums. For the writer, which knows that the WAL
/// is valid.
pub(crate) fn end_at(wal: &Path, frames: u32) -> io::Result<WalEnd> {
    let mut file = File::open(wal)?;
    let mut header = [0; HEADER_LEN];
    file.read_exact(&mut header)?;
    let page_bytes = number(&header[8..]);
    let size = FRAME_HEADER_BYTES + u64::from(page_bytes);
    let at = WAL_HEADER_BYTES + size * u64::from(frames.saturating_sub(1));
    let mut frame = [0; FRAME_HEADER_LEN];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut frame)?;
    let end = WalEnd {
        page_bytes,
        pages: number(&frame[4..]),
        checksum: salts_in(&frame[16..24]),
    };
    if end.pages == 0 || frame[8..16] != header[16..24] {
        return Err(io::Error::other(format!(
            "frame {frames} of the WAL is no commit of its generation"
        )));
    }
    Ok(end)
}

/// Reads `frames` frames of the WAL with these salts and checks every checksum. The inner error says what is
/// wrong with the WAL.
pub(crate) fn check(wal: &Path, salts: Salts, frames: u32) -> io::Result<Result<WalEnd, String>> {
    each_frame(wal, salts, frames, |_, _, _| Ok(()))
}

/// Copies the pages of a WAL that passed [`check`] into the main file and truncates the file to the length at
/// the last commit. Does not sync. Idempotent.
pub(crate) fn copy(
    wal: &Path,
    salts: Salts,
    frames: u32,
    end: WalEnd,
    main: &Path,
) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(main)?;
    let copied = each_frame(wal, salts, frames, |page, page_bytes, content| {
        if page > end.pages {
            return Ok(());
        }
        file.seek(SeekFrom::Start(u64::from(page - 1) * u64::from(page_bytes)))?;
        file.write_all(content)
    })?;
    if copied != Ok(end) {
        return Err(io::Error::other("the WAL changed while it was read"));
    }
    file.set_len(end.main_bytes())
}

fn each_frame(
    wal: &Path,
    salts: Salts,
    frames: u32,
    mut take: impl FnMut(u32, u32, &[u8]) -> io::Result<()>,
) -> io::Result<Result<WalEnd, String>> {
    let file = match File::open(wal) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Err("it is missing".to_owned()));
        }
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() == 0 {
        return Ok(Err("it is empty".to_owned()));
    }
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut header = [0; HEADER_LEN];
    if !fill(&mut reader, &mut header)? {
        return Ok(Err("it is shorter than its header".to_owned()));
    }
    let header = match parse_header(&header) {
        Ok(header) => header,
        Err(why) => return Ok(Err(why.to_owned())),
    };
    if header.salts != salts {
        return Ok(Err("its salts are not the recorded ones".to_owned()));
    }
    let mut sums = header.sums;
    let mut frame = vec![0; FRAME_HEADER_LEN + header.page_bytes as usize];
    let mut end = None;
    for valid in 0..frames {
        let wrong = || Ok(Err(format!("{valid} of {frames} frames are valid")));
        if !fill(&mut reader, &mut frame)? {
            return wrong();
        }
        let (head, page) = frame.split_at(FRAME_HEADER_LEN);
        sums.add(&head[..8]);
        sums.add(page);
        let number_of_page = number(head);
        if head[8..16] != salts || !sums.matches(&head[16..24]) || number_of_page == 0 {
            return wrong();
        }
        take(number_of_page, header.page_bytes, page)?;
        end = Some(WalEnd {
            page_bytes: header.page_bytes,
            pages: number(&head[4..]),
            checksum: salts_in(&head[16..24]),
        });
    }
    Ok(match end {
        Some(end) if end.pages > 0 => Ok(end),
        Some(_) => Err("it does not end with a commit".to_owned()),
        None => Err("no frames are recorded".to_owned()),
    })
}
