//! The key in Consul's key-value store, over its HTTP API.
//!
//! No client crate supports partitions, token files and all TLS fields of rqlite's configuration, so the two
//! calls (get, and put with check-and-set) use a plain HTTP client.
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url, header::HeaderValue};
use serde::Deserialize;

use super::{
    found::{Versioned, key_of},
    http::{self, CALL_LIMIT, Connecting, HttpResponse},
    setting::{self, Secret},
    tls::{self, TlsConfig},
};

/// Consul's own default.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8500";
/// Consul sets this header on every response about a key, also if the key is absent.
const INDEX_HEADER: &str = "x-consul-index";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    address: Option<String>,
    scheme: Option<String>,
    datacenter: Option<String>,
    basic_auth: Option<BasicAuth>,
    token: Option<Secret>,
    token_file: Option<String>,
    namespace: Option<String>,
    partition: Option<String>,
    tls_config: Option<TlsConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BasicAuth {
    username: Option<String>,
    password: Option<Secret>,
}

/// One key in one Consul.
#[derive(Debug)]
pub(super) struct Consul {
    client: Client,
    /// Shown in errors.
    endpoint: String,
    /// URL of the key, with data center, namespace and partition.
    url: Url,
    key: String,
    basic_auth: Option<BasicAuth>,
    token: Option<Secret>,
    token_file: Option<String>,
}

/// Consul's address, from `address` and `scheme`.
struct Endpoint {
    base: Url,
    unix_socket: Option<String>,
}

/// Reads the configuration; connects with the first call.
pub(super) fn open(text: &str, disco_key: &str) -> Result<Consul, String> {
    let config: Config = setting::parse(text)?;
    let key = format!("{}/leader", key_of(disco_key)?);
    let text_of = |field: Option<String>| field.filter(|text| !text.is_empty());
    let endpoint = endpoint(
        text_of(config.address)
            .as_deref()
            .unwrap_or(DEFAULT_ADDRESS),
        text_of(config.scheme).as_deref(),
    )?;
    let tls = match (endpoint.base.scheme(), config.tls_config) {
        ("https", tls) => tls.unwrap_or_default().client()?,
        (_, None) => tls::none()?,
        (_, Some(_)) => {
            return Err("tls_config: needs \"scheme\":\"https\", or https:// in address".into());
        }
    };
    let connecting = Connecting {
        unix_socket: endpoint.unix_socket.clone().map(Into::into),
        ..Connecting::default()
    };
    let mut url = http::below(
        &endpoint.base,
        ["v1", "kv"].into_iter().chain(key.split('/')),
    );
    for (name, value) in [
        ("dc", config.datacenter),
        ("ns", config.namespace),
        ("partition", config.partition),
    ] {
        if let Some(value) = text_of(value) {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    Ok(Consul {
        client: http::client(tls, &connecting)?,
        endpoint: endpoint
            .unix_socket
            .map_or(endpoint.base.to_string(), |path| format!("unix://{path}")),
        url,
        key,
        basic_auth: config.basic_auth,
        token: config.token.filter(|token| !token.is_empty()),
        token_file: text_of(config.token_file),
    })
}

fn endpoint(address: &str, scheme: Option<&str>) -> Result<Endpoint, String> {
    let scheme = scheme.unwrap_or("http");
    if !matches!(scheme, "http" | "https") {
        return Err("scheme: expected \"http\" or \"https\"".into());
    }
    match address.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(Endpoint {
            base: http::base_url("address", &format!("{scheme}://localhost/"))?,
            unix_socket: Some(path.to_owned()),
        }),
        Some(("unix", _)) => Err("address: expected an absolute path after unix://".into()),
        Some(_) => Ok(Endpoint {
            base: http::base_url("address", address)?,
            unix_socket: None,
        }),
        None => Ok(Endpoint {
            base: http::base_url("address", &format!("{scheme}://{address}"))?,
            unix_socket: None,
        }),
    }
}

impl Consul {
    /// The key's path.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Reads the value from Consul's leader, not from a server that may lag behind.
    pub(super) async fn read(&self) -> Result<Option<Versioned>, String> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_key_only("consistent");
        let response = self.call(Method::GET, url, None).await?;
        match response.status {
            StatusCode::OK => parse_entry(&response.body)
                .map(Some)
                .map_err(|e| self.trouble(&e)),
            StatusCode::NOT_FOUND if response.headers.contains_key(INDEX_HEADER) => Ok(None),
            _ => Err(self.refused(&response)),
        }
    }

    /// Writes the key if it still has this version; 0 means that it is absent.
    pub(super) async fn write(&self, value: Vec<u8>, version: u64) -> Result<bool, String> {
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("cas", &version.to_string());
        let response = self.call(Method::PUT, url, Some(value)).await?;
        match (response.status, response.body.trim_ascii()) {
            (StatusCode::OK, b"true") => Ok(true),
            (StatusCode::OK, b"false") => Ok(false),
            _ => Err(self.refused(&response)),
        }
    }

    async fn call(
        &self,
        method: Method,
        url: Url,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, String> {
        let mut request = self.authorized(self.client.request(method, url)).await?;
        if let Some(body) = body {
            request = request.body(body);
        }
        http::send(request, CALL_LIMIT)
            .await
            .map_err(|e| self.trouble(&format!("{e}; check address, scheme and tls_config")))
    }

    /// Adds the credentials. The token file is read each time, because tokens are renewed while the node
    /// runs.
    async fn authorized(&self, mut request: RequestBuilder) -> Result<RequestBuilder, String> {
        if let Some(auth) = &self.basic_auth {
            request = request.basic_auth(
                auth.username.as_deref().unwrap_or_default(),
                auth.password.as_ref().map(Secret::reveal),
            );
        }
        let from_file = match &self.token_file {
            Some(path) => Some(Secret::from(
                tokio::fs::read_to_string(path)
                    .await
                    .map_err(|e| format!("token_file: {path}: {e}"))?
                    .trim()
                    .to_owned(),
            )),
            None => None,
        };
        // As in Consul's own client, the token in the file takes precedence over the field.
        let token = from_file
            .as_ref()
            .filter(|token| !token.is_empty())
            .or(self.token.as_ref());
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.reveal())
                .map_err(|_| "the Consul token holds characters that no token has".to_owned())?;
            value.set_sensitive(true);
            request = request.header("x-consul-token", value);
        }
        Ok(request)
    }

    fn refused(&self, response: &HttpResponse) -> String {
        let hint = match response.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                format!(
                    "; check token or basic_auth: the policy must allow key:read and key:write on {}",
                    self.key
                )
            }
            StatusCode::NOT_FOUND | StatusCode::MOVED_PERMANENTLY => {
                "; is address that of a Consul agent?".to_owned()
            }
            _ => String::new(),
        };
        self.trouble(&format!("{}{hint}", response.shown()))
    }

    fn trouble(&self, what: &str) -> String {
        format!("Consul at {}: {what}", self.endpoint)
    }
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Value")]
    value: Option<String>,
    #[serde(rename = "ModifyIndex")]
    modify_index: u64,
}

fn parse_entry(body: &[u8]) -> Result<Versioned, String> {
    let unlike = |e: &dyn std::fmt::Display| {
        format!("the answer is not that of Consul's key-value store: {e}")
    };
    let entries: Vec<Entry> = serde_json::from_slice(body).map_err(|e| unlike(&e))?;
    let [entry] = entries.as_slice() else {
        return Err(unlike(&"not exactly one entry"));
    };
    let bytes = STANDARD
        .decode(entry.value.as_deref().unwrap_or_default())
        .map_err(|e| unlike(&e))?;
    Ok(Versioned {
        bytes,
        version: entry.modify_index,
    })
}

#[cfg(test)]
mod tests;
