//! One log entry as the archive keeps it.
//!
//! ```text
//! kind (1 byte), index, term, time (8 bytes each, little-endian), length (4 bytes, little-endian), content
//! ```
use std::io::{self, Read};

use bytes::Bytes;

use crate::moment::Moment;

/// Bytes before the content.
pub(crate) const HEAD_BYTES: usize = 29;

/// What kind of entry it was. Append only: the numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A leader's empty entry.
    Blank,
    /// A change of the members; replay ignores it.
    Membership,
    /// A command in the bytes of `node/src/command.rs`.
    Command,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Blank => 0,
            Self::Membership => 1,
            Self::Command => 2,
        }
    }

    fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Blank),
            1 => Some(Self::Membership),
            2 => Some(Self::Command),
            _ => None,
        }
    }
}

/// One log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What it is.
    pub kind: Kind,
    /// Its time: of its latest request, and never less than that of the entry before it.
    pub time: Moment,
    /// Its content; empty for [`Kind::Blank`].
    pub content: Bytes,
}

impl Record {
    /// The bytes before the content; `None` if the content is longer than a record's may be (4 GiB).
    pub(crate) fn head(&self) -> Option<[u8; HEAD_BYTES]> {
        let length = u32::try_from(self.content.len()).ok()?;
        let mut head = [0; HEAD_BYTES];
        let fields = [self.kind.number()]
            .into_iter()
            .chain(self.index.to_le_bytes())
            .chain(self.term.to_le_bytes())
            .chain(self.time.0.to_le_bytes())
            .chain(length.to_le_bytes());
        for (place, byte) in head.iter_mut().zip(fields) {
            *place = byte;
        }
        Some(head)
    }

    /// Reads one record. Memory grows with the content that arrives, not with the length that the record
    /// states, because that may be wrong.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let [kind] = array(from)?;
        let [index, term] = [
            u64::from_le_bytes(array(from)?),
            u64::from_le_bytes(array(from)?),
        ];
        let time = i64::from_le_bytes(array(from)?);
        let length = u32::from_le_bytes(array(from)?);
        let mut content = Vec::new();
        from.take(length.into()).read_to_end(&mut content)?;
        if u32::try_from(content.len()) != Ok(length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let kind = Kind::of(kind).ok_or_else(|| {
            io::Error::other(format!(
                "entry {index} is of kind {kind}, which this rqlited does not know: use a newer rqlited"
            ))
        })?;
        Ok(Self {
            index,
            term,
            kind,
            time: Moment(time),
            content: content.into(),
        })
    }
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a record, fixed.
    #[test]
    fn golden() {
        let record = Record {
            index: 0x0102,
            term: 3,
            kind: Kind::Command,
            time: Moment(-2),
            content: Bytes::from_static(b"ab"),
        };
        let mut bytes = record.head().unwrap().to_vec();
        bytes.extend_from_slice(&record.content);
        let golden = b"\x02\x02\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff\x02\0\0\0ab";
        assert_eq!(bytes, golden);
        assert_eq!(Record::read(&mut &bytes[..]).unwrap(), record);
        for length in 0..bytes.len() {
            assert!(Record::read(&mut &bytes[..length]).is_err(), "{length}");
        }
        bytes[0] = 3;
        let error = Record::read(&mut &bytes[..]).unwrap_err().to_string();
        assert_eq!(
            error,
            "entry 258 is of kind 3, which this rqlited does not know: use a newer rqlited"
        );
    }
}
