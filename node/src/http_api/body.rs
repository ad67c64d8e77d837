//! Request bodies: statements are collected in memory, within limits; uploads are written to a file.
use std::{
    convert::Infallible,
    ops::Deref,
    path::Path,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tempfile::{NamedTempFile, TempPath};
use tokio::{fs::File, io::AsyncWriteExt, time::timeout};

use super::{
    connections::ClientConnection,
    error::Failure,
    memory::{BodyMemory, Reservation},
    progress::ProgressTimer,
};
use crate::disk::Disk;

/// How often a body that does not arrive is checked for its speed.
const SPEED_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The free space on the disk is checked after every this many bytes of an upload.
const SPACE_CHECK_BYTES: u64 = 16 << 20;
/// Prefix of the names of uploads on disk, by which those left behind by a crash are recognized.
const UPLOAD_PREFIX: &str = "http-upload-";

/// Why a body did not arrive completely.
#[derive(Debug)]
pub(super) enum BodyError {
    Broken(String),
    Stalled,
}

impl From<std::io::Error> for BodyError {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<Infallible> for BodyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Broken(error) => Self::Body(error),
            BodyError::Stalled => Self::Stalled,
        }
    }
}

/// A request's body, hyper's or a test's.
pub(super) trait RequestBody:
    Body<Data = Bytes, Error: Into<BodyError> + Send> + Send
{
}
impl<B: Body<Data = Bytes, Error: Into<BodyError> + Send> + Send> RequestBody for B {}

/// hyper's body with a limit for slow clients.
pub(super) struct ClientBody {
    body: Incoming,
    connection: Arc<ClientConnection>,
    progress: ProgressTimer,
    ended: bool,
}

impl ClientBody {
    pub(super) fn new(body: Incoming, connection: Arc<ClientConnection>) -> Self {
        Self {
            body,
            connection,
            progress: ProgressTimer::default(),
            ended: false,
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            this.connection.set_waiting(true);
            ready!(this.progress.poll_stalled(context));
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        this.connection.set_waiting(false);
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            this.progress.add(bytes);
            this.connection.add_transferred(bytes);
        }
        this.ended = frame.is_none();
        Poll::Ready(frame.map(|frame| frame.map_err(|e| BodyError::Broken(e.to_string()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        self.connection.set_waiting(false);
        if !self.ended && !self.body.is_end_stream() {
            self.connection.set_unread_body();
        }
    }
}

/// A complete body and its reservation of memory.
pub(super) struct Collected {
    bytes: Bytes,
    _reservation: Reservation,
}

impl Deref for Collected {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Collects a body of at most `max_bytes`. A body that arrives in a single frame is not copied.
pub(super) async fn collect(
    body: impl RequestBody,
    max_bytes: usize,
    memory: &BodyMemory,
) -> Result<Collected, Failure> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max_bytes {
        return Err(Failure::TooLarge);
    }
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut whole: Option<BytesMut> = None;
    let mut reservation = Reservation::default();
    loop {
        let so_far = whole.as_ref().map_or(first.len(), BytesMut::len);
        if memory.is_too_slow(&reservation, so_far) {
            return Err(Failure::NoMemory);
        }
        let Ok(frame) = timeout(SPEED_CHECK_INTERVAL, body.frame()).await else {
            continue;
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Failure::from(error.into()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let with_data = so_far + data.len();
        if with_data > max_bytes {
            return Err(Failure::TooLarge);
        }
        memory
            .grow(&mut reservation, with_data, announced, max_bytes)
            .await?;
        match &mut whole {
            Some(whole) => whole.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let mut joined = BytesMut::with_capacity(2 * (first.len() + data.len()));
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
                whole = Some(joined);
            }
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(Collected {
        bytes: whole.map_or(first, BytesMut::freeze),
        _reservation: reservation,
    })
}

/// An upload on disk; its file is deleted when dropped.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) path: TempPath,
    pub(super) len_bytes: u64,
}

/// Writes a body of any length to a new file in `dir`.
pub(super) async fn upload(
    body: impl RequestBody,
    dir: &Path,
    memory: &BodyMemory,
) -> Result<Upload, Failure> {
    let _reservation = memory.for_upload().await?;
    let disk = |error: std::io::Error| {
        Failure::Machine(format!("writing the upload to {}: {error}", dir.display()))
    };
    let named = tempfile::Builder::new()
        .prefix(UPLOAD_PREFIX)
        .tempfile_in(dir);
    let (file, path) = named.map(NamedTempFile::into_parts).map_err(disk)?;
    let mut file = File::from_std(file);
    let mut body = pin!(body);
    let space = Disk::new(dir);
    let (mut len_bytes, mut checked) = (0, 0);
    check_space(&space, body.size_hint().lower())?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::from(error.into()))?;
        if let Ok(data) = frame.into_data() {
            len_bytes += data.len() as u64;
            if len_bytes - checked >= SPACE_CHECK_BYTES {
                checked = len_bytes;
                check_space(&space, data.len() as u64)?;
            }
            file.write_all(&data).await.map_err(disk)?;
        }
    }
    file.flush().await.map_err(disk)?;
    Ok(Upload { path, len_bytes })
}

/// Fails if the disk has no space for this many bytes beside what the log needs to continue.
fn check_space(disk: &Disk, bytes: u64) -> Result<(), Failure> {
    let spare = disk.spare_bytes();
    if bytes <= spare {
        return Ok(());
    }
    Err(Failure::Machine(format!(
        "no room for the upload: {bytes} bytes are to come, and {spare} may be used on the disk of the data directory"
    )))
}

/// Deletes uploads that a crash has left behind. Failures are only logged.
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

    use super::*;

    fn pieces(pieces: &[&'static str]) -> impl RequestBody {
        let frames: Vec<Result<_, std::io::Error>> = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        StreamBody::new(stream::iter(frames))
    }

    async fn collected(body: impl RequestBody, max_bytes: usize) -> Result<Bytes, Failure> {
        let taken = collect(body, max_bytes, &BodyMemory::default()).await;
        taken.map(|taken| taken.bytes)
    }

    #[tokio::test]
    async fn bodies_within_the_limit_are_taken() {
        assert_eq!(
            collected(Full::new(Bytes::from_static(b"abc")), 3)
                .await
                .unwrap(),
            "abc"
        );
        assert_eq!(
            collected(pieces(&["ab", "", "c", "def"]), 6).await.unwrap(),
            "abcdef"
        );
        assert_eq!(collected(pieces(&[]), 3).await.unwrap(), "");
    }

    #[tokio::test]
    async fn larger_ones_are_not() {
        assert!(matches!(
            collected(Full::new(Bytes::from_static(b"abcd")), 3).await,
            Err(Failure::TooLarge)
        ));
        assert!(matches!(
            collected(pieces(&["ab", "cd"]), 3).await,
            Err(Failure::TooLarge)
        ));
        assert!(matches!(
            collected(pieces(&["a", "b", "cd"]), 3).await,
            Err(Failure::TooLarge)
        ));
    }

    #[tokio::test]
    async fn uploads_live_as_long_as_their_handle() {
        let dir = tempfile::tempdir().unwrap();
        let upload = upload(pieces(&["ab", "cd"]), dir.path(), &BodyMemory::default())
            .await
            .unwrap();
        assert_eq!(upload.len_bytes, 4);
        let path = upload.path.to_path_buf();
        assert_eq!(std::fs::read(&path).unwrap(), b"abcd");
        drop(upload);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn an_upload_without_room_is_refused_before_it_begins() {
        let dir = tempfile::tempdir().unwrap();
        let body = Endless(1 << 60);
        let refused = upload(body, dir.path(), &BodyMemory::default())
            .await
            .unwrap_err();
        assert!(
            matches!(&refused, Failure::Machine(text) if text.starts_with("no room for the upload: 1152921504606846976 bytes"))
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// A body that announces this many bytes and never sends any.
    struct Endless(u64);

    impl Body for Endless {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            Poll::Pending
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0)
        }
    }

    #[tokio::test]
    async fn a_directory_that_refuses_is_this_machines_failure() {
        let refused = upload(
            pieces(&["ab"]),
            Path::new("/nonexistent/dir"),
            &BodyMemory::default(),
        )
        .await;
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
