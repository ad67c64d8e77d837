//! All scenarios. Numbers are those of the operator's list; letters are figures (F) and additional cases (A:
//! addresses, B: backups and archives, E: everywhere, H: manual recovery, M: machines, N:
//! nobody gets in who should not, P: reaping, R: recovery, S: scaling, T: what
//! the status says, U: updates, X: deletion and installations).
use anyhow::{Context, Result, ensure};

use crate::{
    again, backups, clones, disruption, drills, edits, figures, fixture::Fixture, in_place,
    intruders, issuer, large, lifecycle, loss, manual_recovery, moved, operator, own, pods,
    protection, reaping, recovery, report::Measurements, scaling, security, storage, truthful,
    updates,
};

/// The body of a scenario.
pub(crate) type Work = fn(&Fixture) -> Result<Measurements>;

/// Execution a scenario is run.
pub(crate) enum Execution {
    /// In parallel with others: it affects nothing outside its namespace.
    Parallel(Work),
    /// On its own: it kills operators or affects machines.
    Exclusive(Work),
    /// On its own, and only if it is named: it takes long, and much room.
    OnDemand(Work),
    /// By another test: a file of this repository in backquotes, and the test or property there.
    Elsewhere(&'static str),
}

/// A row of the table.
pub(crate) struct Scenario {
    pub(crate) number: &'static str,
    pub(crate) name: &'static str,
    /// Whether it is part of the default selection.
    pub(crate) is_quick: bool,
    pub(crate) execution: Execution,
}

const fn scenario(
    number: &'static str,
    name: &'static str,
    is_quick: bool,
    execution: Execution,
) -> Scenario {
    Scenario {
        number,
        name,
        is_quick,
        execution,
    }
}

const fn quick(number: &'static str, name: &'static str, work: Work) -> Scenario {
    scenario(number, name, true, Execution::Parallel(work))
}

const fn parallel(number: &'static str, name: &'static str, work: Work) -> Scenario {
    scenario(number, name, false, Execution::Parallel(work))
}

const fn exclusive(number: &'static str, name: &'static str, work: Work) -> Scenario {
    scenario(number, name, false, Execution::Exclusive(work))
}

const fn on_demand(number: &'static str, name: &'static str, work: Work) -> Scenario {
    scenario(number, name, false, Execution::OnDemand(work))
}

const fn elsewhere(number: &'static str, name: &'static str, reference: &'static str) -> Scenario {
    scenario(number, name, false, Execution::Elsewhere(reference))
}

/// In the order of the table.
#[rustfmt::skip]
pub(crate) const ALL: &[Scenario] = &[
    quick("F1", "the smallest sample applied, until Ready", figures::smallest_sample),
    parallel("F2", "the leader's pod deleted, 20 rounds", figures::leader_deletions),
    exclusive("1", "created while names do not resolve, a pod lost meanwhile", lifecycle::forms_without_names),
    parallel("2", "created with 1, 2, 5 voters; edited 3→5→3 while forming", lifecycle::forms_in_all_sizes),
    exclusive("2a", "five voters on three machines, corrected to three before they form", lifecycle::forms_with_fewer),
    exclusive("2b", "five voters on three machines, required anti-affinity relaxed before they form", lifecycle::forms_when_relaxed),
    parallel("3", "the leader's process killed", disruption::leader_killed),
    quick("4", "the leader's pod deleted", disruption::leader_deleted),
    parallel("5", "all pods deleted at once", disruption::all_deleted),
    exclusive("6", "all pods and the operator deleted together", disruption::all_deleted_with_the_operator),
    exclusive("7", "operator killed at each step of 3→4→3", scaling::operator_killed_while_scaling),
    parallel("8", "voters 3→5→3→1→3", scaling::up_and_down),
    parallel("S1", "voters 5→1 and 1→5, each in one edit", scaling::five_to_one_and_back),
    parallel("S2", "voters 5→3→5, four times: what is parked", again::parked_copies),
    exclusive("9", "5→1 in one edit with a follower down", scaling::shrinks_only_while_a_quorum_stays),
    parallel("10", "scaled down when the victim leads", scaling::leader_leaves),
    elsewhere("11", "removal commits but the reply is lost", "`operator/tests/model.rs`: replies are lost and actions arrive late, at random"),
    exclusive("12", "scaled down when the victim does not run", scaling::absent_victim_leaves_first),
    quick("13", "a follower's, then the leader's volume and pod lost", loss::one_disk),
    exclusive("14", "a wiped disk while the member with the last writes is down", loss::wiped_disk_grants_no_vote),
    parallel("15a", "two of three volumes lost, the third pod stays up", loss::two_disks_survivor_runs),
    parallel("15b", "two of three volumes lost, all restart together", loss::two_disks_all_restart),
    quick("16a", "15 and a recovery, the leader survives", recovery::leader_survives),
    parallel("16b", "15 and a recovery, a follower survives", recovery::follower_survives),
    exclusive("17", "15 with a read replica that is newer than the survivor", recovery::read_replica_is_newer),
    exclusive("18", "of five, two volumes lost and one voter waits for its machine", loss::two_of_five_lost_one_waits),
    elsewhere("19", "operator cut off from all nodes, the API server is there", "`operator/src/cluster/facts/quorum/tests.rs`: all_cut_off_is_not_knowing (network policies are not enforced here)"),
    exclusive("20", "the leader's machine cut off the network for 45 s", disruption::leaders_machine_cut),
    exclusive("21", "operator killed at each step of a recovery, and the survivor's pod", recovery::operator_killed_at_each_step),
    exclusive("22", "a machine with old data returns after a recovery", recovery::old_machine_returns),
    parallel("23", "a recovery requested while a leader exists", recovery::leader_exists),
    parallel("24", "rolled to an image that does not exist, corrected", updates::bad_image),
    parallel("25", "rolled to settings with which no node starts, corrected", updates::node_that_cannot_start),
    quick("26", "rolled to another image", updates::rolls),
    exclusive("27", "rolled while a member is down", updates::rolls_with_one_down),
    exclusive("28", "operator upgraded, its default image changed", updates::new_operator_restarts_no_database),
    exclusive("29a", "the leader's machine cordoned under a writer", disruption::leaders_machine_cordoned),
    exclusive("29", "two machines drained at once", disruption::two_machines_drained),
    parallel("30", "the disruption budget during 5→3", scaling::budget_stays_until_it_is_done),
    parallel("31", "volumes grow while stopped: pods restarted one by one", storage::volumes_grow_when_stopped),
    parallel("31b", "volumes grow in use: no pod restarted", storage::volumes_grow_in_use),
    elsewhere("32", "bad input: shrink, class, long name, 12 voters, …", "`e2e/operator/tests/rules.rs`: every rule against a real API server"),
    exclusive("33", "an object that cannot be read", edits::unreadable),
    parallel("34", "foreign changes: StatefulSet scaled, state file edited, Service gone", edits::conflicting),
    elsewhere("35", "API server gone, 410, 429, 409", "`e2e/operator/tests/api_server_away.rs`: a real API server that becomes unavailable, loses its history, rejects requests and reports conflicts"),
    exclusive("36", "two operators, the first one paused and resumed", operator::two_operators),
    elsewhere("39", "a disk full, on a follower and on the leader", "`e2e/tests/bad_disk.rs`: a_disk_that_fills_up_loses_nothing (real processes, no operator)"),
    parallel("40", "a member that is repeatedly killed for lack of memory", updates::too_little_memory),
    parallel("41", "hibernated and woken", lifecycle::hibernates),
    parallel("42", "deleted: Delete, leaderless, protected, paused with Retain", lifecycle::is_deleted),
    parallel("43", "created again over retained volumes; adopted", lifecycle::is_recreated),
    parallel("45", "read replicas 0→5→1, one killed, then an autoscaler's", scaling::read_replicas),
    elsewhere("46", "clocks jump", "`operator/src/cluster/deciders/reap/tests.rs`: a_kept_reader_only_by_the_leaders_own_clock; `operator/src/lease.rs`: silence_is_counted_from_the_last_change"),
    elsewhere("47", "many clusters, operator restarted", "`e2e/operator/src/fleet.rs`: `cargo run -p e2e-operator --bin fleet`, 200 clusters with simulated machines"),
    parallel("50", "all volumes lost", loss::all_disks),
    parallel("U2", "a stalled update taken back on request", updates::taken_back_on_request),
    parallel("U3", "a stalled update taken back by policy", updates::taken_back_by_policy),
    parallel("U4", "rolled and scaled with management Manual", updates::waits_for_approval),
    parallel("U1", "restarted on request", updates::restarts_on_request),
    parallel("R1", "three of five volumes lost, recovery", recovery::three_of_five),
    exclusive("R2", "the survivor's machine drained during a recovery", recovery::survivors_machine_drained),
    exclusive("R3", "a recovery requested while the majority is only cut off", loss::majority_cut_off),
    on_demand("D10", "a database of 10 GiB: 3→5→3, rolled, a member replaced, recovered", large::everything),
    parallel("R4", "automatic recovery, enabled beforehand", recovery::automatic),
    parallel("R5", "a recovery looked at twice, then carried out", again::dry_runs),
    parallel("R6", "recovered automatically, deleted, created again, recovered automatically", again::automatic_after_deletion),
    exclusive("H1", "a survivor recovered manually by peers.json, accepted by annotation", manual_recovery::recovered),
    parallel("B1", "a schedule of backups with retention; each object in the bucket fetched and checked", backups::scheduled),
    parallel("B2", "restored at bootstrap: from a backup, and from an archive at a time", backups::bootstrapped),
    parallel("B3", "restored in place under a writer, and taken back", in_place::restored),
    parallel("B4", "cloned by the plugin at a time", clones::by_the_plugin),
    parallel("B5", "a drill, then a damaged archive", drills::proven_then_damaged),
    parallel("B6", "all volumes lost, the archive is there: one object", clones::after_all_volumes_are_lost),
    parallel("B7", "the object store away for two minutes", in_place::store_away),
    parallel("E1", "ephemeral: a follower's and the leader's pod lost, then all updated", pods::ephemeral),
    parallel("E2", "a sidecar, an init container, a volume and Service settings", pods::additions),
    parallel("E3", "users and groups that the image does not know", pods::foreign_users),
    elsewhere("E4", "IPv6 only, and both IP families", "`e2e/tests/cluster_ipv6.rs` (real processes); `e2e/operator/tests/everywhere.rs` (objects)"),
    elsewhere("E5", "sidecars that accept and reset connections", "`e2e/tests/sidecars.rs`: nodes behind such proxies (real processes)"),
    parallel("T1", "kubectl wait right after an edit, twice", truthful::wait_after_edit),
    parallel("T2", "leadership transferred five times: status, label, Service", truthful::follows_the_leader),
    parallel("T3", "calm for three minutes: no write", truthful::calm),
    parallel("T4", "thousands of writes a second: Ready stays true", truthful::under_load),
    parallel("O1", "a ready pod with the cluster's labels serves rubbish", own::stray_pod),
    parallel("O2", "deleted with its claims, a clone of one remains", own::clones_remain),
    parallel("O3", "deleted while its StatefulSet is recreated", own::deleted_amid_growth),
    parallel("A1", "moved to another namespace with its volumes, adopted", moved::adopted),
    parallel("A2", "the same, no leader: mode RewriteAddresses", moved::rewritten),
    exclusive("M1", "the leader's machine lost for good, its volume pinned to it", loss::pinned_to_a_lost_machine),
    parallel("X1", "protected: deleted with every cascade, with its namespace, ten times at the last moment", protection::is_refused),
    exclusive("X2", "protected, without admission policies: deleted in the foreground", protection::without_policies),
    elsewhere("X3", "two installations, of one class and of two", "`e2e/operator/tests/installations.rs`: each cluster is managed by one installation"),
    exclusive("X4", "the operator uninstalled with a running cluster, installed again", again::installed_again),
    exclusive("X5", "the operator's release upgraded and rolled back", again::operator_rolled_back),
    quick("N1", "the smallest sample with TLS and users until Ready, written to over TLS", security::smallest_sample),
    parallel("N2", "every certificate and every password exchanged under a writer", security::rotations),
    parallel("N3", "pods of two namespaces without or with forged certificates and passwords get nowhere", intruders::get_nowhere),
    parallel("N4", "a cluster without TLS and users moves to both, and back", security::moves_there_and_back),
    parallel("N5", "each of the cluster's Secrets deleted by hand", security::deleted_secrets),
    parallel("N6", "certificates of cert-manager, renewed by it", issuer::issued_and_renewed),
    elsewhere("N7", "NetworkPolicies of a new cluster", "`operator/src/cluster/render/build/tests.rs`: a_new_cluster_is_closed_to_other_namespaces (the objects: no engine enforces them here, as this kernel has no nftables queue, CONFIG_NFT_QUEUE, which kube-network-policies needs)"),
    parallel("P1", "an unknown voter, then an unknown reader joins", reaping::unknown_member),
    parallel("P2", "a surplus voter without a pod; a read-only node gone", reaping::without_a_pod),
];

/// Checks that the files named by a row exist.
pub(crate) fn exists(reference: &str) -> Result<()> {
    let files = reference.split('`').skip(1).step_by(2);
    for file in files.filter(|word| word.ends_with(".rs")) {
        let path = e2e_operator::root().join(file);
        ensure!(path.is_file(), "{file} is not there");
        let text = std::fs::read_to_string(&path).with_context(|| file.to_owned())?;
        ensure!(!text.is_empty(), "{file} is empty");
    }
    Ok(())
}
