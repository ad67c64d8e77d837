//! A node's own files at its start: with what it starts, and what it says if it does not.
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::{authority::Pair, process::Node};

use crate::ground::{Findings, Ground, LIMIT, Shown, await_words};

/// What is wrong with the files, and what the node says. `true`: it starts all the same.
#[rustfmt::skip]
const STARTS: &[(&str, bool, &str)] = &[
    ("Expired",       true,  "expired"),
    ("NotYetValid",   true,  "not valid"),
    ("WeakKey",       false, "1024"),
    ("no certificate file", false, "No such file"),
    ("empty certificate",   false, "-cert"),
    ("garbage certificate", false, "-cert"),
    ("garbage key",         false, "-key"),
    ("key of another",      false, "this key does not belong to the certificate"),
    ("certificate is a directory", false, "is not a regular file"),
    ("authority is garbage", false, "-ca-cert"),
];

fn files(ground: &Ground, case: &str) -> Result<(Pair, String)> {
    let of = |shown| -> Result<Pair> { ground.files(shown, true)?.context("a certificate") };
    let mut pair = of(match case {
        "Expired" => Shown::Expired,
        "NotYetValid" => Shown::NotYetValid,
        "WeakKey" => Shown::WeakKey,
        _ => Shown::Right,
    })?;
    let mut ca = ground.ca()?;
    let file = |name: &str, text: &str| -> Result<std::path::PathBuf> {
        let path = ground.path().join(name);
        fs::write(&path, text)?;
        Ok(path)
    };
    match case {
        "no certificate file" => pair.cert = ground.path().join("missing.crt"),
        "empty certificate" => pair.cert = file("empty.crt", "")?,
        "garbage certificate" => pair.cert = file("garbage.crt", "garbage\n")?,
        "garbage key" => pair.key = file("garbage.key", "garbage\n")?,
        "key of another" => pair.key = of(Shown::OtherName)?.key,
        "certificate is a directory" => pair.cert = ground.path().to_owned(),
        "authority is garbage" => ca = file("garbage.ca", "garbage\n")?,
        _ => {}
    }
    Ok((pair, ca.display().to_string()))
}

fn starts_with(side: &str) -> Result<()> {
    let ground = Ground::new()?;
    let mut findings = Findings::default();
    for (case, starts, words) in STARTS {
        let (pair, ca) = files(&ground, case)?;
        let mut node = Node::new("1")?;
        node.args.extend(pair.flags(side));
        node.args.push(format!("-{side}-ca-cert={ca}"));
        node.start()?;
        let found = await_words(&node, 0, &[words]).and_then(|()| {
            if *starts {
                ensure!(node.is_running(), "it has ended");
                return Ok(());
            }
            let status = node.wait_exit(LIMIT)?;
            ensure!(status.code() == Some(1), "it ended with {status}");
            Ok(())
        });
        findings.note(&format!("-{side}-cert, {case}"), &found);
    }
    findings.end()
}

#[test]
fn files_of_the_port_for_nodes() -> Result<()> {
    starts_with("node")
}

#[test]
fn files_of_the_http_port() -> Result<()> {
    starts_with("http")
}
