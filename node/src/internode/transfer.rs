//! Copying the bytes of a backup or an upload between a connection and a file.
use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// Size of the copy buffer.
const BUFFER_BYTES: usize = 256 << 10;
/// A transfer between nodes fails when no byte moves for this long.
pub const TRANSFER_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Copies exactly `len` bytes.
///
/// # Errors
/// A read or write failed, took longer than [`TRANSFER_IDLE_TIMEOUT`], or the source ended early.
pub async fn copy_exactly<R, W>(reader: &mut R, writer: &mut W, len: u64) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = len;
    while left > 0 {
        let want = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let Some(part) = buffer.get_mut(..want) else {
            break;
        };
        let stalled = |_| io::Error::from(io::ErrorKind::TimedOut);
        let got = timeout(TRANSFER_IDLE_TIMEOUT, reader.read(part))
            .await
            .map_err(stalled)??;
        let Some(part) = part.get(..got).filter(|p| !p.is_empty()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        timeout(TRANSFER_IDLE_TIMEOUT, writer.write_all(part))
            .await
            .map_err(stalled)??;
        left -= got as u64;
    }
    Ok(())
}
