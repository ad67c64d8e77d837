//! The promises of `node-objects` on real servers: S3 (plain and HTTPS), Google Cloud Storage, Azure.
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use e2e::servers::{
    certificates::Certificates,
    objects::{Kind, ObjectServer},
    present,
};
use node_objects::{Created, Kind as Failure, Metadata, Store, Target, Updated, Use};
use serde_json::Value;

fn store(target: &Value) -> Result<Store> {
    let kind = target["type"].as_str().context("type")?;
    let target = Target::from_json(kind, target["sub"].clone(), Use::Prefix)?;
    Ok(target.open()?)
}

fn run(kind: Kind, test: impl AsyncFnOnce(ObjectServer) -> Result<()>) -> Result<()> {
    if !present(&[kind.tool()])? {
        return Ok(());
    }
    let server = ObjectServer::start(kind)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(test(server))
}

#[expect(clippy::too_many_lines, reason = "one table")]
async fn promises(server: ObjectServer) -> Result<()> {
    let store = store(&server.target("some/prefix"))?;
    store.prove_create_once().await?;

    // Of many who create, one succeeds.
    let tries = (0..8_u8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.create("once", Bytes::from(vec![n; 50])).await })
    });
    let tries: Vec<_> = tries.collect();
    let mut winners = Vec::new();
    for (n, outcome) in tries.into_iter().enumerate() {
        if outcome.await?? == Created::Yes {
            winners.push(n);
        }
    }
    ensure!(winners.len() == 1, "winners: {winners:?}");
    let held = store.get("once", 100).await?;
    ensure!(
        held.iter().all(|b| usize::from(*b) == winners[0]),
        "another's bytes"
    );

    // Metadata, versions.
    let metadata: Metadata = [("some_key".to_owned(), "7".to_owned())].into();
    store.put("m", Bytes::from("one"), &metadata).await?;
    let seen = store.head("m").await?.context("m")?;
    ensure!(
        seen.metadata.get("some_key").map(String::as_str) == Some("7"),
        "{seen:?}"
    );
    ensure!(store.update("m", Bytes::from("two"), &seen.version).await? == Updated::Yes);
    ensure!(
        store
            .update("m", Bytes::from("three"), &seen.version)
            .await?
            == Updated::No
    );
    ensure!(store.get("m", 9).await? == "two");

    // Names in order, after one of them.
    for name in ["s/3", "s/1", "s/2 with blank+plus"] {
        store.put(name, Bytes::from(name), &Metadata::new()).await?;
    }
    let names: Vec<String> = store
        .list("s", Some("s/1"))
        .await?
        .into_iter()
        .map(|e| e.name)
        .collect();
    ensure!(names == ["s/2 with blank+plus", "s/3"], "{names:?}");
    ensure!(store.folders("").await? == ["s"]);
    store.delete("s/1").await?;
    store.delete("s/1").await?;
    ensure!(store.head("s/1").await?.is_none());
    let missing = store.get("s/1", 1).await.err().context("no error")?;
    ensure!(missing.kind == Failure::NotFound, "{missing}");

    // A stream in parts, and out of its middle.
    let chunk: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8).collect();
    let mut writer = store.writer("big", &metadata, None).await?;
    for _ in 0..20 {
        writer.write(&chunk).await?;
    }
    ensure!(store.head("big").await?.is_none(), "a part of it is seen");
    writer.finish().await?;
    let meta = store.head("big").await?.context("big")?;
    ensure!(
        meta.bytes == 20_000_060 && meta.metadata.len() == 1,
        "{meta:?}"
    );
    let mut reader = store.read("big", 1_000_003 * 18 + 5).await?;
    let mut found = Vec::new();
    while let Some(bytes) = reader.next().await? {
        found.extend_from_slice(&bytes);
    }
    ensure!(
        found.len() == 2_000_001 && found[..1_000] == chunk[5..1_005],
        "{}",
        found.len()
    );
    let range = store.get_range("big", 10, 20).await?;
    ensure!(range == chunk[10..20], "{range:?}");
    Ok(())
}

#[test]
fn s3_keeps_the_promises() -> Result<()> {
    run(Kind::S3, promises)
}

#[test]
fn google_keeps_the_promises() -> Result<()> {
    run(Kind::Gcs, promises)
}

#[test]
fn azure_keeps_the_promises() -> Result<()> {
    run(Kind::Azure, promises)
}

#[test]
fn https_is_verified_by_the_given_authorities() -> Result<()> {
    if !present(&[Kind::S3.tool()])? {
        return Ok(());
    }
    let certificates = Certificates::new()?;
    let server = ObjectServer::start_with(Kind::S3, Some(&certificates))?;
    let others = Certificates::new()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut target = server.target("p");
        store(&target)?
            .put("a", Bytes::from("1"), &Metadata::new())
            .await?;
        target["sub"]["ca_file"] = others.ca.display().to_string().into();
        let refused = store(&target)?.get("a", 9).await.err().context("trusted")?;
        ensure!(refused.to_string().contains("ca_file"), "{refused}");
        Ok(())
    })
}

#[test]
fn wrong_credentials_and_a_missing_bucket_are_told() -> Result<()> {
    run(Kind::S3, async |server| {
        let mut target = server.target("p");
        target["sub"]["bucket"] = "nothing-here".into();
        let error = store(&target)?
            .put("a", Bytes::from("1"), &Metadata::new())
            .await;
        let error = error.err().context("a bucket appeared")?.to_string();
        ensure!(
            error.contains("p/a") && error.contains("nothing-here"),
            "{error}"
        );
        let mut target = server.target("p");
        target["sub"]["secret_access_key"] = "a-wrong-secret".into();
        let error = store(&target)?
            .put("a", Bytes::from("1"), &Metadata::new())
            .await;
        let error = error.err().context("let in")?;
        ensure!(error.kind == Failure::Denied, "{error}");
        let error = error.to_string();
        ensure!(
            error.contains("credentials") && !error.contains("a-wrong-secret"),
            "{error}"
        );
        Ok(())
    })
}
