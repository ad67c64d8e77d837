//! A large SQL dump loaded into three nodes: equal on all of them, also after crashes and on a node that
//! joins by snapshot.
//!
//! `DUMP_MB` sets the size in MB (default 20; 200 and more by hand).
use std::{env, fs::File, io::BufWriter, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::{
    client::Client,
    cluster::Cluster,
    dump::{self, Counts},
    process::Node,
    wait,
};

/// Generous, for loading and comparing some hundred megabytes in a debug build.
const LARGE_LIMIT: Duration = Duration::from_secs(600);
/// Determines the dump's content.
const SEED: u64 = 20_260_101;

fn patient(node: &Node) -> Client {
    node.client().timeout(LARGE_LIMIT)
}

#[test]
fn a_large_dump_is_equal_everywhere() -> Result<()> {
    let megabytes: u64 = env::var("DUMP_MB")
        .ok()
        .map_or(Ok(20), |text| text.parse())
        .context("DUMP_MB")?;
    let mut cluster = Cluster::start(3)?;
    let path = cluster[0].scratch().join("dump.sql");
    let mut out = BufWriter::new(File::create(&path)?);
    let counts = dump::generate(&mut out, megabytes << 20, SEED)?;
    drop(out);
    let follower = cluster.follower()?;
    let reply = patient(&cluster[follower]).send_from(
        "POST",
        "/db/load",
        &[],
        &mut File::open(&path)?,
        counts.bytes,
    )?;
    ensure!(
        reply.status == 200 && !reply.text().contains("error"),
        "load: {reply:?}"
    );
    println!("loaded {counts:?}");
    let leader = cluster.leader()?;
    check_content(&mut patient(&cluster[leader]), counts)?;
    let everywhere: Vec<usize> = (0..cluster.len()).collect();
    let sum = agreed_checksum(&mut cluster, &everywhere)?;
    for index in 0..3 {
        cluster[index].kill()?;
        cluster[index].start()?;
        cluster[index].wait_ready(LARGE_LIMIT)?;
        ensure!(
            agreed_checksum(&mut cluster, &[index])? == sum,
            "another database after a crash of node {index}"
        );
    }
    for node in cluster.iter() {
        let reply = patient(node).post("/snapshot?trailing_logs=1", "")?;
        ensure!(matches!(reply.status, 200 | 204), "snapshot: {reply:?}");
    }
    cluster.join(Node::new("4")?, 0)?;
    ensure!(
        agreed_checksum(&mut cluster, &[3])? == sum,
        "another database on the node that joined"
    );
    let leader = cluster.leader()?;
    patient(&cluster[leader]).execute("DELETE FROM article WHERE id=7", &[])?;
    ensure!(
        agreed_checksum(&mut cluster, &[leader])? != sum,
        "a write must change the checksum"
    );
    cluster.check_integrity()?;
    cluster.check_no_panic()
}

/// The checksum shared by these nodes, once the slowest has applied what the leader has.
fn agreed_checksum(cluster: &mut Cluster, asked: &[usize]) -> Result<u64> {
    cluster.agreed_rows("SELECT count(*), sum(length(body)) FROM article")?;
    wait::until("equal checksums", LARGE_LIMIT, || {
        // A dead node would never catch up.
        for node in cluster.iter_mut() {
            if !node.is_running() {
                return Ok(Err(anyhow!(
                    "node {} ended: {}",
                    node.name,
                    node.log_tail()
                )));
            }
        }
        let sums = asked
            .iter()
            .map(|&index| dump::checksum(&mut patient(&cluster[index])));
        let sums = sums
            .collect::<Result<Vec<u64>>>()
            .map_err(|error| format!("{error:#}"))?;
        if sums.iter().all(|sum| *sum == sums[0]) {
            Ok(Ok(sums[0]))
        } else {
            Err(format!("{sums:x?}"))
        }
    })?
}

fn check_content(client: &mut Client, counts: Counts) -> Result<()> {
    for (sql, expected) in [
        ("SELECT count(*) FROM author", counts.authors),
        ("SELECT count(*) FROM article", counts.articles),
        ("SELECT count(*) FROM tag", counts.tags),
        ("SELECT count(*) FROM audit", 1),
        (
            "SELECT count(*) FROM search WHERE search MATCH 'trigger'",
            1,
        ),
        ("SELECT count(*) FROM pragma_foreign_key_check", 0),
        (
            "SELECT count(*) FROM author WHERE json_extract(profile, '$.n.x')=1.25",
            counts.authors,
        ),
    ] {
        let seen = client.number("linearizable", sql)?;
        ensure!(
            u64::try_from(seen)? == expected,
            "{sql}: {seen}, not {expected}"
        );
    }
    Ok(())
}
