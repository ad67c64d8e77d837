//! Certificates and authorities are renewed every few seconds, under writers, on three nodes with TLS on both
//! ports: nothing that is in flight is dropped, nothing is lost.
//!
//! `TLS_RENEWAL_SECONDS` (default 20) says for how long.
use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    authority::{self, Authority, Leaf},
    client::{Client, WriteOutcome},
    cluster::{Cluster, SETTLE_LIMIT},
    fault::{self, workload},
    history::{self, NumberedWrite},
    mounted::Mounted,
    process::Node,
    wait,
};
use parking_lot::RwLock;
use rustls::ClientConfig;
use serde_json::{Value, json};

/// Pause between two steps of a renewal.
const EVERY: Duration = Duration::from_secs(5);
/// Pause of a writer between two writes: both cores are needed by three nodes in a debug build.
const PAUSE: Duration = Duration::from_millis(10);

/// What the clients trust, renewed like everything else.
type Trusted = RwLock<Arc<ClientConfig>>;

/// The certificates of all nodes, and who signs them.
struct Renewal {
    authorities: Vec<Authority>,
    mounted: Vec<Mounted>,
    leaves: u32,
}

impl Renewal {
    fn new(count: usize) -> Result<Self> {
        let authority = Authority::new("authority")?;
        let mounted = (0..count).map(|_| {
            Mounted::new(
                &authority.issue(&Leaf::for_loopback("member"))?,
                &[authority.pem()],
            )
        });
        let mounted = mounted.collect::<Result<_>>()?;
        Ok(Self {
            authorities: vec![authority],
            mounted,
            leaves: 0,
        })
    }

    /// The certificates of those that are trusted now.
    fn bundle(&self) -> String {
        self.authorities.iter().map(Authority::pem).collect()
    }

    fn config(&self) -> Result<Arc<ClientConfig>> {
        authority::client_config(&self.bundle(), None)
    }

    /// New leaves of the newest authority, and the present bundle, for every node at once.
    fn put(&mut self) -> Result<()> {
        let newest = self.authorities.last().context("no authority")?;
        let trusted: Vec<&str> = self.authorities.iter().map(Authority::pem).collect();
        for mounted in &mut self.mounted {
            self.leaves += 1;
            mounted.put(&newest.issue(&Leaf::for_loopback("member"))?, &trusted)?;
        }
        Ok(())
    }

    /// The same leaves' authority, and one more in the bundle: leaves of the former one until all trust it.
    fn trust_another(&mut self) -> Result<()> {
        let former = self.authorities.last().context("no authority")?;
        let next = Authority::new("authority")?;
        let trusted = [&self.bundle(), next.pem()].concat();
        for mounted in &mut self.mounted {
            self.leaves += 1;
            mounted.put(&former.issue(&Leaf::for_loopback("member"))?, &[&trusted])?;
        }
        self.authorities.push(next);
        Ok(())
    }
}

/// Both TLS parts of a node's `security`.
fn security(node: &Node) -> Result<[Value; 2]> {
    let status = node.client().get_json("/status")?;
    let security = &status["security"];
    Ok([security["node_tls"].clone(), security["http_tls"].clone()])
}

/// Waits until every node uses another leaf than before and trusts so many authorities on both ports.
fn await_taken(cluster: &Cluster, authorities: usize, before: &mut Vec<String>) -> Result<()> {
    let mut now = Vec::new();
    for node in cluster.iter() {
        let what = format!("new certificates at node {}", node.name);
        let leaves = wait::until(&what, SETTLE_LIMIT, || {
            let sides = security(node).map_err(|error| format!("{error:#}"))?;
            let taken = sides.iter().all(|side| {
                let leaf = side["leaf_sha256"].as_str().unwrap_or_default();
                let trusted = side["trusted_sha256"].as_array().map_or(0, Vec::len);
                trusted == authorities && !leaf.is_empty() && !before.iter().any(|old| old == leaf)
            });
            if taken {
                Ok(sides)
            } else {
                Err(format!("{sides:?}"))
            }
        })?;
        for side in leaves {
            ensure!(side["last_error"].is_null(), "{side}");
            now.push(side["leaf_sha256"].as_str().unwrap_or_default().to_owned());
        }
    }
    *before = now;
    Ok(())
}

/// Writes until told to stop. `kept`: over one connection; otherwise over a new one for each write.
fn write(
    writer: u64,
    addr: &str,
    kept: bool,
    trusted: &Trusted,
    stop: &AtomicBool,
) -> Vec<NumberedWrite> {
    let connect = || Client::new(addr).over_tls(Arc::clone(&trusted.read()), "localhost");
    let mut client = connect();
    let mut writes = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if !kept {
            client = connect();
        }
        let parameters = [json!(writer), json!(number), json!(format!("row {number}"))];
        let outcome = client.write("INSERT INTO numbered VALUES(?,?,?)", &parameters);
        writes.push(NumberedWrite {
            writer,
            number,
            outcome,
        });
        thread::sleep(PAUSE);
    }
    writes
}

/// One step after the other: another authority is trusted, it signs new leaves, the former one is forgotten.
fn renew(
    cluster: &Cluster,
    renewal: &mut Renewal,
    trusted: &Trusted,
    span: Duration,
) -> Result<u32> {
    let start = Instant::now();
    let mut seen = Vec::new();
    await_taken(cluster, 1, &mut seen)?;
    let mut steps = 0;
    while start.elapsed() < span || steps % 3 != 0 {
        let due = EVERY * (steps + 1);
        match steps % 3 {
            0 => renewal.trust_another()?,
            1 => renewal.put()?,
            _ => {
                renewal.authorities.remove(0);
                renewal.put()?;
            }
        }
        // A client that trusts less than before is a new client: its trust is reduced with the nodes'.
        *trusted.write() = renewal.config()?;
        await_taken(cluster, renewal.authorities.len(), &mut seen)?;
        steps += 1;
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(steps)
}

fn term(cluster: &Cluster) -> Result<Value> {
    let status = cluster.client(0).get_json("/status")?;
    Ok(status["store"]["raft"]["term"].clone())
}

#[test]
fn renewed_every_five_seconds_under_writers() -> Result<()> {
    let seconds = env::var("TLS_RENEWAL_SECONDS").map_or(Ok(20), |text| text.parse())?;
    let mut renewal = Renewal::new(3)?;
    let nodes = renewal.mounted.iter().enumerate().map(|(index, mounted)| {
        let mut node = Node::new(&(index + 1).to_string())?;
        node.args.extend(mounted.flags("node"));
        node.args.extend(mounted.flags("http"));
        // The test itself asks without TLS. Patient elections: a busy machine that pauses is not the subject.
        node.args.extend(
            [
                "-node-verify-client",
                "-http-tls-optional",
                "-raft-election-timeout=5s",
            ]
            .map(str::to_owned),
        );
        Ok(node)
    });
    let mut cluster = Cluster::of(nodes.collect::<Result<_>>()?);
    cluster.form()?;
    cluster.client(0).execute(workload::NUMBERED_TABLE, &[])?;
    let before = term(&cluster)?;
    let (trusted, stop) = (RwLock::new(renewal.config()?), AtomicBool::new(false));
    let addrs: Vec<String> = cluster.iter().map(|node| node.http.clone()).collect();
    let start = Instant::now();
    let (steps, writes) = thread::scope(|scope| {
        let (trusted, stop) = (&trusted, &stop);
        let writers: Vec<_> = (0..)
            .zip(addrs.iter().flat_map(|addr| [(addr, true), (addr, false)]))
            .map(|(writer, (addr, kept))| {
                scope.spawn(move || write(writer, addr, kept, trusted, stop))
            })
            .collect();
        let span = Duration::from_secs(seconds);
        let steps = renew(&cluster, &mut renewal, trusted, span);
        stop.store(true, Ordering::Relaxed);
        let mut writes = Vec::new();
        for writer in writers {
            let written = writer.join();
            writes.extend(written.map_err(|_| anyhow::anyhow!("a writer panicked"))?);
        }
        Ok::<_, anyhow::Error>((steps?, writes))
    })?;
    let tally = history::tally(&writes);
    println!(
        "{steps} steps, {} leaves, {:.0} s: {tally:?}",
        renewal.leaves,
        start.elapsed().as_secs_f64()
    );
    for (count, reason) in history::reasons(&writes).into_iter().take(8) {
        println!("{count:>6} {reason}");
    }
    ensure!(term(&cluster)? == before, "leadership changed");
    let failed = writes
        .iter()
        .find(|write| !matches!(write.outcome, WriteOutcome::Acknowledged(_)));
    ensure!(failed.is_none(), "{failed:?}");
    ensure!(writes.len() > 100, "only {} writes", writes.len());
    fault::verify_writes(&mut cluster, &writes)?;
    cluster.check_no_panic()
}
