//! Disruptions that happen in production, one after another to one cluster while a writer runs: no
//! acknowledged row may be lost, and the longest time without writes is printed.
//!
//! Needs a cluster, the images of `e2e/images` on it, `KUBECONFIG` and `E2E_KUBERNETES=1`; otherwise it is
//! skipped with a message. It cuts nodes off, drains them and restarts DNS, so it runs exclusively.
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use e2e_kubernetes::{
    access::Access,
    command::until,
    namespace::{LIMIT, Namespace},
    numbered::report::Report,
    plain::{COUNT, VOTERS, urls, voters},
    probe::Kubectl,
    provider::Provider,
    writer::Writer,
};

/// How long a node is off the network.
const CUT: Duration = Duration::from_secs(60);
/// Longer than any grace period after which an unreachable node counts as lost.
const LOST_LIMIT: Duration = Duration::from_secs(90);

/// A cluster with a writer, and the results so far.
struct Fixture<'a> {
    kubectl: &'a Kubectl,
    provider: &'a dyn Provider,
    namespace: &'a Namespace,
    writer: &'a Writer<'a>,
    /// The writer's node, which is not disrupted.
    home: String,
    table: Vec<String>,
}

impl Fixture<'_> {
    /// Disrupts the cluster, waits until it is healthy again, and records the time without writes. `limit`
    /// applies to that time: it is met on a busy machine, but not by a cluster that is stuck.
    fn after(
        &mut self,
        what: &str,
        limit: Duration,
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let start = Instant::now();
        work(self).map_err(|error| error.context(what.to_owned()))?;
        self.namespace.voters_ready(LIMIT)?;
        self.writer.await_progress(LIMIT)?;
        let whole = start.elapsed();
        let seen = self.writer.report(Some(start))?;
        self.note(what, &seen, whole);
        ensure!(
            seen.longest_gap_ms < limit.as_millis().try_into().unwrap_or(u64::MAX),
            "{what}: {seen}, more than {limit:?}"
        );
        Ok(())
    }

    fn note(&mut self, what: &str, seen: &Report, whole: Duration) {
        let line = format!(
            "{what:<34} {:>6} ms without writes, whole again after {:5.1} s",
            seen.longest_gap_ms,
            whole.as_secs_f64()
        );
        println!("{line}   {seen}");
        self.table.push(line);
    }

    fn leader(&self) -> Result<String> {
        until("a leader", LIMIT, || self.namespace.leader(&voters()))
    }

    /// The leader's pod and node, after moving leadership off the writer's node if necessary.
    fn leader_elsewhere(&self) -> Result<(String, String)> {
        let mut leader = self.leader()?;
        if self.namespace.node_of(&leader)? == self.home {
            leader = self.namespace.lead_elsewhere(&voters(), &leader)?;
        }
        let node = self.namespace.node_of(&leader)?;
        ensure!(node != self.home, "{leader} is beside the writer");
        Ok((leader, node))
    }

    fn delete(&self, args: &[&str]) -> Result<()> {
        self.namespace
            .run(&[&["delete", "pod", "--timeout=90s"], args].concat())
            .map(drop)
    }

    fn drain(&self, node: &str) -> Result<()> {
        let only = format!("--pod-selector=app.kubernetes.io/name={VOTERS}");
        let drained = self.kubectl.run(&[
            "drain",
            node,
            &only,
            "--delete-emptydir-data",
            "--timeout=90s",
        ]);
        // The pod stays Pending, because its volume is on that node; the others keep working.
        let written = self.writer.await_progress(LIMIT);
        self.kubectl.run(&["uncordon", node])?;
        drained?;
        written
    }

    fn cut(&self, node: &str) -> Result<()> {
        let start = Instant::now();
        self.provider.cut(node)?;
        let held = self.hold_cut(node, start);
        self.provider.heal(node)?;
        held?;
        self.node_is(node, "True")
    }

    fn hold_cut(&self, node: &str, start: Instant) -> Result<()> {
        self.writer.await_progress(LIMIT)?;
        self.node_is(node, "Unknown")?;
        // The sleep is the duration of the fault, not a wait for a condition.
        thread::sleep(CUT.saturating_sub(start.elapsed()));
        self.writer.await_progress(LIMIT)
    }

    fn node_is(&self, node: &str, state: &str) -> Result<()> {
        until(&format!("{node} to be Ready={state}"), LOST_LIMIT, || {
            let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
            let seen = self.kubectl.run(&["get", "node", node, "-o", path])?;
            ensure!(seen == state, "Ready={seen}");
            Ok(())
        })
    }

    /// A pod that lost its disk returns as a new member with its old name.
    fn lose_disk(&self, pod: &str) -> Result<()> {
        let claim = format!("data-{pod}");
        let volume = self
            .namespace
            .field(&format!("pvc/{claim}"), "{.spec.volumeName}")?;
        self.namespace
            .run(&["delete", "pvc", &claim, "--wait=false"])?;
        self.delete(&[pod])?;
        until("another volume", LIMIT, || {
            let seen = self
                .namespace
                .field(&format!("pvc/{claim}"), "{.spec.volumeName}")?;
            ensure!(
                !seen.is_empty() && seen != volume,
                "{seen:?}, before {volume:?}"
            );
            Ok(())
        })
    }

    fn roll(&self, image: &str) -> Result<()> {
        let set = format!("statefulset/{VOTERS}");
        self.namespace
            .run(&["set", "image", &set, &format!("rqlited={image}")])?;
        self.namespace.rolled_out(&set, LIMIT)
    }
}

/// The machines of the three pods; they must differ for cuts and drains to be meaningful.
fn machines(namespace: &Namespace) -> Result<Vec<String>> {
    let all: Vec<String> = voters()
        .iter()
        .map(|pod| namespace.node_of(pod))
        .collect::<Result<_>>()?;
    let distinct: BTreeSet<_> = all.iter().collect();
    ensure!(
        distinct.len() == COUNT,
        "one pod per node is needed: {all:?}"
    );
    Ok(all)
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens_to_pods_and_nodes() -> Result<()> {
    let Some(access) = Access::exclusive()? else {
        return Ok(());
    };
    let provider = access.provider()?;
    Namespace::within(&access.kubectl, "fixture", |namespace| {
        namespace.apply_plain("three-nodes.yaml")?;
        namespace.voters_ready(LIMIT)?;
        let home = machines(namespace)?.remove(0);
        let writer = Writer::start_on(namespace, &namespace.service_url()?, Some(&home))?;
        let mut fixture = Fixture {
            kubectl: &access.kubectl,
            provider: provider.as_ref(),
            namespace,
            writer: &writer,
            home,
            table: Vec::new(),
        };
        let happened = what_happens(&mut fixture);
        let table = fixture.table.join("\n");
        happened?;
        let outcome = writer.assert_nothing_lost(&urls())?;
        println!("\n{table}\n{outcome}");
        Ok(())
    })
}

fn what_happens(fixture: &mut Fixture<'_>) -> Result<()> {
    let seconds = Duration::from_secs;
    fixture.after("the leader's pod deleted", seconds(15), |fixture| {
        fixture.delete(&[&fixture.leader()?])
    })?;
    fixture.after(
        "the leader's pod deleted by force",
        seconds(20),
        |fixture| fixture.delete(&[&fixture.leader()?, "--grace-period=0", "--force"]),
    )?;
    fixture.after("all pods deleted at once", seconds(60), |fixture| {
        fixture.delete(&["--selector", "app.kubernetes.io/component=voter"])
    })?;
    fixture.after("the leader's node drained", seconds(15), |fixture| {
        let (_, node) = fixture.leader_elsewhere()?;
        fixture.drain(&node)
    })?;
    fixture.after(
        "the leader's node cut for a minute",
        seconds(20),
        |fixture| {
            let (_, node) = fixture.leader_elsewhere()?;
            fixture.cut(&node)
        },
    )?;
    fixture.after("DNS restarted", seconds(5), |fixture| {
        fixture.provider.restart_dns()
    })?;
    fixture.after("a follower's volume and pod lost", seconds(5), |fixture| {
        let leader = fixture.leader()?;
        let pod = voters().into_iter().find(|pod| *pod != leader);
        fixture.lose_disk(&pod.unwrap_or_default())
    })?;
    fixture.after("the leader's volume and pod lost", seconds(20), |fixture| {
        fixture.lose_disk(&fixture.leader()?)
    })?;
    fixture.after("the image rolled", seconds(15), |fixture| {
        fixture.roll("localhost/rqlited:next")
    })
}
