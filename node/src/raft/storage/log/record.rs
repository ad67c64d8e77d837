//! The layout of one record of the `raft-log` crate, read without trusting it: its length, its log id, its
//! checksum.
//!
//! A record is a type (u32), fields, and a CRC32 of all of that in eight bytes; all numbers are big-endian.
//! There is no leading length: it follows from the type and, for entries and votes, from a length inside.
use crate::raft::codec::Id;

/// CRC32 in eight bytes, the upper four of which are zero.
pub(super) const CHECKSUM_BYTES: usize = 8;
const TYPE_BYTES: usize = 4;
const ID_BYTES: usize = 16;
/// Offsets of the length of an entry's payload and of the payload.
const ENTRY_LENGTH_AT: usize = TYPE_BYTES + ID_BYTES;
const ENTRY_BODY_AT: usize = ENTRY_LENGTH_AT + 4;
/// Offset of the vote in a vote record.
const VOTE_BODY_AT: usize = TYPE_BYTES + 4;
/// After the type, the version, and the flag that a vote is present.
const CHECKPOINT_VOTE_LENGTH_AT: usize = TYPE_BYTES + 2;
/// Largest record that is not an entry: votes and checkpoints hold one Raft id and some numbers.
pub(super) const SMALL_MAX_BYTES: usize = 4096;

/// The types of the crate's records, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Vote,
    Append,
    Commit,
    Truncate,
    Purge,
    /// The whole state; the first record of each file.
    Checkpoint,
}

impl Kind {
    pub(super) fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Vote,
            1 => Self::Append,
            2 => Self::Commit,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::Checkpoint,
            _ => return None,
        })
    }
}

/// What the bytes claim to be. Nothing is proven before `is_whole`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    /// Length of the whole record.
    pub length: usize,
    /// The entry that it appends, commits, keeps, purges, or names as the last one.
    pub id: Option<Id>,
}

/// The result of parsing a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A header whose record fits into the bytes.
    Complete(Header),
    /// A header whose record needs more bytes than there are. `None`: even the header is incomplete.
    Truncated(Option<Header>),
    /// Not the beginning of a record.
    Invalid,
}

/// Reads fields from the front.
struct FieldReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Why a field cannot be read.
enum FieldError {
    Short,
    Nonsense,
}

impl FieldReader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FieldError> {
        let end = self.at + N;
        let field = self.bytes.get(self.at..end).ok_or(FieldError::Short)?;
        self.at = end;
        field.try_into().map_err(|_| FieldError::Short)
    }

    fn number(&mut self) -> Result<usize, FieldError> {
        let number = u32::from_be_bytes(self.take()?);
        usize::try_from(number).map_err(|_| FieldError::Nonsense)
    }

    fn id(&mut self) -> Result<Id, FieldError> {
        Ok((
            u64::from_be_bytes(self.take()?),
            u64::from_be_bytes(self.take()?),
        ))
    }

    fn is_some(&mut self) -> Result<bool, FieldError> {
        match self.take::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(FieldError::Nonsense),
        }
    }

    fn option_of_id(&mut self) -> Result<Option<Id>, FieldError> {
        self.is_some()?.then(|| self.id()).transpose()
    }

    /// Skips a length and as many bytes, which need not be present.
    fn skip_sized(&mut self) -> Result<(), FieldError> {
        let length = self.number()?;
        if length > SMALL_MAX_BYTES {
            return Err(FieldError::Nonsense);
        }
        self.at += length;
        Ok(())
    }

    /// The state: version, vote, last, committed, purged, user data.
    fn checkpoint(&mut self) -> Result<Option<Id>, FieldError> {
        if self.take::<1>()? != [1] {
            return Err(FieldError::Nonsense);
        }
        if self.is_some()? {
            self.skip_sized()?;
        }
        let last = self.option_of_id()?;
        self.option_of_id()?;
        self.option_of_id()?;
        if self.is_some()? {
            self.skip_sized()?;
        }
        Ok(last)
    }

    fn header(&mut self) -> Result<Header, FieldError> {
        let number = u32::from_be_bytes(self.take()?);
        let kind = Kind::of(number).ok_or(FieldError::Nonsense)?;
        let id = match kind {
            Kind::Vote => {
                self.skip_sized()?;
                None
            }
            Kind::Append => {
                let id = self.id()?;
                self.at += self.number()?;
                Some(id)
            }
            Kind::Commit | Kind::Purge => Some(self.id()?),
            Kind::Truncate => self.option_of_id()?,
            Kind::Checkpoint => self.checkpoint()?,
        };
        Ok(Header {
            kind,
            length: self.at + CHECKSUM_BYTES,
            id,
        })
    }
}

/// Parses the header of the record at the front of `bytes`.
pub(super) fn parse_header(bytes: &[u8]) -> Parsed {
    match (FieldReader { bytes, at: 0 }).header() {
        Ok(header) if header.length <= bytes.len() => Parsed::Complete(header),
        Ok(header) => Parsed::Truncated(Some(header)),
        Err(FieldError::Short) => Parsed::Truncated(None),
        Err(FieldError::Nonsense) => Parsed::Invalid,
    }
}

/// Whether the checksum at the end of these bytes matches the rest.
pub(super) fn is_whole(record: &[u8]) -> bool {
    record
        .split_last_chunk::<CHECKSUM_BYTES>()
        .is_some_and(|(rest, sum)| u64::from_be_bytes(*sum) == u64::from(crc32fast::hash(rest)))
}

/// Whether only a length field is damaged: with another length the record is complete.
pub(super) fn is_whole_with_another_length(bytes: &[u8], kind: Kind) -> bool {
    let body_at = match kind {
        Kind::Append => ENTRY_BODY_AT,
        Kind::Vote => VOTE_BODY_AT,
        Kind::Checkpoint => return is_checkpoint_with_another_vote(bytes),
        Kind::Commit | Kind::Truncate | Kind::Purge => return false,
    };
    let Some(body) = bytes.get(body_at..) else {
        return false;
    };
    let mut hashed = crc32fast::Hasher::new();
    let mut hashed_to = 0;
    for end in ends(body) {
        hashed.update(&body[hashed_to..end]);
        hashed_to = end;
        let Ok(length) = u32::try_from(end) else {
            return false;
        };
        let mut whole = crc32fast::Hasher::new();
        whole.update(&bytes[..body_at - 4]);
        whole.update(&length.to_be_bytes());
        whole.combine(&hashed);
        let sum = u64::from(whole.finalize());
        if body[end..end + CHECKSUM_BYTES] == sum.to_be_bytes() {
            return true;
        }
    }
    false
}

/// In a checkpoint, the length of the vote decides where everything else is.
fn is_checkpoint_with_another_vote(bytes: &[u8]) -> bool {
    let mut bytes = bytes[..bytes.len().min(2 * SMALL_MAX_BYTES)].to_vec();
    (0..SMALL_MAX_BYTES.min(bytes.len())).any(|length| {
        let Some(field) = bytes.get_mut(CHECKPOINT_VOTE_LENGTH_AT..CHECKPOINT_VOTE_LENGTH_AT + 4)
        else {
            return false;
        };
        let Ok(length) = u32::try_from(length) else {
            return false;
        };
        field.copy_from_slice(&length.to_be_bytes());
        matches!(parse_header(&bytes), Parsed::Complete(header) if is_whole(&bytes[..header.length]))
    })
}

/// Where a body may end: four zero bytes of a checksum that is not zero, then the end or another record's
/// type.
fn ends(body: &[u8]) -> impl Iterator<Item = usize> + '_ {
    body.windows(CHECKSUM_BYTES)
        .enumerate()
        .filter(|(_, sum)| sum[..4] == [0; 4] && sum[4..] != [0; 4])
        .map(|(at, _)| at)
        .filter(|at| {
            let next = &body[at + CHECKSUM_BYTES..];
            next.is_empty() || next.starts_with(&[0; 3])
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_sum(mut bytes: Vec<u8>) -> Vec<u8> {
        let sum = u64::from(crc32fast::hash(&bytes));
        bytes.extend(sum.to_be_bytes());
        bytes
    }

    fn append(id: Id, body: &[u8]) -> Vec<u8> {
        let mut bytes = 1_u32.to_be_bytes().to_vec();
        bytes.extend(id.0.to_be_bytes());
        bytes.extend(id.1.to_be_bytes());
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        with_sum(bytes)
    }

    /// The crate's own golden bytes.
    #[test]
    fn the_layout_is_the_crates() {
        let record = append((1, 2), b"hello");
        assert_eq!(
            record,
            [
                0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 5, 104, 101,
                108, 108, 111, 0, 0, 0, 0, 167, 17, 197, 69,
            ]
        );
        let header = Header {
            kind: Kind::Append,
            length: record.len(),
            id: Some((1, 2)),
        };
        assert_eq!(parse_header(&record), Parsed::Complete(header));
        assert_eq!(parse_header(&record[..30]), Parsed::Truncated(Some(header)));
        assert_eq!(parse_header(&record[..10]), Parsed::Truncated(None));
        assert_eq!(parse_header(&[1; 40]), Parsed::Invalid);
        assert!(is_whole(&record));
        assert!(!is_whole(&record[..30]));
    }

    #[test]
    fn a_wrong_length_is_seen_through() {
        let bodies = [
            vec![],
            vec![7; 3000],
            vec![0; 3000],
            [vec![0; 700], vec![1], vec![0; 900]].concat(),
        ];
        for body in bodies {
            for wrong in [0_u32, 1, 255, 65_536, u32::MAX] {
                let mut record = append((3, 9), &body);
                if wrong as usize == body.len() {
                    continue;
                }
                record[20..24].copy_from_slice(&wrong.to_be_bytes());
                assert!(is_whole_with_another_length(&record, Kind::Append));
                // Followed by another record, or by the zeros of a file that was extended.
                let followed = [record.clone(), append((3, 10), b"x")].concat();
                assert!(is_whole_with_another_length(&followed, Kind::Append));
                let cut = &record[..record.len() - 1];
                assert!(!is_whole_with_another_length(cut, Kind::Append));
            }
        }
    }
}
