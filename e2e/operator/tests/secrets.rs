//! Secrets on a real API server, with the operator's own permissions: made once, repaired when they are
//! deleted or changed by hand, removed with their user; other people's are neither read nor touched.
use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    objects::Objects,
    operator_fixture::{OperatorFixture, condition},
};
use serde_json::{Value, json};

/// A Secret is not watched: the operator looks about every 25 s.
const LIMIT: Duration = Duration::from_secs(90);
const NAMESPACE: &str = "default";
const USERS: &str = "demo-rqlite-users";
const OPERATOR: &str = "demo-rqlite-operator";

struct Place<'a>(&'a Objects);

impl Place<'_> {
    fn secret(&self, name: &str) -> Result<Value> {
        self.0.get(&["secret", name, "-n", NAMESPACE])
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        self.0.run(&[&["-n", NAMESPACE], args].concat())
    }

    fn edit(&self, spec: &Value) -> Result<String> {
        let patch = json!({ "spec": spec }).to_string();
        self.run(&[
            "patch",
            "rqlitecluster",
            "demo",
            "--type=merge",
            "-p",
            &patch,
        ])
    }

    fn value(&self, name: &str, key: &str) -> Result<String> {
        let secret = self.secret(name)?;
        let data = secret["data"][key].as_str();
        let data = data.with_context(|| format!("{name} has no {key}"))?;
        decode(data)
    }

    /// The users of the credentials file, with whether they have former passwords.
    fn users(&self) -> Result<BTreeMap<String, bool>> {
        let file: Vec<Value> = serde_json::from_str(&self.value(USERS, "users.json")?)?;
        let users = file.iter().map(|user| {
            let name = user["username"].as_str().unwrap_or_default().to_owned();
            (name, user.get("previous_passwords").is_some())
        });
        Ok(users.collect())
    }
}

fn decode(text: &str) -> Result<String> {
    let digit = |byte: u8| -> Result<u32> {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let at = alphabet.iter().position(|one| *one == byte);
        Ok(u32::try_from(at.context("not base64")?)?)
    };
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut bits = 0;
        for byte in group {
            bits = bits << 6 | digit(*byte)?;
        }
        bits <<= 6 * (4 - group.len());
        let all = bits.to_be_bytes();
        bytes.extend(&all[1..group.len()]);
    }
    Ok(String::from_utf8(bytes)?)
}

/// What an application needs, and that nothing is made twice.
fn made_once(place: &Place<'_>) -> Result<()> {
    until("the connection Secret", LIMIT, || {
        place.secret("demo-app")?;
        place.secret(USERS).map(drop)
    })?;
    let app = place.secret("demo-app")?;
    ensure!(app["type"] == "servicebinding.io/rqlite", "{}", app["type"]);
    let owner = &app["metadata"]["ownerReferences"][0];
    ensure!(
        owner["kind"] == "RqliteCluster" && owner["controller"] == true,
        "{owner}"
    );
    let password = place.value("demo-app", "password")?;
    ensure!(password.len() == 64, "{} characters", password.len());
    let host = "demo-client.default.svc.cluster.local";
    let uri = place.value("demo-app", "uri")?;
    let rest = format!("://app:{password}@{host}:4001");
    ensure!(uri.ends_with(&rest), "the uri has another form");
    ensure!(place.value("demo-app", "host")? == host);
    let cluster = place.0.get(&["rqlitecluster", "demo", "-n", NAMESPACE])?;
    ensure!(
        cluster["status"]["binding"]["name"] == "demo-app",
        "{}",
        cluster["status"]
    );
    ensure!(
        !cluster.to_string().contains(&password),
        "a password in the cluster"
    );
    let file = place.value(USERS, "users.json")?;
    ensure!(
        !file.contains(&password) && file.contains("$argon2id$"),
        "passwords are hashed"
    );
    let set = place
        .0
        .get(&["statefulset", "demo", "-n", NAMESPACE])?
        .to_string();
    for flag in [
        "-auth=/etc/rqlite/users/users.json",
        "-join-as=rqlite-node",
        "-health-addr=",
    ] {
        ensure!(set.contains(flag), "{flag} is missing");
    }
    let versions = || -> Result<Vec<Value>> {
        let names = ["demo-app", USERS, OPERATOR].iter();
        names
            .map(|name| Ok(place.secret(name)?["metadata"]["resourceVersion"].clone()))
            .collect()
    };
    let before = versions()?;
    std::thread::sleep(Duration::from_secs(35));
    ensure!(
        versions()? == before,
        "Secrets are written again without a reason"
    );
    Ok(())
}

fn repaired(place: &Place<'_>) -> Result<()> {
    let before = place.value("demo-app", "password")?;
    place.run(&["delete", "secret", "demo-app"])?;
    until("a deleted connection Secret to come back", LIMIT, || {
        let now = place.value("demo-app", "password")?;
        ensure!(now != before, "the password was known to nobody else");
        Ok(())
    })?;
    until(
        "the nodes' file to follow, with the former password",
        LIMIT,
        || {
            ensure!(
                place.users()?.get("app") == Some(&true),
                "{:?}",
                place.users()?
            );
            Ok(())
        },
    )?;
    place.run(&["delete", "secret", USERS])?;
    until("a deleted credentials file to come back", LIMIT, || {
        place.users().map(drop)
    })?;
    let change = r#"{"stringData":{"users.json":"[]","added":"x","host":"evil"}}"#;
    place.run(&["patch", "secret", USERS, "--type=merge", "-p", change])?;
    until("a changed credentials file to be repaired", LIMIT, || {
        let secret = place.secret(USERS)?;
        let keys = secret["data"].as_object().context("no data")?;
        ensure!(keys.len() == 1, "{:?}", keys.keys());
        ensure!(
            place.users()?.contains_key("rqlite-operator"),
            "{:?}",
            place.users()?
        );
        Ok(())
    })?;
    place.run(&[
        "patch",
        "secret",
        "demo-app",
        "--type=merge",
        "-p",
        r#"{"stringData":{"host":"evil"}}"#,
    ])?;
    until("a changed connection Secret to be repaired", LIMIT, || {
        ensure!(place.value("demo-app", "host")? != "evil");
        Ok(())
    })
}

/// Users come and go, and a foreign Secret of their name stays what it is.
fn users_change(place: &Place<'_>) -> Result<()> {
    let foreign = [
        "create",
        "secret",
        "generic",
        "demo-report",
        "--from-literal=a=b",
    ];
    place.run(&foreign)?;
    place.run(&[
        "create",
        "secret",
        "generic",
        "mine",
        "--from-literal=word=s3cret/word",
    ])?;
    let foreign = place.secret("demo-report")?;
    place.edit(&json!({"users": [
        {"name": "app", "permissions": ["query"]},
        {"name": "report", "permissions": ["query"]},
        {"name": "load", "permissions": ["load"], "passwordSecret": {"name": "mine", "key": "word"}}]}))?;
    until("the given password to be used", LIMIT, || {
        ensure!(place.value("demo-load", "password")? == "s3cret/word");
        ensure!(place.value("demo-load", "uri")?.contains(":s3cret%2Fword@"));
        ensure!(place.users()?.contains_key("load"));
        Ok(())
    })?;
    until("the foreign Secret to be reported", LIMIT, || {
        let cluster = place.0.get(&["rqlitecluster", "demo", "-n", NAMESPACE])?;
        let degraded = condition(&cluster, "Degraded").to_string();
        ensure!(degraded.contains("Secret demo-report"), "{degraded}");
        Ok(())
    })?;
    ensure!(place.secret("demo-report")? == foreign, "it was touched");
    place.run(&[
        "patch",
        "secret",
        "mine",
        "--type=merge",
        "-p",
        r#"{"stringData":{"word":"other"}}"#,
    ])?;
    until("the changed password to be followed", LIMIT, || {
        ensure!(place.value("demo-load", "password")? == "other");
        ensure!(
            place.users()?.get("load") == Some(&true),
            "the former one is accepted for a while"
        );
        Ok(())
    })?;
    place.edit(&json!({"users": [{"name": "app", "permissions": ["query"]}]}))?;
    until("removed users to be gone", LIMIT, || {
        let users = place.users()?;
        ensure!(
            !users.contains_key("load") && !users.contains_key("report"),
            "{users:?}"
        );
        ensure!(place.secret("demo-load").is_err());
        Ok(())
    })?;
    ensure!(
        place.secret("demo-report")? == foreign,
        "it was deleted or touched"
    );
    ensure!(place.value("mine", "word")? == "other", "a person's Secret");
    Ok(())
}

#[test]
fn secrets_are_made_once_repaired_and_removed_and_others_stay() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    let place = Place(&fixture.server);
    let cluster = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster",
        "metadata": {"name": "demo"}, "spec": {"replicas": 1}});
    place.0.send(&["create", "-n", NAMESPACE], &cluster)?;
    made_once(&place).with_context(|| fixture.tail())?;
    repaired(&place).with_context(|| fixture.tail())?;
    users_change(&place).with_context(|| fixture.tail())?;
    let log = fixture.log()?;
    for (secret, key) in [
        ("demo-app", "password"),
        (OPERATOR, "password"),
        ("mine", "word"),
    ] {
        let value = place.value(secret, key)?;
        ensure!(
            value == "other" || !log.contains(&value),
            "{secret}: its {key} is in the log"
        );
    }
    Ok(())
}
