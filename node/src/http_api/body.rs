//! Request bodies: small ones in memory, within a limit; uploads straight to a file.
use std::{fmt, path::Path, pin::pin};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use tempfile::{NamedTempFile, TempPath};
use tokio::{fs::File, io::AsyncWriteExt};

use super::error::Failure;

/// Largest body of statements. Such a body is held in memory several times over (bytes, statements, log entry, frames to the
/// other nodes), and one log entry blocks those behind it; more than this belongs to `/db/load`, which streams.
pub(super) const MAX_BODY_BYTES: usize = 32 << 20;
/// Largest body of the administration's endpoints: an ID.
pub(super) const MAX_ADMIN_BODY_BYTES: usize = 64 << 10;
/// Begins the names of uploads on disk, so that those that a crash left can be told.
const UPLOAD_PREFIX: &str = "http-upload-";

/// A request's body, hyper's or a test's.
pub(super) trait RequestBody: Body<Data = Bytes, Error: fmt::Display + Send> + Send {}
impl<B: Body<Data = Bytes, Error: fmt::Display + Send> + Send> RequestBody for B {}

/// Takes a whole body; one that came in a single piece is not copied.
pub(super) async fn collect(body: impl RequestBody, max_bytes: usize) -> Result<Bytes, Failure> {
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(Failure::TooLarge);
    }
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut whole: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Body(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let so_far = whole.as_ref().map_or(first.len(), BytesMut::len);
        if data.len() > max_bytes - so_far {
            return Err(Failure::TooLarge);
        }
        match &mut whole {
            Some(whole) => whole.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let expected = usize::try_from(body.size_hint().lower())
                    .unwrap_or(0)
                    .min(max_bytes);
                let mut joined = BytesMut::with_capacity(first.len() + data.len() + expected);
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
                whole = Some(joined);
            }
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(whole.map_or(first, BytesMut::freeze))
}

/// An upload on disk; dropping it deletes the file.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) path: TempPath,
    pub(super) len_bytes: u64,
}

/// Writes a body of any length to a new file in `dir`.
pub(super) async fn upload(body: impl RequestBody, dir: &Path) -> Result<Upload, Failure> {
    let disk = |error: std::io::Error| {
        Failure::Machine(format!("writing the upload to {}: {error}", dir.display()))
    };
    let named = tempfile::Builder::new()
        .prefix(UPLOAD_PREFIX)
        .tempfile_in(dir);
    let (file, path) = named.map(NamedTempFile::into_parts).map_err(disk)?;
    let mut file = File::from_std(file);
    let mut body = pin!(body);
    let mut len_bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Body(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            len_bytes += data.len() as u64;
            file.write_all(&data).await.map_err(disk)?;
        }
    }
    file.flush().await.map_err(disk)?;
    Ok(Upload { path, len_bytes })
}

/// Deletes uploads that a crash left behind. What cannot be deleted is only logged.
pub(super) fn remove_left_uploads(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(UPLOAD_PREFIX)
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(
                "cannot remove the left-over upload {}: {error}",
                entry.path().display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    fn pieces(pieces: &[&'static str]) -> impl RequestBody {
        let frames: Vec<Result<_, std::io::Error>> = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn bodies_within_the_limit_are_taken() {
        assert_eq!(
            collect(Full::new(Bytes::from_static(b"abc")), 3)
                .await
                .unwrap(),
            "abc"
        );
        assert_eq!(
            collect(pieces(&["ab", "", "c", "def"]), 6).await.unwrap(),
            "abcdef"
        );
        assert_eq!(collect(pieces(&[]), 3).await.unwrap(), "");
    }

    #[tokio::test]
    async fn larger_ones_are_not() {
        assert!(matches!(
            collect(Full::new(Bytes::from_static(b"abcd")), 3).await,
            Err(Failure::TooLarge)
        ));
        assert!(matches!(
            collect(pieces(&["ab", "cd"]), 3).await,
            Err(Failure::TooLarge)
        ));
        assert!(matches!(
            collect(pieces(&["a", "b", "cd"]), 3).await,
            Err(Failure::TooLarge)
        ));
    }

    #[tokio::test]
    async fn uploads_live_as_long_as_their_handle() {
        let dir = tempfile::tempdir().unwrap();
        let upload = upload(pieces(&["ab", "cd"]), dir.path()).await.unwrap();
        assert_eq!(upload.len_bytes, 4);
        let path = upload.path.to_path_buf();
        assert_eq!(std::fs::read(&path).unwrap(), b"abcd");
        drop(upload);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_directory_that_refuses_is_this_machines_failure() {
        let refused = upload(pieces(&["ab"]), Path::new("/nonexistent/dir")).await;
        assert!(matches!(refused, Err(Failure::Machine(_))));
    }

    #[test]
    fn only_left_uploads_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["http-upload-x", "other"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        remove_left_uploads(dir.path());
        assert!(!dir.path().join("http-upload-x").exists());
        assert!(dir.path().join("other").exists());
    }
}
