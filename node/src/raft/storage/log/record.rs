//! How the `raft-log` crate lays out one record, read without trusting it: its length, its log id, its checksum.
//!
//! A record is a type (u32), fields, and a CRC32 of all of that in eight bytes; all numbers are big-endian. There is no length in front: it follows
//! from the type and, for entries and votes, from a length inside.
use crate::raft::codec::Id;

/// CRC32 in eight bytes, the upper four of which are zero.
pub(super) const CHECKSUM_BYTES: usize = 8;
const TYPE_BYTES: usize = 4;
const ID_BYTES: usize = 16;
/// Where the length of an entry's payload is, and where the payload begins.
const ENTRY_LENGTH_AT: usize = TYPE_BYTES + ID_BYTES;
const ENTRY_BODY_AT: usize = ENTRY_LENGTH_AT + 4;
/// Where the vote of a vote record begins.
const VOTE_BODY_AT: usize = TYPE_BYTES + 4;
/// After the type, the version, and the byte that says that there is a vote.
const CHECKPOINT_VOTE_LENGTH_AT: usize = TYPE_BYTES + 2;
/// Votes and checkpoints carry one Raft id and some numbers.
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

/// What the bytes at a place claim to be. Nothing is proven before `is_whole`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    /// Length of the whole record.
    pub length: usize,
    /// The entry that it adds, commits, keeps, purges, or names as the last one.
    pub id: Option<Id>,
}

/// What can be said of the bytes at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A header, with a record as long as the bytes or shorter.
    Fits(Header),
    /// A header whose record needs more bytes than there are. `None`: not even the header is there.
    Short(Option<Header>),
    /// No record begins like this.
    Nonsense,
}

/// Fields from the front.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Why a field cannot be read.
enum Gap {
    Short,
    Nonsense,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Gap> {
        let end = self.at + N;
        let field = self.bytes.get(self.at..end).ok_or(Gap::Short)?;
        self.at = end;
        field.try_into().map_err(|_| Gap::Short)
    }

    fn number(&mut self) -> Result<usize, Gap> {
        let number = u32::from_be_bytes(self.take()?);
        usize::try_from(number).map_err(|_| Gap::Nonsense)
    }

    fn id(&mut self) -> Result<Id, Gap> {
        Ok((
            u64::from_be_bytes(self.take()?),
            u64::from_be_bytes(self.take()?),
        ))
    }

    fn is_some(&mut self) -> Result<bool, Gap> {
        match self.take::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Gap::Nonsense),
        }
    }

    fn option_of_id(&mut self) -> Result<Option<Id>, Gap> {
        self.is_some()?.then(|| self.id()).transpose()
    }

    /// A length and as many bytes, which need not be there.
    fn skip_sized(&mut self) -> Result<(), Gap> {
        let length = self.number()?;
        if length > SMALL_MAX_BYTES {
            return Err(Gap::Nonsense);
        }
        self.at += length;
        Ok(())
    }

    /// The state: version, vote, last, committed, purged, user data.
    fn checkpoint(&mut self) -> Result<Option<Id>, Gap> {
        if self.take::<1>()? != [1] {
            return Err(Gap::Nonsense);
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

    fn header(&mut self) -> Result<Header, Gap> {
        let number = u32::from_be_bytes(self.take()?);
        let kind = Kind::of(number).ok_or(Gap::Nonsense)?;
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

/// Looks at the record that begins where `bytes` begin.
pub(super) fn look(bytes: &[u8]) -> Look {
    match (Fields { bytes, at: 0 }).header() {
        Ok(header) if header.length <= bytes.len() => Look::Fits(header),
        Ok(header) => Look::Short(Some(header)),
        Err(Gap::Short) => Look::Short(None),
        Err(Gap::Nonsense) => Look::Nonsense,
    }
}

/// The checksum at the end of these bytes is that of the rest.
pub(super) fn is_whole(record: &[u8]) -> bool {
    record
        .split_last_chunk::<CHECKSUM_BYTES>()
        .is_some_and(|(rest, sum)| u64::from_be_bytes(*sum) == u64::from(crc32fast::hash(rest)))
}

/// The bytes hold a whole record that only a length field disguises: with another length the checksum is right.
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

/// The length of the vote is the one that decides where the rest of a checkpoint is.
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
        matches!(look(&bytes), Look::Fits(header) if is_whole(&bytes[..header.length]))
    })
}

/// Where a body may end: four zero bytes of a checksum that is not zero, and then the end or another record's type.
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
        assert_eq!(look(&record), Look::Fits(header));
        assert_eq!(look(&record[..30]), Look::Short(Some(header)));
        assert_eq!(look(&record[..10]), Look::Short(None));
        assert_eq!(look(&[1; 40]), Look::Nonsense);
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
                // Followed by another record, or by the zeros of a file that was made longer.
                let followed = [record.clone(), append((3, 10), b"x")].concat();
                assert!(is_whole_with_another_length(&followed, Kind::Append));
                let cut = &record[..record.len() - 1];
                assert!(!is_whole_with_another_length(cut, Kind::Append));
            }
        }
    }
}
