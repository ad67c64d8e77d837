//! A forwarded port: requests to one pod's HTTP API with a user and a password, which the API server's own
//! proxy would remove. Works with any provider, and whatever NetworkPolicies say.
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    namespace::Namespace,
    numbered::http::{Server, Trusted},
};

/// Limit for the port to be forwarded, and for a response: a node that is cut off would block for ever.
const LIMIT: Duration = Duration::from_secs(10);
const HTTP_PORT: u16 = 4001;

/// How a cluster is used: by whom, and whether by HTTPS. The default is nobody in particular, by HTTP.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// User and password.
    pub user: Option<(String, String)>,
    /// By HTTPS, with a server of this certificate.
    pub tls: Option<Trusted>,
}

impl Login {
    /// URL of a server (`host:port`).
    #[must_use]
    pub fn url(&self, server: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match &self.user {
            Some((user, password)) => format!("{scheme}://{user}:{password}@{server}"),
            None => format!("{scheme}://{server}"),
        }
    }

    /// A server (`host:port`).
    ///
    /// # Errors
    /// If that is no address.
    pub fn server(&self, server: &str) -> Result<Server> {
        let parsed = Server::parse(&self.url(server))?;
        Ok(match &self.tls {
            Some(trusted) => parsed.with_trusted(trusted.clone()),
            None => parsed,
        })
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            to,
            "Login({})",
            self.user.as_ref().map_or("", |(user, _)| user)
        )
    }
}

/// `kubectl port-forward` until it is dropped.
struct Forward {
    process: Child,
    port: u16,
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Forward {
    fn start(namespace: &Namespace, pod: &str, to: u16) -> Result<Self> {
        let (pod, ports) = (format!("pod/{pod}"), format!(":{to}"));
        let args = [
            "port-forward",
            "--address=127.0.0.1",
            "--pod-running-timeout=2s",
            &pod,
            &ports,
        ];
        let mut command = namespace.command(&args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().context("start kubectl")?;
        let said = process.stdout.take().context("no output")?;
        let mut forward = Self { process, port: 0 };
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let (mut said, mut line) = (BufReader::new(said), String::new());
            let read = said.read_line(&mut line);
            let _ = sender.send(read.map(|_| line));
            // kubectl prints a line for each connection and would end at the first one if nobody read it.
            let _ = std::io::copy(&mut said, &mut std::io::sink());
        });
        let line = receiver.recv_timeout(LIMIT);
        let line =
            line.with_context(|| format!("{pod}: no port was forwarded within {LIMIT:?}"))??;
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| {
            let digits = rest.split_whitespace().next()?;
            digits.parse().ok()
        });
        if let Some(port) = port {
            forward.port = port;
            return Ok(forward);
        }
        let _ = forward.process.kill();
        let mut why = String::new();
        if let Some(mut errors) = forward.process.stderr.take() {
            errors.read_to_string(&mut why)?;
        }
        anyhow::bail!("{pod}: no port was forwarded: {line}{why}")
    }
}

impl Namespace {
    /// Sends a POST with JSON, or a GET without, to a pod's HTTP API; returns the body of a response with
    /// status 200.
    ///
    /// # Errors
    /// Describes the failure.
    pub fn ask(&self, pod: &str, login: &Login, path: &str, json: Option<&str>) -> Result<String> {
        let forward = Forward::start(self, pod, HTTP_PORT)?;
        ensure!(forward.port > 0, "no port");
        let server = format!("127.0.0.1:{}", forward.port);
        let said = login
            .server(&server)?
            .request(path, json, LIMIT)
            .with_context(|| format!("{pod}: {path}"))?;
        Ok(String::from_utf8(said)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_the_login_and_logs_do_not() {
        let nobody = Login::default();
        assert_eq!(nobody.url("h:1"), "http://h:1");
        let login = Login {
            user: Some(("app".to_owned(), "secret".to_owned())),
            tls: Some(Trusted {
                authorities: String::new(),
                name: "h".to_owned(),
            }),
        };
        assert_eq!(login.url("h:1"), "https://app:secret@h:1");
        assert_eq!(format!("{login:?}"), "Login(app)");
    }
}
