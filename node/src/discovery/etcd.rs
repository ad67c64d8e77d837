//! The key in etcd, over the JSON form of its v3 API, which every etcd since 3.4 serves on its client port.
//!
//! The gRPC client crate compiles etcd's protocol files in each build and needs `protoc` on every build
//! machine. The three calls (range, txn, authenticate) use the HTTP client that Consul needs anyway.
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use reqwest::{
    Client, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    found::{Versioned, key_of},
    http::{self, CALL_LIMIT, Connecting, HttpResponse},
    setting::{self, Secret},
    tls::{self, TlsConfig},
};

/// etcd's default address.
const DEFAULT_ENDPOINT: &str = "localhost:2379";
/// gRPC codes in error responses.
const DEADLINE_EXCEEDED: u64 = 4;
const UNAVAILABLE: u64 = 14;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    endpoints: Option<Vec<String>>,
    #[serde(default, deserialize_with = "setting::nanos")]
    auto_sync_interval: Option<Duration>,
    #[serde(default, deserialize_with = "setting::nanos")]
    dial_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "setting::nanos")]
    dial_keep_alive_time: Option<Duration>,
    #[serde(default, deserialize_with = "setting::nanos")]
    dial_keep_alive_timeout: Option<Duration>,
    username: Option<String>,
    password: Option<Secret>,
    /// Without effect: the JSON API under /v3 exists since etcd 3.4, so older ones fail in any case.
    #[serde(rename = "reject-old-cluster")]
    _reject_old_cluster: Option<bool>,
    permit_without_stream: Option<bool>,
    #[serde(rename = "tls_config")]
    tls_config: Option<TlsConfig>,
}

impl Config {
    /// Names of given options that have no effect, because they concern gRPC connections.
    fn without_effect(&self) -> Vec<&'static str> {
        let positive = |d: Option<Duration>| d.is_some_and(|d| !d.is_zero());
        [
            ("auto-sync-interval", positive(self.auto_sync_interval)),
            (
                "dial-keep-alive-timeout",
                positive(self.dial_keep_alive_timeout),
            ),
            (
                "permit-without-stream",
                self.permit_without_stream.unwrap_or(false),
            ),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}

#[derive(Debug)]
struct Login {
    username: String,
    password: Secret,
}

/// One key in one etcd cluster.
#[derive(Debug)]
pub(super) struct Etcd {
    client: Client,
    endpoints: Vec<Url>,
    /// Index of the endpoint that responded last.
    preferred: AtomicUsize,
    key: String,
    login: Option<Login>,
    token: Mutex<Option<Secret>>,
}

/// Reads the configuration; connects with the first call.
pub(super) fn open(text: &str, disco_key: &str) -> Result<Etcd, String> {
    let config: Config = setting::parse(text)?;
    let key = format!("/{}/leader", key_of(disco_key)?);
    for name in config.without_effect() {
        tracing::info!(target: "disco", "the etcd option {name} has no effect: each call is bounded by itself");
    }
    let endpoints = endpoints(
        config.endpoints.unwrap_or_default(),
        config.tls_config.is_some(),
    )?;
    let tls = if endpoints.iter().any(|url| url.scheme() == "https") {
        config.tls_config.unwrap_or_default().client()?
    } else {
        tls::none()?
    };
    let positive = |d: Option<Duration>| d.filter(|d| !d.is_zero());
    let connecting = Connecting {
        unix_socket: None,
        connect_limit: positive(config.dial_timeout),
        keep_alive: positive(config.dial_keep_alive_time),
    };
    let login = match (
        config.username.filter(|name| !name.is_empty()),
        config.password.filter(|password| !password.is_empty()),
    ) {
        (Some(username), password) => Some(Login {
            username,
            password: password.unwrap_or_default(),
        }),
        (None, Some(_)) => return Err("password: needs a username".into()),
        (None, None) => None,
    };
    Ok(Etcd {
        client: http::client(tls, &connecting)?,
        endpoints,
        preferred: AtomicUsize::new(0),
        key,
        login,
        token: Mutex::default(),
    })
}

/// Without a scheme an endpoint is https if `tls_config` is given, else http.
fn endpoints(given: Vec<String>, with_tls: bool) -> Result<Vec<Url>, String> {
    let given = if given.is_empty() {
        vec![DEFAULT_ENDPOINT.to_owned()]
    } else {
        given
    };
    given
        .iter()
        .map(|endpoint| {
            let url = if endpoint.contains("://") {
                http::base_url("endpoints", endpoint)
            } else if with_tls {
                http::base_url("endpoints", &format!("https://{endpoint}"))
            } else {
                http::base_url("endpoints", &format!("http://{endpoint}"))
            }?;
            if with_tls && url.scheme() != "https" {
                return Err(format!(
                    "tls_config: endpoint {url} is not https; write https:// before it"
                ));
            }
            Ok(url)
        })
        .collect()
}

/// The result of a call to one endpoint.
enum CallResult {
    Response(Value),
    /// Another endpoint may succeed.
    Unavailable(String),
    /// The token is not accepted, or no longer.
    Unauthenticated(String),
    /// Another endpoint would refuse too.
    Refused(String),
}

impl Etcd {
    /// The key's path.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Reads the value from a quorum of etcd.
    pub(super) async fn read(&self) -> Result<Option<Versioned>, String> {
        let request = json!({ "key": STANDARD.encode(&self.key) });
        let answer = self.call(&["v3", "kv", "range"], &request).await?;
        parse_range(&answer).map_err(|e| format!("etcd: {e}"))
    }

    /// Writes the key if it still has this version; 0 means that it is absent.
    pub(super) async fn write(&self, value: &[u8], version: u64) -> Result<bool, String> {
        let key = STANDARD.encode(&self.key);
        let transaction = json!({
            "compare": [{ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": version.to_string() }],
            "success": [{ "request_put": { "key": key, "value": STANDARD.encode(value) } }],
        });
        let answer = self.call(&["v3", "kv", "txn"], &transaction).await?;
        // The JSON API omits fields that are false.
        Ok(answer["succeeded"].as_bool().unwrap_or(false))
    }

    /// Tries one endpoint after the other, beginning with the one that responded last. Trying the next one
    /// after a lost response is safe: a check-and-set that has taken effect fails when it is repeated.
    async fn call(&self, path: &[&str], body: &Value) -> Result<Value, String> {
        let deadline = Instant::now() + CALL_LIMIT;
        let count = self.endpoints.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut troubles = Vec::new();
        for tried in 0..count {
            let index = (first + tried) % count;
            let endpoint = &self.endpoints[index];
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = left.div_f64((count - tried) as f64);
            match self.call_authenticated(endpoint, path, body, limit).await {
                CallResult::Response(answer) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                CallResult::Unavailable(e) => troubles.push(format!("{endpoint}: {e}")),
                CallResult::Unauthenticated(e) | CallResult::Refused(e) => {
                    return Err(format!("etcd at {endpoint}: {e}"));
                }
            }
        }
        Err(format!(
            "etcd does not answer; check endpoints and tls_config ({})",
            troubles.join("; ")
        ))
    }

    /// Logs in if necessary, and again if the token has expired.
    async fn call_authenticated(
        &self,
        endpoint: &Url,
        path: &[&str],
        body: &Value,
        limit: Duration,
    ) -> CallResult {
        let deadline = Instant::now() + limit;
        let left = || deadline.saturating_duration_since(Instant::now());
        let Some(login) = &self.login else {
            return self.call_endpoint(endpoint, path, body, None, left()).await;
        };
        let known = self.token().clone();
        if let Some(token) = known {
            match self
                .call_endpoint(endpoint, path, body, Some(&token), left())
                .await
            {
                CallResult::Unauthenticated(_) => {}
                other => return other,
            }
        }
        match self.log_in(endpoint, login, left()).await {
            Ok(token) => {
                self.token().clone_from(&token);
                self.call_endpoint(endpoint, path, body, token.as_ref(), left())
                    .await
            }
            Err(outcome) => outcome,
        }
    }

    fn token(&self) -> parking_lot::MutexGuard<'_, Option<Secret>> {
        self.token.lock()
    }

    /// A new token; `None` if this etcd does not require one.
    async fn log_in(
        &self,
        endpoint: &Url,
        login: &Login,
        limit: Duration,
    ) -> Result<Option<Secret>, CallResult> {
        let body = json!({ "name": login.username, "password": login.password.reveal() });
        let path = ["v3", "auth", "authenticate"];
        match self
            .call_endpoint(endpoint, &path, &body, None, limit)
            .await
        {
            CallResult::Response(answer) => match answer["token"].as_str() {
                Some(token) => Ok(Some(Secret::from(token.to_owned()))),
                None => Err(CallResult::Refused("logging in brought no token".into())),
            },
            CallResult::Refused(e) if e.contains("authentication is not enabled") => Ok(None),
            CallResult::Refused(e) => Err(CallResult::Refused(format!(
                "logging in failed, check username and password: {e}"
            ))),
            other => Err(other),
        }
    }

    async fn call_endpoint(
        &self,
        endpoint: &Url,
        path: &[&str],
        body: &Value,
        token: Option<&Secret>,
        limit: Duration,
    ) -> CallResult {
        let url = http::below(endpoint, path.iter().copied());
        let mut request = self.client.post(url).body(body.to_string());
        if let Some(token) = token {
            match HeaderValue::from_str(token.reveal()) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    request = request.header(AUTHORIZATION, value);
                }
                Err(_) => return CallResult::Refused("the token cannot be sent".into()),
            }
        }
        match http::send(request, limit).await {
            Ok(response) => classify(&response),
            Err(e) => CallResult::Unavailable(e),
        }
    }
}

fn classify(response: &HttpResponse) -> CallResult {
    let parsed: Option<Value> = serde_json::from_slice(&response.body).ok();
    if response.status == StatusCode::OK {
        return match parsed {
            Some(value @ Value::Object(_)) => CallResult::Response(value),
            Some(_) | None => {
                CallResult::Refused("the answer is not etcd's; check endpoints".into())
            }
        };
    }
    let message = parsed
        .as_ref()
        .and_then(|value| value["message"].as_str().or(value["error"].as_str()))
        .map_or_else(|| response.shown(), ToOwned::to_owned);
    let code = parsed.as_ref().and_then(|value| value["code"].as_u64());
    if response.status == StatusCode::UNAUTHORIZED
        || message.contains("invalid auth token")
        || message.contains("revision of auth store is old")
        || message.contains("revision in header is old")
    {
        CallResult::Unauthenticated(message)
    } else if matches!(code, Some(DEADLINE_EXCEEDED | UNAVAILABLE))
        || (response.status.is_server_error() && code.is_none())
    {
        CallResult::Unavailable(message)
    } else if response.status == StatusCode::NOT_FOUND {
        CallResult::Refused(format!(
            "{message}; etcd 3.4 or newer with its JSON gateway (on by default) is needed"
        ))
    } else if message.contains("user name is empty") {
        CallResult::Refused(format!(
            "{message}; this etcd requires username and password"
        ))
    } else if message.contains("permission denied") {
        CallResult::Refused(format!(
            "{message}; the user's role must allow reading and writing the key"
        ))
    } else {
        CallResult::Refused(message)
    }
}

fn parse_range(answer: &Value) -> Result<Option<Versioned>, String> {
    let unlike = || "the answer is not that of a key's lookup".to_owned();
    let Some(entry) = answer["kvs"].as_array().and_then(|kvs| kvs.first()) else {
        // A response without a header is not etcd's.
        return if answer["header"].is_object() {
            Ok(None)
        } else {
            Err(unlike())
        };
    };
    let version = entry["mod_revision"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(unlike)?;
    let bytes = STANDARD
        .decode(entry["value"].as_str().unwrap_or_default())
        .map_err(|_| unlike())?;
    Ok(Some(Versioned { bytes, version }))
}

#[cfg(test)]
mod tests;
