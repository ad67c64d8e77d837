//! Client libraries of rqlite as they are in the registries, Go's gorqlite and Python's pyrqlite, over HTTP
//! and HTTPS, with users and client certificates, at a leader and at a follower.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use e2e::{
    authority::{Authority, Leaf, Pair, client_config},
    cluster::{SETTLE_LIMIT, check_no_panic},
    process::Node,
    servers::{Tool, present},
    wait,
};
use tempfile::TempDir;

const TOOLS: [Tool; 2] = [Tool::GoClient, Tool::PythonClient];
const USERS: &str = r#"[{"username": "app", "password": "secret", "perms": ["execute", "query", "status"]},
    {"username": "reader", "password": "secret", "perms": ["query", "status"]},
    {"username": "joiner", "password": "secret", "perms": ["join"]},
    {"username": "*", "perms": ["ready"]}]"#;

struct Ground {
    folder: TempDir,
    authority: Authority,
    ca: PathBuf,
    client: Pair,
}

impl Ground {
    fn new() -> Result<Self> {
        let (folder, authority) = (TempDir::new()?, Authority::new("ca")?);
        fs::write(folder.path().join("users.json"), USERS)?;
        let ca = authority.write(folder.path(), "ca")?;
        let client = authority
            .issue(&Leaf::new("app", &[]).only_for_clients())?
            .write(folder.path(), "client")?;
        Ok(Self {
            folder,
            authority,
            ca,
            client,
        })
    }

    /// A node that serves HTTPS, with users.
    fn node(&self, name: &str, flags: &[&str]) -> Result<Node> {
        let mut node = Node::new(name)?.with(flags);
        let leaf = self.authority.issue(&Leaf::for_loopback(name))?;
        let pair = leaf.write(self.folder.path(), name)?;
        let users = self.folder.path().join("users.json");
        node.args.extend([
            format!("-http-cert={}", pair.cert.display()),
            format!("-http-key={}", pair.key.display()),
            format!("-http-ca-cert={}", self.ca.display()),
            format!("-auth={}", users.display()),
        ]);
        let config = client_config(self.authority.pem(), None)?;
        node.https = Some((config, "localhost".into()));
        Ok(node)
    }
}

/// What the program of a client library prints, or why it fails.
fn run(tool: Tool, url: &str, ca: &Path, pair: Option<&Pair>) -> Result<Result<String, String>> {
    let mut command = Command::new(tool.program()?);
    command.arg(url).arg(ca);
    if let Some(pair) = pair {
        command.arg(&pair.cert).arg(&pair.key);
    }
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    })
}

fn works(tool: Tool, url: &str, ca: &Path, pair: Option<&Pair>) -> Result<()> {
    let said = run(tool, url, ca, pair)?;
    ensure!(said.as_deref() == Ok("ok"), "{tool:?} at {url}: {said:?}");
    Ok(())
}

fn fails(tool: Tool, url: &str, ca: &Path, pair: Option<&Pair>, words: &[&str]) -> Result<()> {
    let said = run(tool, url, ca, pair)?;
    let is_named = |text: &String| words.iter().any(|word| text.contains(word));
    ensure!(
        said.as_ref().is_err_and(is_named),
        "{tool:?} at {url}: {said:?}, expected one of {words:?}"
    );
    Ok(())
}

#[test]
fn over_https_with_users_at_a_leader_and_a_follower() -> Result<()> {
    if !present(&TOOLS)? {
        return Ok(());
    }
    let ground = Ground::new()?;
    let mut leader = ground.node("1", &[])?;
    leader.start_and_ready()?;
    let join = format!("-join={}", leader.raft);
    let mut follower = ground.node("2", &[&join, "-join-as=joiner"])?;
    follower.start_and_ready()?;
    let other = Authority::new("another")?.write(ground.folder.path(), "another")?;
    for tool in TOOLS {
        for node in [&leader, &follower] {
            let port = node.http.rsplit(':').next().unwrap_or_default();
            let url = |user: &str| format!("https://{user}@localhost:{port}");
            works(tool, &url("app:secret"), &ground.ca, None)?;
            let words = ["401", "nauthorized"];
            fails(tool, &url("app:wrong"), &ground.ca, None, &words)?;
            fails(tool, &url("reader:secret"), &ground.ca, None, &words)?;
            let words = ["certificate"];
            fails(tool, &url("app:secret"), &other, None, &words)?;
        }
    }
    check_no_panic(&leader)?;
    check_no_panic(&follower)
}

#[test]
fn with_client_certificates() -> Result<()> {
    if !present(&TOOLS)? {
        return Ok(());
    }
    let ground = Ground::new()?;
    let mut node = ground.node("1", &["-http-verify-client"])?;
    node.start()?;
    let port = node.http.rsplit(':').next().unwrap_or_default().to_owned();
    let url = format!("https://app:secret@localhost:{port}");
    for tool in TOOLS {
        wait::until(
            &format!("{tool:?} with a certificate"),
            SETTLE_LIMIT,
            || works(tool, &url, &ground.ca, Some(&ground.client)).map_err(|e| e.to_string()),
        )?;
        // In TLS 1.3 the refusal reaches the client after its side of the handshake: what it sees depends on
        // whether it reads the alert before its request meets the closed connection.
        let words = [
            "certificate",
            "alert",
            "closed",
            "reset",
            "Remote end",
            "EOF",
            "Broken pipe",
        ];
        fails(tool, &url, &ground.ca, None, &words)?;
    }
    Ok(())
}
