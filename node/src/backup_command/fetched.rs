//! Downloads an object into a file, and decompresses it if it is gzip.
use std::{
    io::{self, Write},
    path::Path,
};

use flate2::write::MultiGzDecoder;
use node_objects::{Store, store::Entry};
use tokio::task::spawn_blocking;

/// First bytes of a gzip file (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What was fetched.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) stored_bytes: u64,
    pub(super) was_packed: bool,
    /// SHA-256 of the unpacked file from the object's metadata, if it is there.
    pub(super) sha256: Option<String>,
}

enum Unpacking {
    Plain(std::fs::File),
    Gzip(Box<MultiGzDecoder<std::fs::File>>),
}

impl Unpacking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(bytes),
            Self::Gzip(decoder) => decoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        let file = match self {
            Self::Plain(file) => file,
            Self::Gzip(mut decoder) => {
                decoder.try_finish()?;
                decoder.finish()?
            }
        };
        file.sync_all()
    }
}

/// Downloads an object into a file, and syncs it.
pub(super) async fn fetch(store: &Store, name: &str, to: &Path) -> Result<Fetched, String> {
    let what = || format!("object '{name}' in {}", store.place());
    let about = store.head(name).await.map_err(|e| e.to_string())?;
    let about = about.ok_or_else(|| format!("{} does not exist: check the name", what()))?;
    let mut reader = store.read(name, 0).await.map_err(|e| e.to_string())?;
    let said = |e: io::Error| match e.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            format!("{} is damaged gzip: {e}", what())
        }
        _ => format!("writing {}: {e}", to.display()),
    };
    let file = std::fs::File::create(to).map_err(said)?;
    let mut head = Vec::new();
    let mut file = Some(file);
    let mut unpacking = None;
    while let Some(bytes) = reader.next().await.map_err(|e| e.to_string())? {
        head.extend_from_slice(&bytes);
        if head.len() < GZIP.len() {
            continue;
        }
        let chunk = std::mem::take(&mut head);
        let current = match (unpacking.take(), file.take()) {
            (Some(current), _) => current,
            (None, Some(file)) if chunk.starts_with(&GZIP) => {
                Unpacking::Gzip(Box::new(MultiGzDecoder::new(file)))
            }
            (None, Some(file)) => Unpacking::Plain(file),
            (None, None) => break,
        };
        let written = spawn_blocking(move || {
            let mut current = current;
            current.write(&chunk).map(|()| current)
        });
        unpacking = Some(written.await.map_err(|e| e.to_string())?.map_err(said)?);
    }
    let Some(unpacking) = unpacking else {
        return Err(format!("{} is empty", what()));
    };
    let was_packed = matches!(unpacking, Unpacking::Gzip(_));
    let ended = spawn_blocking(move || unpacking.finish()).await;
    ended.map_err(|e| e.to_string())?.map_err(said)?;
    let mut noted = about.metadata.iter();
    let noted = noted.find(|(key, _)| key.eq_ignore_ascii_case("rqlite_sha256"));
    Ok(Fetched {
        stored_bytes: about.bytes,
        was_packed,
        sha256: noted.map(|(_, value)| value.clone()),
    })
}

/// Name of the newest of the objects `<time>_<name>`.
pub(super) async fn latest(store: &Store, name: &str) -> Result<String, String> {
    let all = store.list("", None).await.map_err(|e| e.to_string())?;
    newest(&all, name).ok_or_else(|| {
        format!(
            "no object in {} is named '<time>_{name}'; without -latest, '{name}' itself is fetched",
            store.place()
        )
    })
}

fn newest(all: &[Entry], name: &str) -> Option<String> {
    let stamped = all.iter().filter(|entry| {
        entry.name.split_once('_').is_some_and(|(time, rest)| {
            time.len() == 14 && time.bytes().all(|b| b.is_ascii_digit()) && rest == name
        })
    });
    stamped.map(|entry| entry.name.clone()).max()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use node_objects::Metadata;

    use super::*;

    #[tokio::test]
    async fn packed_or_not_and_damaged() {
        let store = Store::memory().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("out");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&[7; 100_000]).unwrap();
        let packed = gzip.finish().unwrap();
        for (bytes, says) in [
            (vec![], Err("is empty")),
            (b"plain".to_vec(), Ok(5)),
            (packed.clone(), Ok(100_000)),
            (packed[..packed.len() - 9].to_vec(), Err("damaged gzip")),
            ([&packed[..20], &[0xff; 80]].concat(), Err("damaged gzip")),
        ] {
            store
                .put("o", Bytes::from(bytes), &Metadata::new())
                .await
                .unwrap();
            match (fetch(&store, "o", &to).await, says) {
                (Ok(_), Ok(length)) => assert_eq!(std::fs::metadata(&to).unwrap().len(), length),
                (Err(why), Err(part)) => {
                    assert!(why.contains(part) && why.contains("'o'"), "{why}")
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(
            fetch(&store, "none", &to)
                .await
                .unwrap_err()
                .contains("does not exist")
        );
    }

    #[test]
    fn the_newest_has_the_latest_time() {
        let entry = |name: &str| Entry {
            name: name.to_owned(),
            bytes: 1,
            modified_unix_ms: 0,
        };
        let all = [
            "20260101000000_a",
            "20250101000000_a",
            "20270101000000_b",
            "a",
            "x_a",
        ]
        .map(entry);
        assert_eq!(newest(&all, "a").as_deref(), Some("20260101000000_a"));
        assert_eq!(newest(&all, "c"), None);
    }
}
