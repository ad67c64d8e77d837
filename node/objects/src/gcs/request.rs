//! Requests to the JSON API, with a token and retries.
use std::time::{Duration, Instant};

use object_store::{Error, Result, path::Path};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    login::Login,
    resource::Page,
    words::{chain, failure},
};
use crate::error::shorten;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Entries of a page.
const PAGE_SIZE: &str = "1000";

/// One bucket.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    base: String,
    bucket: String,
    login: Login,
    patience: Duration,
}

impl Api {
    pub(super) fn new(
        client: Client,
        base: String,
        bucket: String,
        login: Login,
        patience: Duration,
    ) -> Self {
        Self {
            client,
            base,
            bucket,
            login,
            patience,
        }
    }

    fn url(&self, path: &str, name: Option<&Path>) -> Result<Url> {
        let text = format!("{}{path}/storage/v1/b", self.base);
        let mut url = Url::parse(&text).map_err(|e| failure(&text, &e.to_string(), None))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(&self.bucket).push("o");
            if let Some(name) = name {
                // One segment: its slashes are escaped.
                segments.push(name.as_ref());
            }
        }
        Ok(url)
    }

    pub(super) fn object_url(&self, location: &Path) -> Result<Url> {
        self.url("", Some(location))
    }

    pub(super) fn upload_url(&self, _: &Path) -> Result<Url> {
        self.url("/upload", None)
    }

    /// The URL of a session, on this endpoint: an emulator may know itself by another name.
    pub(super) fn here(&self, given: &str) -> Result<Url> {
        let failed = |e: String| failure(given, &e, None);
        let theirs = Url::parse(given).map_err(|e| failed(e.to_string()))?;
        let mut ours = Url::parse(&self.base).map_err(|e| failed(e.to_string()))?;
        ours.set_path(theirs.path());
        ours.set_query(theirs.query());
        Ok(ours)
    }

    /// One page of a listing.
    pub(super) async fn page(
        &self,
        prefix: Option<&Path>,
        start: Option<&str>,
        delimiter: Option<&str>,
        token: Option<&str>,
    ) -> Result<Page> {
        let root = Path::default();
        let location = prefix.unwrap_or(&root);
        let below = prefix.map(|prefix| format!("{prefix}/"));
        let mut url = self.url("", None)?;
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("maxResults", PAGE_SIZE);
            for (key, value) in [
                ("prefix", below.as_deref()),
                ("startOffset", start),
                ("delimiter", delimiter),
                ("pageToken", token),
            ] {
                if let Some(value) = value {
                    query.append_pair(key, value);
                }
            }
        }
        let sent = self.send(location, |client| client.get(url.clone()));
        json(sent.await?, location).await
    }

    /// Sends a request until it succeeds, fails for good, or patience ends.
    pub(super) async fn send(
        &self,
        location: &Path,
        build: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response> {
        let (started, mut pause, mut refused) = (Instant::now(), FIRST_PAUSE, false);
        loop {
            let (error, passing) = match self.once(location, &build).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let unauthenticated = matches!(error, Error::Unauthenticated { .. });
            if unauthenticated && !refused {
                self.login.forget().await;
                refused = true;
                continue;
            }
            if !passing || started.elapsed() + pause > self.patience {
                return Err(error);
            }
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// One attempt. `308` is an answer (a chunk was taken). The failure says whether it may pass.
    pub(super) async fn once(
        &self,
        location: &Path,
        build: &impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, (Error, bool)> {
        let path = location.as_ref();
        let token = self.login.token().await;
        let token = token.map_err(|why| {
            let denied =
                why.contains("invalid_grant") || why.contains("401") || why.contains("403");
            let status = denied.then_some(StatusCode::UNAUTHORIZED);
            (failure(path, &why, status), !denied)
        })?;
        let mut request = build(&self.client);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request
            .send()
            .await
            .map_err(|e| (failure(path, &chain(&e), None), true))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::PERMANENT_REDIRECT {
            return Ok(response);
        }
        let passing = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            );
        let text = response.text().await.unwrap_or_default();
        let why = format!("{status}: {}", message(&text));
        Err((failure(path, &why, Some(status)), passing))
    }
}

/// The message of Google's error in JSON, or the text.
fn message(text: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let message = parsed
        .as_ref()
        .and_then(|all| all.pointer("/error/message"));
    shorten(message.and_then(Value::as_str).unwrap_or(text))
}

/// An answer as a value.
pub(super) async fn json<T: DeserializeOwned>(response: Response, location: &Path) -> Result<T> {
    let path = location.as_ref();
    let text = response.text().await;
    let text = text.map_err(|e| failure(path, &chain(&e), None))?;
    serde_json::from_str(&text).map_err(|e| {
        failure(
            path,
            &format!("an answer that is none of Google's: {e}"),
            None,
        )
    })
}
