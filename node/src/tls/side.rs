//! One port's TLS: the configurations in force, and the files that they come from.
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use node_contract::status::TlsStatus;
use parking_lot::{Mutex, RwLock};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client, server};
use tokio_util::sync::CancellationToken;

use super::{
    facts,
    handshake::{Gate, HANDSHAKE_LIMIT, LogLimit, timed_out},
    load::{Files, Material},
    port::Port,
    reload::{self, Failure},
    words::explain,
};
use crate::{clock, config::Tls, metrics::Metrics};

/// Interval of checking the files.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Number of checks after which an expiring certificate is reported again: once a day.
const LOOKS_PER_REMINDER: u32 = 24 * 60 * 60;

/// TLS of one port. Connections begin with what is in force; those that are open keep what they began with.
#[derive(Debug)]
pub struct Side {
    files: Files,
    port: Port,
    optional: bool,
    expected_name: Option<ServerName<'static>>,
    current: RwLock<Arc<Current>>,
    changed: watch::Sender<()>,
    failure: Mutex<Option<Failure>>,
    gate: Gate,
    log_limit: LogLimit,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Current {
    material: Material,
    loaded_at: SystemTime,
}

impl Side {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file cannot be used, and what to change. A certificate that has expired, or is not valid yet, is
    /// only a warning in the log: the node starts, as rqlite does.
    pub fn open(port: Port, tls: &Tls, metrics: Arc<Metrics>) -> Result<Arc<Self>, String> {
        let files = Files::new(port, tls)?;
        let expected_name = Some(tls.verify_server_name.as_str())
            .filter(|name| !name.is_empty())
            .map(|name| {
                server_name(name).map_err(|e| format!("-{}-verify-server-name: {e}", port.prefix()))
            })
            .transpose()?;
        let material = files.build(&files.read()?)?;
        let side = Self {
            port,
            optional: tls.optional,
            expected_name,
            current: RwLock::new(Arc::new(Current {
                material,
                loaded_at: clock::now(),
            })),
            files,
            changed: watch::Sender::new(()),
            failure: Mutex::default(),
            gate: Gate::default(),
            log_limit: LogLimit::default(),
            metrics,
        };
        side.log_current("certificate loaded");
        Ok(Arc::new(side))
    }

    /// Handshake with a client, within a time limit.
    ///
    /// # Errors
    /// It failed or took too long; [`Self::refused`] logs that.
    pub async fn accept<S>(&self, stream: S) -> io::Result<server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.current().material.server);
        self.gate.accept(stream, config).await
    }

    /// Handshake with a server that was dialed as `host`, within a time limit.
    ///
    /// # Errors
    /// It failed, in words, or took too long.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let current = self.current();
        let Some(config) = &current.material.client else {
            return Err(io::Error::other("this port dials nobody"));
        };
        let name = match &self.expected_name {
            Some(name) => name.clone(),
            None => server_name(host).map_err(io::Error::other)?,
        };
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        timeout(HANDSHAKE_LIMIT, connecting)
            .await
            .unwrap_or_else(|_elapsed| Err(timed_out()))
            .map_err(|e| io::Error::new(e.kind(), format!("TLS: {}", explain(&e))))
    }

    /// Counts and logs a handshake that failed; the log only a few of many.
    pub fn refused(&self, from: SocketAddr, error: &io::Error) {
        self.metrics.count(self.port.handshake_failures());
        let target = self.port.log_target();
        let Some(left_out) = self.log_limit.next(Instant::now()) else {
            return;
        };
        let others = match left_out {
            0 => String::new(),
            n => format!(" (and {n} others before)"),
        };
        let why = explain(error);
        tracing::warn!(target: "tls", "{target}: TLS handshake error from {from}: {why}{others}");
    }

    /// Changes whenever other files are taken. The value now counts as seen.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether the other side of an open connection would still be accepted with what is in force now, as of
    /// the time `at` when it showed its certificates: expiry since then does not count. `dialed` is the host
    /// that this node dialed; without it, the other side did.
    pub fn vouches(
        &self,
        chain: &[CertificateDer<'static>],
        dialed: Option<&str>,
        at: UnixTime,
    ) -> bool {
        let current = self.current();
        let (Some((leaf, others)), material) = (chain.split_first(), &current.material) else {
            return true;
        };
        match dialed {
            None => material
                .clients
                .as_ref()
                .is_none_or(|verifier| verifier.verify_client_cert(leaf, others, at).is_ok()),
            Some(host) => {
                let name = self
                    .expected_name
                    .clone()
                    .map_or_else(|| server_name(host), Ok);
                let verified = |name| {
                    material.servers.as_ref().is_none_or(|verifier| {
                        verifier
                            .verify_server_cert(leaf, others, &name, &[], at)
                            .is_ok()
                    })
                };
                name.is_ok_and(verified)
            }
        }
    }

    /// The port also accepts connections without TLS.
    pub fn is_optional(&self) -> bool {
        self.optional
    }

    /// The flags of this side.
    pub fn settings(&self) -> &Tls {
        self.files.settings()
    }

    /// For `/status`.
    pub fn describe(&self) -> TlsStatus {
        let current = self.current();
        let failure = self.failure.lock();
        TlsStatus {
            stage: None,
            optional: (self.port == Port::Http).then_some(self.optional),
            leaf_sha256: current.material.leaf_sha256.clone(),
            leaf_not_after: facts::rfc3339(current.material.validity.not_after),
            trusted_sha256: current.material.trusted_sha256.clone(),
            loaded_at: clock::rfc3339(current.loaded_at),
            last_error: failure
                .as_ref()
                .filter(|failure| failure.reported)
                .map(|failure| failure.error.clone()),
        }
    }

    /// Checks the files every second, until stopped.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut looks: u32 = 0;
        while stop
            .run_until_cancelled(tokio::time::sleep(LOOK_PAUSE))
            .await
            .is_some()
        {
            let side = Arc::clone(&self);
            // The disk of the files may hang.
            let _ = tokio::task::spawn_blocking(move || side.look()).await;
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_PER_REMINDER) {
                self.warn_of_validity();
            }
        }
    }

    /// Checks the files once, and uses them if they have changed and are valid.
    pub fn look(&self) {
        let contents = match self.files.read() {
            Ok(contents) => contents,
            Err(error) => return self.note_failure(error),
        };
        if contents.digest() == self.current().material.digest {
            if self
                .failure
                .lock()
                .take()
                .is_some_and(|failure| failure.reported)
            {
                self.log_current("the files hold the certificate in use again");
            }
            return;
        }
        match self.files.build(&contents) {
            Ok(material) => {
                *self.current.write() = Arc::new(Current {
                    material,
                    loaded_at: clock::now(),
                });
                self.changed.send_replace(());
                *self.failure.lock() = None;
                self.metrics.count(self.port.reloads());
                self.log_current("certificate reloaded");
            }
            Err(error) => self.note_failure(error),
        }
    }

    fn note_failure(&self, error: String) {
        let mut kept = self.failure.lock();
        let now = reload::after(kept.as_ref(), error);
        if reload::is_news(kept.as_ref(), &now) {
            self.metrics.count(self.port.reload_failures());
            tracing::error!(target: "tls", "the changed files are not used, the certificate in use stays: {}", now.error);
        }
        *kept = Some(now);
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read())
    }

    /// Logs what is in force, and what is wrong with it.
    fn log_current(&self, what: &str) {
        let current = self.current();
        let material = &current.material;
        let until = material.validity.not_after;
        self.metrics
            .set(self.port.expiry(), u64::try_from(until).unwrap_or(0));
        let file = self.files.cert();
        tracing::info!(target: "tls", "{}", file.error(&format!(
            "{what}: SHA-256 {}, valid until {}",
            material.leaf_sha256,
            facts::rfc3339(until)
        )));
        if let Some(warning) = &material.warning {
            tracing::warn!(target: "tls", "{warning}");
        }
        self.warn_of_validity();
    }

    fn warn_of_validity(&self) {
        let validity = self.current().material.validity;
        if let Some(concern) = validity.concern(facts::seconds(clock::now())) {
            let file = self.files.cert();
            tracing::warn!(target: "tls", "{}", file.error(&format!("the certificate {concern}")));
        }
    }
}

/// The name that a server's certificate must have: a host name, or an address with or without brackets.
///
/// # Errors
/// It is neither.
pub fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let unzoned = bare.split_once('%').map_or(bare, |(address, _)| address);
    if let Ok(address) = unzoned.parse::<IpAddr>() {
        return Ok(ServerName::from(address));
    }
    ServerName::try_from(bare.trim_end_matches('.').to_owned())
        .map_err(|_| format!("{host:?} is neither a host name nor an address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_servers() {
        let cases = [
            ("example.com", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("my_node-0.svc", Some("my_node-0.svc")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("[::1]", Some("::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("", None),
            ("a b", None),
        ];
        for (host, expected) in cases {
            let name = server_name(host)
                .ok()
                .map(|name| name.to_str().into_owned());
            assert_eq!(name.as_deref(), expected, "{host}");
        }
    }
}
