//! The `state` file (the sidecar): the log position that the main file equals, and a change that was in
//! progress when the sidecar was written.
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    entry::Position,
    files::wal_file::{Salts, WalEnd},
};

/// First byte of the file; increased when older programs must not read it. New fields at the end do not
/// increase it: older programs ignore them, and a missing one has its default.
const VERSION: u8 = 1;

/// The content of the main file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    /// `None`: nothing was ever checkpointed, and the content of the main file is irrelevant.
    pub(crate) position: Option<Position>,
    /// The caller's metadata.
    pub(crate) meta: Vec<u8>,
    /// Length of the main file in bytes.
    pub(crate) main_len: u64,
}

/// A change of the main file that was started. The next start must finish it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Intent {
    /// Moving the WAL into the main file. The WAL is durable.
    Checkpoint {
        position: Position,
        meta: Vec<u8>,
        /// Bytes 16..24 of the WAL's header; SQLite changes these salts whenever the WAL restarts.
        wal_salts: Salts,
        /// Valid frames in the WAL.
        wal_frames: u32,
    },
    /// Renaming the replacement over the main file. The replacement is durable.
    Replace {
        position: Position,
        meta: Vec<u8>,
        /// Length of the replacement in bytes.
        main_len: u64,
    },
}

/// Content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sidecar {
    pub(crate) base: Base,
    pub(crate) intent: Option<Intent>,
    /// With [`Intent::Checkpoint`]: the last frame of the WAL. Absent in sidecars of earlier versions.
    #[serde(deserialize_with = "absent_is_none")]
    pub(crate) wal_end: Option<WalEnd>,
}

impl Sidecar {
    /// A sidecar without a change in progress.
    pub(crate) fn at_rest(base: Base) -> Self {
        Self {
            base,
            intent: None,
            wal_end: None,
        }
    }
}

fn absent_is_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<WalEnd>, D::Error> {
    // The checksum of the whole file matched, so a missing field was never written.
    Ok(Option::deserialize(from).unwrap_or(None))
}

/// Version, CRC-32 of the rest (little-endian), postcard.
pub(crate) fn encode(sidecar: &Sidecar) -> Result<Vec<u8>, String> {
    let body = postcard::to_stdvec(sidecar)
        .map_err(|error| format!("cannot encode the state file: {error}"))?;
    let mut bytes = Vec::with_capacity(body.len() + 5);
    bytes.push(VERSION);
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// An error says what is wrong, without the file's name.
pub(crate) fn decode(bytes: &[u8]) -> Result<Sidecar, String> {
    let Some((&version, rest)) = bytes.split_first() else {
        return Err("it is empty".to_owned());
    };
    if version != VERSION {
        return Err(format!(
            "its version is {version}, this program knows {VERSION}"
        ));
    }
    let Some((crc, body)) = rest.split_first_chunk::<4>() else {
        return Err("it is cut short".to_owned());
    };
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err("its checksum does not match".to_owned());
    }
    postcard::from_bytes(body).map_err(|error| format!("it cannot be decoded: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sidecar {
        let position = Position {
            term: 3,
            index: 70_000,
        };
        Sidecar {
            base: Base {
                position: Some(position),
                meta: vec![1, 2, 3],
                main_len: 8192,
            },
            intent: Some(Intent::Checkpoint {
                position,
                meta: vec![9],
                wal_salts: [7; 8],
                wal_frames: 12,
            }),
            wal_end: Some(WalEnd {
                page_bytes: 4096,
                pages: 3,
                checksum: [5; 8],
            }),
        }
    }

    /// The format of earlier versions.
    #[derive(Serialize, Deserialize)]
    struct Former {
        base: Base,
        intent: Option<Intent>,
    }

    #[test]
    fn older_and_newer_programs_read_each_other() {
        let sealed = |body: &[u8]| {
            let crc = crc32fast::hash(body).to_le_bytes();
            [&[VERSION], &crc[..], body].concat()
        };
        let Sidecar { base, intent, .. } = sample();
        let old = postcard::to_stdvec(&Former { base, intent }).unwrap();
        let wanted = Sidecar {
            wal_end: None,
            ..sample()
        };
        assert_eq!(decode(&sealed(&old)).unwrap(), wanted);
        let new = encode(&sample()).unwrap();
        let read: Former = postcard::from_bytes(&new[5..]).unwrap();
        assert_eq!((read.base, read.intent), (wanted.base, wanted.intent));
    }

    #[test]
    fn round_trip() {
        for sidecar in [sample(), Sidecar::default()] {
            assert_eq!(decode(&encode(&sidecar).unwrap()).unwrap(), sidecar);
        }
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let bytes = encode(&sample()).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(decode(&damaged).is_err(), "byte {at}");
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
