//! Downloads a backup from a running cluster.
use std::{path::Path, sync::Arc, time::Duration};

use reqwest::{Client, Response, StatusCode, Url};
use rustls::{ClientConfig, crypto::ring};
use tokio::{fs::File, io::AsyncWriteExt as _};

use super::args::ClusterArgs;
use crate::{
    causes::causes,
    http_api::RAFT_INDEX,
    tls::{
        Trusted,
        pem::{self, Source},
    },
};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest part of a response that an error shows, in characters.
const MAX_SHOWN_CHARS: usize = 300;
/// Number of rounds over all nodes, and the pause between them.
const ROUNDS: u32 = 3;
const ROUND_PAUSE: Duration = Duration::from_secs(1);

/// What a node sent.
#[derive(Debug)]
pub(super) struct Download {
    /// Its URL.
    pub(super) source: String,
    /// Index of an entry that the backup contains with all before it; `None` if the node does not report it.
    pub(super) index: Option<u64>,
}

/// Downloads a backup into a file, from the first node that sends one.
pub(super) async fn download(
    args: &ClusterArgs,
    vacuum: bool,
    to: &Path,
) -> Result<Download, String> {
    let client = client(args)?;
    let login = login(args)?;
    let mut failures = Vec::new();
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(ROUND_PAUSE * round).await;
        }
        failures.clear();
        for url in &args.urls {
            let shown = without_login(url);
            let attempt = from(&client, url, login.as_ref(), vacuum, to);
            let limited = tokio::time::timeout(args.timeout, attempt).await;
            match limited {
                Ok(Ok(index)) => {
                    let source = url.clone();
                    return Ok(Download { source, index });
                }
                Ok(Err(Refused { why, lasting: true })) => return Err(format!("{shown}: {why}")),
                Ok(Err(Refused { why, .. })) => failures.push(format!("{shown}: {why}")),
                Err(_) => failures.push(format!(
                    "{shown}: not done within {:?} (-timeout)",
                    args.timeout
                )),
            }
        }
    }
    Err(format!("no node sent a backup: {}", failures.join("; ")))
}

struct Refused {
    why: String,
    /// Another node or attempt would fail in the same way.
    lasting: bool,
}

impl Refused {
    fn passing(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            lasting: false,
        }
    }
}

async fn from(
    client: &Client,
    url: &str,
    login: Option<&(String, String)>,
    vacuum: bool,
    to: &Path,
) -> Result<Option<u64>, Refused> {
    let mut url = address(url).map_err(|why| Refused { why, lasting: true })?;
    // A follower forwards the request to the leader.
    url.set_query(Some(if vacuum { "vacuum" } else { "fmt=delete" }));
    let mut request = client.get(url);
    if let Some((user, password)) = login {
        request = request.basic_auth(user, Some(password));
    }
    let sent = request.send().await;
    let response = sent.map_err(|e| Refused::passing(causes("cannot be reached", &e)))?;
    let status = response.status();
    if status != StatusCode::OK {
        let text = response.text().await.unwrap_or_default();
        let text: String = text.trim().chars().take(MAX_SHOWN_CHARS).collect();
        let denied = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let why = match denied {
            true => {
                format!("{status} {text}; check -user, -password-file and the permission 'backup'")
            }
            false => format!("{status} {text}"),
        };
        return Err(Refused {
            why,
            lasting: denied,
        });
    }
    let index = response.headers().get(RAFT_INDEX);
    let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
    save(response, to).await.map(|()| index)
}

async fn save(mut response: Response, to: &Path) -> Result<(), Refused> {
    let failed = |e: std::io::Error| Refused {
        why: format!(
            "writing the copy to {}: {e}; see -scratch-dir",
            to.display()
        ),
        lasting: true,
    };
    let announced = response.content_length();
    let mut file = File::create(to).await.map_err(failed)?;
    let mut received = 0;
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|e| Refused::passing(causes("cannot be reached", &e)))?
    {
        received += chunk.len() as u64;
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    match announced.is_some_and(|announced| announced != received) {
        true => Err(Refused::passing("the connection broke during the backup")),
        false => Ok(()),
    }
}

/// An address as it may be shown: a password in it is none of a log's business.
fn without_login(text: &str) -> String {
    match text.split_once("://").zip(text.rsplit_once('@')) {
        Some(((scheme, _), (_, host))) => format!("{scheme}://…@{host}"),
        None => text.to_owned(),
    }
}

fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("not a URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("expected http://host:port or https://host:port".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry a user or password: see -user and -password-file".into());
    }
    let base = url.as_str().trim_end_matches('/').to_owned();
    Url::parse(&format!("{base}/db/backup")).map_err(|e| e.to_string())
}

fn login(args: &ClusterArgs) -> Result<Option<(String, String)>, String> {
    let (Some(user), Some(file)) = (&args.user, &args.password_file) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|e| format!("-password-file {}: {e}", file.display()))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    Ok(Some((user.clone(), password.to_owned())))
}

fn client(args: &ClusterArgs) -> Result<Client, String> {
    let tls = tls(args)?;
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_LIMIT)
        .build()
        .map_err(|e| causes("cannot be reached", &e))
}

fn tls(args: &ClusterArgs) -> Result<ClientConfig, String> {
    let trusted = match &args.ca_file {
        None => Trusted::of_system("-ca-file"),
        Some(path) => {
            let pem = Source::new("-ca-file", path).read()?;
            let found = pem::certificates(&pem);
            Trusted::given(found.map_err(|e| format!("-ca-file {}: {e}", path.display()))?)?
        }
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = trusted.verifier_of_servers(&provider, None)?;
    let builder = crate::tls::client_builder(provider)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let (Some(cert), Some(key)) = (&args.cert_file, &args.key_file) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = Source::new("-cert-file", cert).read()?;
    let chain =
        pem::certificates(&chain).map_err(|e| format!("-cert-file {}: {e}", cert.display()))?;
    let pem = Source::new("-key-file", key).read()?;
    let key = pem::private_key(&pem).map_err(|e| format!("-key-file {}: {e}", key.display()))?;
    let config = builder.with_client_auth_cert(chain, key);
    config.map_err(|e| format!("-cert-file and -key-file: {e}"))
}
