//! Uploads a file as an object, compressed or not, in parts: memory does not depend on its length.
use std::{io::Write as _, mem, path::Path};

use flate2::{Compression, write::GzEncoder};
use node_objects::{Metadata, ObjectError, Store, Writer};
use sha2::{Digest as _, Sha256};
use tokio::{fs::File, io::AsyncReadExt as _, task::spawn_blocking};

/// Bytes read and compressed at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// How a copy is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    None,
    /// gzip.
    Gzip,
}

/// What was sent of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Length of the object in bytes.
    pub bytes: u64,
    /// SHA-256 of the object, in hex.
    pub sha256: String,
}

/// Uploads a file, whole or not at all; returns what was sent.
///
/// # Errors
/// The file cannot be read, or a request to the store failed.
pub async fn upload_file(
    store: &Store,
    name: &str,
    metadata: &Metadata,
    path: &Path,
    packing: Packing,
) -> Result<Sent, String> {
    let mut file = File::open(path).await.map_err(|e| e.to_string())?;
    let bytes = file.metadata().await.map_err(|e| e.to_string())?.len();
    let said = |e: ObjectError| e.to_string();
    let mut writer = store
        .writer(name, metadata, Some(bytes))
        .await
        .map_err(said)?;
    match send(&mut file, &mut writer, packing).await {
        Ok(sha256) => {
            let bytes = writer.finish().await.map_err(said)?;
            Ok(Sent { bytes, sha256 })
        }
        Err(why) => {
            writer.abort().await;
            Err(why)
        }
    }
}

/// Sends the file to the writer; returns the SHA-256 of the object.
async fn send(file: &mut File, writer: &mut Writer, packing: Packing) -> Result<String, String> {
    let mut sum = Sha256::new();
    let mut gzip = match packing {
        Packing::None => None,
        Packing::Gzip => Some(GzEncoder::new(Vec::new(), Compression::default())),
    };
    let failed = |e: std::io::Error| format!("packing the copy: {e}");
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = file.read(&mut chunk).await;
        let read = read.map_err(|e| format!("reading the copy: {e}"))?;
        chunk.truncate(read);
        let Some(mut encoder) = gzip.take() else {
            if read == 0 {
                return Ok(hex(&sum.finalize()));
            }
            sum.update(&chunk);
            writer.write(&chunk).await.map_err(|e| e.to_string())?;
            continue;
        };
        let packed = spawn_blocking(move || {
            if chunk.is_empty() {
                return encoder.finish().map(|rest| (rest, None));
            }
            encoder.write_all(&chunk)?;
            let packed = mem::take(encoder.get_mut());
            Ok((packed, Some(encoder)))
        });
        let (packed, encoder) = packed.await.map_err(|e| e.to_string())?.map_err(failed)?;
        sum.update(&packed);
        writer.write(&packed).await.map_err(|e| e.to_string())?;
        match encoder {
            Some(encoder) => gzip = Some(encoder),
            None => return Ok(hex(&sum.finalize())),
        }
    }
}

/// SHA-256 of a file, in hex.
///
/// # Errors
/// The file cannot be read.
pub async fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path).await?;
    let (mut sum, mut chunk) = (Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        let read = file.read(&mut chunk).await?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        sum.update(bytes);
    }
    Ok(hex(&sum.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
