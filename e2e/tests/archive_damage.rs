//! Damaged archives: truncated, changed, missing, exchanged and foreign objects are refused with their names,
//! and nothing half-restored is left anywhere. The archiving node killed at any step leaves a sound one.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    archive::{self, Archive, content, ensure_equal},
    cluster::Cluster,
    fault::workload::{NUMBERED_TABLE, Shared, write_numbered},
    membership::cluster_id,
    process::{Node, PROCESS_LIMIT},
    seed::Seed,
    servers::{Tool, present},
    wait,
};
use serde_json::{Value, json};

/// Kills of the archiving node in one run.
const KILLS: usize = 20;
/// How long a restore in place of a small database may take.
const RESTORE_LIMIT: Duration = Duration::from_secs(60);

fn often() -> Value {
    json!({"every": "100ms", "base_interval": "1h"})
}

/// A node that keeps this archive: a base of a table with `name` in it, and then some segments.
fn write_some(archive: &Archive, name: &str, rounds: u64) -> Result<Cluster> {
    let mut cluster = Cluster::start(1)?;
    for sql in [
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)".to_owned(),
        format!("INSERT INTO t(b) VALUES('{name}')"),
    ] {
        cluster.client(0).execute(&sql, &[])?;
    }
    cluster[0].stop()?;
    cluster[0].args.extend(archive.flags());
    cluster[0].start_and_ready()?;
    archive::await_archived(&mut cluster)?;
    for round in 0..rounds {
        write_round(&mut cluster, round)?;
    }
    Ok(cluster)
}

/// One segment more.
fn write_round(cluster: &mut Cluster, round: u64) -> Result<()> {
    let text = format!("round {round} {}", "x".repeat(300));
    cluster
        .client(0)
        .execute("INSERT INTO t(b) VALUES(?)", &[json!(text)])?;
    archive::await_archived(cluster).map(|_| ())
}

/// What is done to an archive, and the object that a refusal must name.
type Damage = (&'static str, fn(&Archive, &Archive) -> Result<String>);

fn segment(archive: &Archive, from_end: usize) -> Result<PathBuf> {
    let mut segments = archive.objects("segments/")?;
    segments.reverse();
    segments.into_iter().nth(from_end).context("few segments")
}

fn base(archive: &Archive, extension: &str) -> Result<PathBuf> {
    let mut bases = archive.objects("bases/")?;
    bases.retain(|path| path.extension().is_some_and(|found| found == extension));
    bases.pop().context("no base")
}

fn truncate(file: &Path) -> Result<()> {
    let bytes = fs::read(file)?;
    Ok(fs::write(file, &bytes[..bytes.len() * 2 / 3])?)
}

fn flip(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file)?;
    let at = bytes.len() * 2 / 3;
    bytes[at] ^= 4;
    Ok(fs::write(file, bytes)?)
}

/// The objects of this kind and what becomes of them; `other` is another cluster's archive.
fn damages() -> Vec<Damage> {
    vec![
        ("a truncated segment", |archive, _| {
            let file = segment(archive, 2)?;
            truncate(&file)?;
            Ok(archive.name(&file))
        }),
        ("an empty segment", |archive, _| {
            let file = segment(archive, 2)?;
            fs::write(&file, "")?;
            Ok(archive.name(&file))
        }),
        ("a segment with another bit", |archive, _| {
            let file = segment(archive, 2)?;
            flip(&file)?;
            Ok(archive.name(&file))
        }),
        ("a missing segment", |archive, _| {
            let file = segment(archive, 2)?;
            fs::remove_file(&file)?;
            Ok(archive.name(&file))
        }),
        ("two exchanged segments", |archive, _| {
            let (one, other) = (segment(archive, 1)?, segment(archive, 2)?);
            let third = archive.scratch().join("third");
            fs::rename(&one, &third)?;
            fs::rename(&other, &one)?;
            fs::rename(&third, &other)?;
            Ok(archive.name(&other))
        }),
        ("another cluster's segment", |archive, other| {
            let file = segment(archive, 1)?;
            fs::copy(segment(other, 1)?, &file)?;
            Ok(archive.name(&file))
        }),
        ("a truncated base", |archive, _| {
            let file = base(archive, "db")?;
            truncate(&file)?;
            Ok(archive.name(&file))
        }),
        ("a base with another bit", |archive, _| {
            let file = base(archive, "db")?;
            flip(&file)?;
            Ok(archive.name(&file))
        }),
        ("a missing base", |archive, _| {
            let file = base(archive, "db")?;
            fs::remove_file(&file)?;
            Ok(archive.name(&file))
        }),
        ("another cluster's base", |archive, other| {
            let file = base(archive, "db")?;
            fs::copy(base(other, "db")?, &file)?;
            Ok(archive.name(&file))
        }),
        ("a truncated document of a base", |archive, _| {
            let file = base(archive, "json")?;
            truncate(&file)?;
            Ok(archive.name(&file))
        }),
        ("another cluster's document of a base", |archive, other| {
            let file = base(archive, "json")?;
            fs::copy(base(other, "json")?, &file)?;
            Ok(archive.name(&file))
        }),
        ("a timeline that is no JSON", |archive, _| {
            let file = archive.objects("timeline.json")?.pop().context("none")?;
            fs::write(&file, "{\"format\":1,")?;
            Ok(archive.name(&file))
        }),
    ]
}

/// A restore is refused, names the object, and leaves nothing.
fn refused(archive: &Archive, name: &str) -> Result<String> {
    let dir = tempfile::tempdir_in(archive.scratch())?;
    let file = dir.path().join("out.sqlite");
    let text = archive.refusal(&["restore", "-output", &file.to_string_lossy()])?;
    ensure!(text.contains(name), "{name} is not named: {text}");
    let left: Vec<_> = fs::read_dir(dir.path())?.flatten().collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(text)
}

fn damage_everything(archive: &Archive, other: &Archive) -> Result<()> {
    archive.verify(true)?;
    for (what, damage) in damages() {
        let copy = archive.copied()?;
        let name = damage(&copy, other).context(what)?;
        let text = refused(&copy, &name).context(what)?;
        println!("{what}: {}", text.trim());
        let text = copy.refusal(&["verify"]).context(what)?;
        ensure!(
            text.contains(&name),
            "{what}: verify does not name {name}: {text}"
        );
    }
    Ok(())
}

#[test]
fn damaged_objects_are_refused_by_name() -> Result<()> {
    let archive = Archive::in_folder(&often())?;
    let other = Archive::in_folder(&often())?;
    drop(write_some(&archive, "this", 5)?);
    drop(write_some(&other, "another", 5)?);
    damage_everything(&archive, &other)
}

#[test]
fn encrypted_objects_are_refused_by_name_too() -> Result<()> {
    let mut archive = Archive::in_folder(&often())?;
    archive.set_keys(&key_line("k1", 1))?;
    drop(write_some(&archive, "this", 5)?);
    // Another cluster's objects with the same key, and with another one of the same name.
    for seed in [1, 2] {
        let mut other = Archive::in_folder(&often())?;
        other.set_keys(&key_line("k1", seed))?;
        drop(write_some(&other, "another", 5)?);
        damage_everything(&archive, &other)?;
    }
    // Even with the right key, no letter of a document may be another one.
    for kind in ["bases/", "segments/", "timeline.json"] {
        let copy = archive.copied()?;
        let file = copy.objects(kind)?.pop().context("no object")?;
        flip(&file)?;
        refused(&copy, &copy.name(&file))?;
    }
    Ok(())
}

#[test]
fn a_lost_end_is_noticed_if_the_manifest_promised_it() -> Result<()> {
    let archive = Archive::in_folder(&often())?;
    let mut cluster = write_some(&archive, "this", 4)?;
    // It is written now and then, and at the beginning of a leadership.
    cluster[0].stop()?;
    cluster[0].start_and_ready()?;
    let last = archive::await_archived(&mut cluster)?["archived_index"].as_u64();
    let promised = wait::until("the manifest", PROCESS_LIMIT, || {
        let read = || -> Result<Value> {
            let file = archive.objects("manifest.json")?.pop().context("none")?;
            Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
        };
        let manifest = read().map_err(|e| e.to_string())?;
        match manifest["archived_index"].as_u64() {
            Some(index) if Some(index + 2) >= last => Ok(index),
            _ => Err(manifest.to_string()),
        }
    })?;
    drop(cluster);
    let mut removed = None;
    for file in archive.objects("segments/")?.into_iter().rev() {
        fs::remove_file(&file)?;
        let first = file
            .file_name()
            .context("no name")?
            .to_string_lossy()
            .parse::<u64>()?;
        removed = Some(archive.name(&file));
        if first <= promised {
            break;
        }
    }
    let text = refused(&archive, &removed.context("no segments")?)?;
    println!("{text}");
    Ok(())
}

#[test]
fn a_real_store_with_damaged_objects() -> Result<()> {
    if !present(&[Tool::VersityGw])? {
        return Ok(());
    }
    let archive = Archive::in_s3(&often())?;
    let mut cluster = write_some(&archive, "this", 5)?;
    archive.verify(true)?;
    let before = archive::live(&cluster, 0, &archive.scratch().join("before"))?;
    let before = content(&before)?;
    for (what, damage) in [
        ("flipped", flip as fn(&Path) -> Result<()>),
        ("truncated", truncate),
        ("missing", |file| Ok(fs::remove_file(file)?)),
    ] {
        for file in [segment(&archive, 2)?, base(&archive, "db")?] {
            let good = fs::read(&file)?;
            damage(&file)?;
            let name = archive.name(&file);
            println!("{what}: {}", refused(&archive, &name)?.trim());
            let state = restore_in_place(&mut cluster)?;
            ensure!(
                state["state"] == "failed" && state["message"].to_string().contains(&name),
                "{what}: {state}"
            );
            fs::write(&file, good)?;
        }
    }
    let after = archive::live(&cluster, 0, &archive.scratch().join("after"))?;
    ensure_equal("after refused restores", &before, &content(&after)?)?;
    write_round(&mut cluster, 9)?;
    archive.verify(true)?;
    Ok(())
}

/// Asks for a restore to the end of the archive as it is, and returns how it ended.
fn restore_in_place(cluster: &mut Cluster) -> Result<Value> {
    let mut client = cluster.client(0);
    let id = cluster_id(&cluster[0])?;
    let index = archive::status(cluster)?["archived_index"].clone();
    let body = json!({"to_index": index, "confirm": id});
    let reply = client.post("/archive/restore", &body.to_string())?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    wait::until("the end of the restore", RESTORE_LIMIT, || {
        let state = client
            .get_json("/archive/restore")
            .map_err(|e| e.to_string())?;
        if state["state"] == "running" {
            return Err(state.to_string());
        }
        Ok(state)
    })
}

/// A new node with `-auto-restore` from this archive.
fn restoring_node(archive: &Archive) -> Result<Node> {
    let config = archive.auto_restore(&json!({}))?;
    let flag = format!("-auto-restore={}", config.display());
    Ok(Node::new("new")?.with(&[&flag]))
}

#[test]
fn auto_restore_begins_with_everything_or_not_at_all() -> Result<()> {
    let archive = Archive::in_folder(&often())?;
    let other = Archive::in_folder(&often())?;
    let cluster = write_some(&archive, "this", 5)?;
    let before = archive::live(&cluster, 0, &archive.scratch().join("before"))?;
    let before = content(&before)?;
    drop(cluster);
    drop(write_some(&other, "another", 5)?);
    for (what, damage) in damages() {
        if ![
            "another bit",
            "missing",
            "no JSON",
            "another cluster's segment",
        ]
        .iter()
        .any(|kind| what.contains(kind))
        {
            continue;
        }
        let copy = archive.copied()?;
        let name = damage(&copy, &other)?;
        let mut node = restoring_node(&copy)?;
        node.start()?;
        let status = node.wait_exit(PROCESS_LIMIT).context(what)?;
        let log = node.log();
        ensure!(!status.success(), "{what}: it ended well");
        ensure!(log.contains(&name), "{what}: {name} is not named: {log}");
        node.quiet = true;
        // The same directory, with the objects as they were: everything is there, once.
        let mut whole = restoring_node(&archive)?;
        std::mem::swap(&mut whole.data, &mut node.data);
        whole.start_and_ready()?;
        let whole = Cluster::of(vec![whole]);
        let after = archive::live(&whole, 0, &archive.scratch().join("after"))?;
        ensure_equal(what, &before, &content(&after)?)?;
    }
    Ok(())
}

fn key_line(id: &str, seed: u8) -> String {
    use base64::Engine as _;
    let mut seed = Seed::new(u64::from(seed));
    let key: Vec<u8> = (0..4).flat_map(|_| seed.next_u64().to_le_bytes()).collect();
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    format!("{id} {key}\n")
}

/// Everything below a directory that contains one of these words, or is not encrypted.
fn readable(archive: &Archive, words: &[&str]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for file in archive.objects("")? {
        let bytes = fs::read(&file)?;
        let name = archive.name(&file);
        if !bytes.starts_with(b"RQSEALED") {
            found.push(format!("{name} is not encrypted"));
        }
        for word in words {
            if memchr::memmem::find(&bytes, word.as_bytes()).is_some() {
                found.push(format!("{name} has {word}"));
            }
        }
    }
    Ok(found)
}

#[test]
fn a_reader_of_the_bucket_learns_nothing_and_keys_can_be_exchanged() -> Result<()> {
    if !present(&[Tool::VersityGw])? {
        return Ok(());
    }
    let mut archive = Archive::in_s3(&often())?;
    archive.set_keys(&key_line("old", 1))?;
    let mut cluster = write_some(&archive, "this", 2)?;
    let marker = format!("{:x}{:x}", Seed::arbitrary(), Seed::arbitrary());
    cluster
        .client(0)
        .execute("INSERT INTO t(b) VALUES(?)", &[json!(marker)])?;
    archive::await_archived(&mut cluster)?;
    let id = cluster_id(&cluster[0])?;
    let words = [
        marker.as_str(),
        "CREATE TABLE",
        "SQLite format",
        "sqlite",
        &id,
    ];
    ensure!(
        readable(&archive, &words)?.is_empty(),
        "{:?}",
        readable(&archive, &words)?
    );
    // The search does find what is in clear: the same database in an archive without keys.
    let plain = Archive::in_folder(&often())?;
    drop(write_some(&plain, "plain", 1)?);
    ensure!(
        readable(&plain, &["sqlite"])?.len() > 3,
        "a search that finds nothing"
    );

    exchange_keys(&mut archive, &mut cluster)?;
    wrong_keys(&mut archive)?;
    // An archive in clear is not believed where a key is given: anybody could have written it.
    let mut plain = plain;
    plain.set_keys(&key_line("new", 2))?;
    let text = plain.refusal(&["verify"])?;
    ensure!(text.contains("allow-plain"), "in clear: {text}");
    Ok(())
}

/// From now on with a new key, which comes first in the file.
fn exchange_keys(archive: &mut Archive, cluster: &mut Cluster) -> Result<()> {
    archive.set_keys(&(key_line("new", 2) + &key_line("old", 1)))?;
    cluster[0].stop()?;
    cluster[0].start_and_ready()?;
    write_round(cluster, 7)?;
    write_round(cluster, 8)?;
    let live = archive::live(cluster, 0, &archive.scratch().join("live"))?;
    let restored = archive.restore(&[])?;
    ensure_equal("both keys", &content(&live)?, &content(&restored.open()?)?)?;
    archive.verify(true)?;
    let newest = fs::read(segment(archive, 0)?)?;
    ensure!(
        newest.starts_with(b"RQSEALED\x01\x03new"),
        "not the new key"
    );
    Ok(())
}

/// What is said where a key is missing, is another one, or none is given.
fn wrong_keys(archive: &mut Archive) -> Result<()> {
    let oldest = archive.objects("timeline.json")?.pop().context("none")?;

    for (what, keys, wants) in [
        (
            "without the old key",
            key_line("new", 2),
            ["\"old\"", "add that key"],
        ),
        (
            "another key of the same name",
            key_line("new", 2) + &key_line("old", 9),
            ["\"old\"", "cannot be decrypted"],
        ),
    ] {
        archive.set_keys(&keys)?;
        let text = refused(archive, &archive.name(&oldest))?;
        println!("{what}: {text}");
        ensure!(
            wants.iter().all(|want| text.contains(want)),
            "{what}: {text}"
        );
    }
    archive.forget_keys();
    let text = refused(archive, &archive.name(&oldest))?;
    ensure!(text.contains("key file"), "no key: {text}");
    Ok(())
}

#[test]
fn the_archiving_node_is_killed_at_any_step() -> Result<()> {
    if !present(&[Tool::VersityGw])? {
        return Ok(());
    }
    let first = Seed::arbitrary();
    println!("seed {first}");
    let mut seed = Seed::new(first);
    let archive =
        Archive::in_s3(&json!({"every": "100ms", "segment_bytes": 3000, "base_interval": "1s"}))?;
    let flags = archive.flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.push("-raft-snap=100");
    let mut cluster = Cluster::start_with(3, &flags)?;
    cluster.client(0).execute(NUMBERED_TABLE, &[])?;
    let shared = &Shared::new(cluster.iter().map(|node| node.http.clone()).collect());
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let seed = seed.fork();
            scope.spawn(move || write_numbered(shared, writer, seed));
        }
        let killed = (0..KILLS).try_for_each(|_| {
            wait::sleep(Duration::from_millis(seed.below(900)));
            let leader = cluster.leader()?;
            cluster[leader].kill()?;
            wait::sleep(Duration::from_millis(seed.below(100)));
            cluster[leader].start_and_answer()
        });
        shared.stop();
        killed
    })?;
    let last = archive::await_archived(&mut cluster)?;
    println!("{last:#}");
    ensure!(last["gap"].is_null(), "a gap: {last}");
    let verified = archive.verify(true)?;
    println!("{verified:#}");
    let timeline = &verified["timelines"][0];
    ensure!(
        verified["timelines"]
            .as_array()
            .is_some_and(|all| all.len() == 1)
    );
    ensure!(
        timeline["entries"].as_u64().context("entries")?
            == timeline["to_index"].as_u64().context("to")?
                - timeline["from_index"].as_u64().context("from")?,
        "a gap or a fork: {timeline}"
    );
    let leader = cluster.leader()?;
    let live = archive::live(&cluster, leader, &archive.scratch().join("live"))?;
    let restored = archive.restore(&[])?;
    ensure_equal(
        "the live node",
        &content(&live)?,
        &content(&restored.open()?)?,
    )?;
    cluster.check_no_panic()
}
