//! A resumable upload of unknown length: chunks one after the other, each at a known place.
use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart, path::Path};
use reqwest::{
    Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE},
};
use serde_json::Value;
use tokio::sync::Mutex;

use super::{request::Api, words::failure};

/// Attempts to send one chunk.
const ATTEMPTS: u32 = 8;

struct State {
    api: Arc<Api>,
    location: Path,
    session: Url,
    /// What has arrived, and the chunk that is held back: only the last one may have any length, and it says
    /// the whole one.
    progress: Mutex<(u64, Option<Bytes>)>,
}

/// The upload.
pub(super) struct Resumable {
    state: Arc<State>,
}

impl fmt::Debug for Resumable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resumable({})", self.state.location)
    }
}

impl Resumable {
    pub(super) async fn begin(api: Arc<Api>, location: Path, about: &Value) -> Result<Self> {
        let mut url = api.upload_url(&location)?;
        url.query_pairs_mut().append_pair("uploadType", "resumable");
        let body = about.to_string();
        let sent = api.send(&location, |client| {
            client
                .post(url.clone())
                .header("Content-Type", "application/json; charset=UTF-8")
                .body(body.clone())
        });
        let response = sent.await?;
        let session = response.headers().get(LOCATION);
        let session = session.and_then(|given| given.to_str().ok());
        let session = session
            .ok_or_else(|| failure(location.as_ref(), "an upload without a Location", None))?;
        let session = api.here(session)?;
        Ok(Self {
            state: Arc::new(State {
                api,
                location,
                session,
                progress: Mutex::default(),
            }),
        })
    }
}

impl State {
    /// Sends a chunk that begins at `at`; `total` with the last one.
    async fn send(&self, at: u64, chunk: Bytes, total: Option<u64>) -> Result<()> {
        let end = at + chunk.len() as u64;
        let whole = total.map_or("*".to_owned(), |total| total.to_string());
        let (mut from, mut attempt) = (at, 0);
        loop {
            attempt += 1;
            let skipped = usize::try_from(from - at).unwrap_or(usize::MAX);
            let rest = chunk.slice(skipped.min(chunk.len())..);
            let range = match rest.is_empty() {
                true => format!("bytes */{whole}"),
                false => format!("bytes {from}-{}/{whole}", end - 1),
            };
            match self.put(&range, rest).await {
                Ok(response) if response.status() != StatusCode::PERMANENT_REDIRECT => {
                    return Ok(());
                }
                // Google may take less than the whole chunk, and says how much.
                Ok(response) => match arrived(&response) {
                    all if all >= end && total.is_none() => return Ok(()),
                    some if some >= at && attempt < ATTEMPTS => from = some,
                    _ => return Err(self.fail("the server did not take the whole chunk")),
                },
                Err((e, passing)) if !passing || attempt >= ATTEMPTS => return Err(e),
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(250) * attempt).await;
                    let asked = self.api.send(&self.location, |client| {
                        client
                            .put(self.session.clone())
                            .header(CONTENT_RANGE, "bytes */*")
                            .header(CONTENT_LENGTH, "0")
                    });
                    let response = asked.await?;
                    if response.status() != StatusCode::PERMANENT_REDIRECT {
                        return Ok(());
                    }
                    from = arrived(&response).clamp(at, end);
                    if from == end && total.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn put(
        &self,
        range: &str,
        chunk: Bytes,
    ) -> Result<Response, (object_store::Error, bool)> {
        let build = |client: &reqwest::Client| {
            client
                .put(self.session.clone())
                .header(CONTENT_RANGE, range)
                .body(chunk.clone())
        };
        self.api.once(&self.location, &build).await
    }

    fn fail(&self, why: &str) -> object_store::Error {
        failure(self.location.as_ref(), why, None)
    }
}

/// How many bytes the server has, by `Range: bytes=0-LAST`.
fn arrived(response: &Response) -> u64 {
    let range = response.headers().get(RANGE);
    let last = range
        .and_then(|range| range.to_str().ok())
        .and_then(|range| range.rsplit_once('-'))
        .and_then(|(_, last)| last.parse::<u64>().ok());
    last.map_or(0, |last| last + 1)
}

#[async_trait]
impl MultipartUpload for Resumable {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            let mut progress = state.progress.lock().await;
            let (at, held) = &mut *progress;
            if let Some(chunk) = held.replace(data.into()) {
                let bytes = chunk.len() as u64;
                state.send(*at, chunk, None).await?;
                *at += bytes;
            }
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let mut progress = self.state.progress.lock().await;
        let (at, held) = &mut *progress;
        let last = held.take().unwrap_or_default();
        let total = *at + last.len() as u64;
        self.state.send(*at, last, Some(total)).await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
            extensions: Default::default(),
        })
    }

    async fn abort(&mut self) -> Result<()> {
        let state = &self.state;
        let build = |client: &reqwest::Client| client.delete(state.session.clone());
        // Google answers 499 to a session that it has dropped.
        match state.api.once(&state.location, &build).await {
            Ok(_) => Ok(()),
            Err((e, _)) if e.to_string().contains("499") => Ok(()),
            Err((e, _)) => Err(e),
        }
    }
}
