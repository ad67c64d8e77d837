//! Certificates of every kind, two authorities of the same name, and how they are shown.
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    authority::{self, Authority, Issued, Key, Leaf, Pair},
    process::Node,
    wait,
};
use tempfile::TempDir;

/// How long a word may take to appear in a log, on two busy cores.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// The common name that the ports ask for.
pub(crate) const NAME: &str = "member";

/// What somebody shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Right,
    Nothing,
    /// Of the right authority, for somebody else.
    OtherName,
    /// Of the right authority, for another host.
    OtherHost,
    Expired,
    NotYetValid,
    SelfSigned,
    /// Of another authority with the name of the right one.
    OtherAuthority,
    /// For the other use: a server's shown by a client, a client's by a server.
    OtherUse,
    /// RSA with 1024 bits.
    WeakKey,
    Tls11,
    Plain,
}

pub(crate) struct Ground {
    dir: TempDir,
    pub(crate) authority: Authority,
    other: Authority,
}

impl Ground {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            dir: tempfile::tempdir()?,
            authority: Authority::new("authority")?,
            other: Authority::new("authority")?,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The file of the right authority.
    pub(crate) fn ca(&self) -> Result<PathBuf> {
        let path = self.path().join("authority.crt");
        if path.exists() {
            return Ok(path);
        }
        self.authority.write(self.path(), "authority")
    }

    /// The certificate; `as_server`: it will be shown by a server.
    pub(crate) fn issue(&self, shown: Shown, as_server: bool) -> Result<Option<Issued>> {
        let leaf = Leaf::for_loopback(NAME);
        let issued = match shown {
            Shown::Right => self.authority.issue(&leaf)?,
            Shown::OtherName => self.authority.issue(&Leaf::for_loopback("intruder"))?,
            Shown::OtherHost => self.authority.issue(&Leaf::new(NAME, &["example.com"]))?,
            Shown::Expired => self.authority.issue(&leaf.expired())?,
            Shown::NotYetValid => self.authority.issue(&leaf.not_yet_valid())?,
            Shown::SelfSigned => authority::self_signed(&leaf)?,
            Shown::OtherAuthority => self.other.issue(&leaf)?,
            Shown::OtherUse if as_server => self.authority.issue(&leaf.only_for_clients())?,
            Shown::OtherUse => self.authority.issue(&leaf.only_for_servers())?,
            Shown::WeakKey => self.authority.issue(&leaf.with_key(Key::Rsa(1024)))?,
            Shown::Nothing | Shown::Tls11 | Shown::Plain => return Ok(None),
        };
        Ok(Some(issued))
    }

    /// The same, as files.
    pub(crate) fn files(&self, shown: Shown, as_server: bool) -> Result<Option<Pair>> {
        let name = format!("{shown:?}-{as_server}");
        let pair = Pair {
            cert: self.path().join(format!("{name}.crt")),
            key: self.path().join(format!("{name}.key")),
        };
        // Nodes look at their files again and again.
        if pair.cert.exists() {
            return Ok(Some(pair));
        }
        let issued = self.issue(shown, as_server)?;
        issued
            .map(|issued| issued.write(self.path(), &name))
            .transpose()
    }

    /// A node with a right certificate on one port (`http` or `node`), where it asks for others'.
    pub(crate) fn node(&self, name: &str, side: &str) -> Result<Node> {
        let mut node = Node::new(name)?;
        let pair = self.files(Shown::Right, true)?.context("a certificate")?;
        let ca = self.ca()?;
        node.args.extend(pair.flags(side));
        node.args.extend([
            format!("-{side}-ca-cert={}", ca.display()),
            format!("-{side}-verify-client"),
            format!("-{side}-verify-common-name={NAME}"),
        ]);
        Ok(node)
    }
}

/// Waits until a node's log has a line with all of these words, after so many bytes of it.
pub(crate) fn await_words(node: &Node, from: usize, words: &[&str]) -> Result<()> {
    let what = format!("{words:?} in the log of node {}", node.name);
    wait::until(&what, LIMIT, || {
        let log = node.log();
        let new = log.get(from..).unwrap_or_default();
        let has = |line: &str| words.iter().all(|word| line.contains(word));
        if new.lines().any(has) {
            Ok(())
        } else {
            Err(new.to_owned())
        }
    })
}

/// Runs `openssl` with these arguments and this input, which knows what rustls refuses to do; its output.
pub(crate) fn openssl(args: &[&str], input: &[u8]) -> Result<String> {
    use std::io::Write as _;
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start openssl")?;
    child.stdin.take().context("stdin")?.write_all(input)?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// What was found for each row, so that all that is wrong is seen at once.
#[derive(Default)]
pub(crate) struct Findings {
    text: String,
    wrong: usize,
}

impl Findings {
    pub(crate) fn note(&mut self, row: &str, found: &Result<()>) {
        let word = match found {
            Ok(()) => "as it should be".to_owned(),
            Err(error) => {
                self.wrong += 1;
                format!("WRONG: {error:#}")
            }
        };
        let _ = writeln!(self.text, "{row}: {word}");
    }

    pub(crate) fn end(self) -> Result<()> {
        println!("{}", self.text);
        ensure!(self.wrong == 0, "{} rows:\n{}", self.wrong, self.text);
        Ok(())
    }
}
