//! Walks through exchanges of certificates and authorities, with real ones: whatever is asked for, deleted or
//! broken, and however late each node reads its files, every node accepts every other one at every moment.
#![expect(
    clippy::unwrap_used,
    reason = "a walk that contradicts itself has failed"
)]
use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use operator_api::{
    cluster::CertificateSource,
    names,
    status::{TlsMode, TlsStage, TlsStatus},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rqlite_operator::{
    cluster::{
        Observation,
        action::Decision,
        deciders::tls,
        facts::{
            certificates::{AUTHORITIES, check, check_client, read_all, read_pair},
            secrets::{ObservedSecret, SecretBytes, SecretOwner},
            view::View,
        },
        plan,
        render::secrets::{PlannedSecret, Recipe},
    },
    secrets::Maker,
};
use serde_json::json;

const START: i64 = 1_800_000_000;
const DAY: i64 = 86_400;
const PODS: [&str; 3] = ["demo-0", "demo-1", "demo-2"];
const GIVEN: [&str; 2] = ["given-a", "given-b"];

struct World {
    now: i64,
    /// Is it about the certificate for clients, of whom nodes ask one too? Else about that between nodes.
    clients: bool,
    tls: Option<TlsStatus>,
    source: Option<CertificateSource>,
    request: Option<String>,
    secrets: BTreeMap<String, ObservedSecret>,
    /// Steps since the last event.
    quiet: u32,
    /// What each node has in use.
    loaded: BTreeMap<String, ObservedSecret>,
    made: u64,
}

fn secret(data: BTreeMap<String, SecretBytes>, owner: SecretOwner) -> ObservedSecret {
    ObservedSecret {
        uid: "u".to_owned(),
        resource_version: "1".to_owned(),
        secret_type: "kubernetes.io/tls".to_owned(),
        owner,
        immutable: false,
        deleting: false,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        changed_at: None,
        data,
    }
}

/// A certificate of an authority that the operator does not know, valid for years.
fn foreign(at: i64) -> BTreeMap<String, SecretBytes> {
    let none = BTreeMap::new();
    let mut maker = Maker::new(&none);
    let planned = |name: &str, recipe: Recipe| PlannedSecret {
        annotations: BTreeMap::new(),
        name: name.to_owned(),
        secret_type: "Opaque",
        is_mounted: false,
        recipe,
    };
    let authority = planned(
        "ca",
        Recipe::Authority {
            common_name: "corporate".to_owned(),
            cross: false,
            at,
        },
    );
    let made = maker.make(&authority, None).unwrap();
    maker.note("ca", made);
    let leaf = Recipe::Leaf {
        authority: "ca".to_owned(),
        common_name: "corporate".to_owned(),
        names: vec![
            "*.demo-headless.shop.svc.cluster.local".to_owned(),
            "demo-client.shop.svc".to_owned(),
        ],
        trusted: Vec::new(),
        at,
    };
    maker.make(&planned("leaf", leaf), None).unwrap()
}

impl World {
    /// A world without Secrets.
    fn new(tls: TlsStatus, clients: bool) -> Self {
        Self {
            now: START,
            clients,
            tls: Some(tls),
            source: None,
            request: None,
            secrets: BTreeMap::new(),
            loaded: BTreeMap::new(),
            quiet: 0,
            made: 0,
        }
    }

    fn observation(&self) -> Observation {
        let at = |second: i64| Time(Timestamp::from_second(second).unwrap());
        let (side, nodes, clients) = match self.clients {
            false => ("node_tls", "Require", "Plain"),
            true => ("http_tls", "Plain", "Require"),
        };
        let node_flags = json!({"nodes": nodes, "clients": clients, "checksName": false});
        let pods: Vec<_> = PODS
            .iter()
            .map(|name| json!({"name": name, "uid": name, "pool": "voter", "ready": true, "machine": "m1", "tls": node_flags}))
            .collect();
        let mut nodes = serde_json::Map::new();
        for name in PODS {
            let pair = read_pair(&self.loaded[name]).unwrap();
            let trusted: Vec<_> = pair.trusted.iter().map(|ca| &ca.sha256).collect();
            nodes.insert(
                name.to_owned(),
                json!({"kind": "ok", "raftId": format!("{name}#1"),
                "security": {side: {"leaf_sha256": pair.leaf.sha256, "trusted_sha256": trusted}}}),
            );
        }
        let mut spec =
            json!({"tls": {"nodes": {"mode": "Required"}, "clients": {"mode": "Disabled"}}});
        if self.clients {
            spec = json!({"tls": {"nodes": {"mode": "Disabled"},
                "clients": {"mode": "Required", "requireClientCertificate": true}}});
        }
        if let Some(source) = &self.source {
            let side = if self.clients { "clients" } else { "nodes" };
            spec["tls"][side]["certificate"] = json!(source);
        }
        let mut annotations = serde_json::Map::new();
        if let Some(request) = &self.request {
            annotations.insert(
                names::ROTATE_CERTIFICATES_ANNOTATION.to_owned(),
                json!(request),
            );
        }
        let status = json!({"clusterId": "c", "bootstrappedAt": at(START), "target": {"replicas": 3, "bootstrapReplicas": 3, "image": "rqlited:1"}, "tls": self.tls});
        let mut seen: Observation = serde_json::from_value(json!({
            "now": at(self.now), "freshId": format!("id-{}", self.made),
            "operator": {"version": "1", "nodeImage": "rqlited:1", "namespace": "operators"},
            "cluster": {"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster",
                "metadata": {"name": "demo", "namespace": "shop", "uid": "u", "annotations": annotations},
                "spec": spec, "status": status},
            "pods": pods, "nodes": nodes,
        }))
        .unwrap();
        seen.secrets.clone_from(&self.secrets);
        seen
    }

    fn reconcile(&mut self) {
        self.made += 1;
        let seen = self.observation();
        if let Decision::Record(next, _) = tls::decide(&View::of(&seen)) {
            self.tls = next.tls;
            return;
        }
        let plan = plan(&seen);
        self.tls = plan.status.tls;
        let none = BTreeMap::new();
        let mut maker = Maker::new(&none);
        for one in &plan.secrets.make {
            let before = self.secrets.get(&one.name);
            let data = maker.make(one, before).unwrap();
            maker.note(&one.name, data.clone());
            self.secrets
                .insert(one.name.clone(), secret(data, SecretOwner::Ours));
        }
        for one in &plan.secrets.delete {
            self.secrets.remove(&one.name);
        }
    }

    fn mounted(&self) -> Option<&ObservedSecret> {
        let name = match self.clients {
            false => names::node_tls_secret("demo"),
            true => names::http_tls_secret("demo"),
        };
        self.secrets.get(&name)
    }

    fn load(&mut self, name: &str) {
        // A bad file is not taken.
        if let Some(files) = self.mounted().filter(|files| read_pair(files).is_ok()) {
            let files = files.clone();
            self.loaded.insert(name.to_owned(), files);
        }
    }

    /// Is nothing being exchanged?
    fn is_calm(&self) -> bool {
        let all_loaded = self
            .loaded
            .values()
            .all(|files| Some(files) == self.mounted());
        let one = self.mounted().and_then(|files| read_pair(files).ok());
        all_loaded && one.is_some_and(|pair| pair.trusted.len() == 1)
    }

    /// Does every node accept every other one, as a server and as a client?
    fn verify(&self) -> Result<(), String> {
        let now = Time(Timestamp::from_second(self.now).unwrap());
        for (one, files) in &self.loaded {
            let shown = read_pair(files).unwrap();
            let name = [format!("{one}.demo-headless.shop.svc.cluster.local")];
            for (other, theirs) in &self.loaded {
                let trusted = read_pair(theirs).unwrap().trusted;
                check(&shown, &trusted, &name, true, &now)
                    .map_err(|fault| format!("{other} does not accept {one}: {fault}"))?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn event(world: &mut World, rng: &mut StdRng) -> &'static str {
    let given = |name: &str| {
        Some(CertificateSource {
            secret_name: Some(name.to_owned()),
            issuer_ref: None,
        })
    };
    let authority = names::authority_secret("demo");
    let mounted = names::node_tls_secret("demo");
    // Two losses at once leave no key that all nodes trust.
    let calm = world.is_calm() && world.quiet > 12;
    world.quiet = 0;
    match rng.random_range(0..9) {
        0 => {
            world.request = Some(format!("leaf {}", world.made));
            "new certificates are asked for"
        }
        1 => {
            world.request = Some(format!("authority {}", world.made));
            "a new authority is asked for"
        }
        2 => {
            world.source = [None, given(GIVEN[0]), given(GIVEN[1])]
                .choose(rng)
                .unwrap()
                .clone();
            "another source"
        }
        3 => {
            world.secrets.remove(&authority);
            "the authority is deleted"
        }
        4 => {
            if let Some(secret) = world.secrets.get_mut(&authority) {
                secret
                    .data
                    .insert("ca.key".to_owned(), SecretBytes::new(*b"garbage"));
            }
            "the authority's key is garbage"
        }
        5 if calm => {
            world.secrets.remove(&mounted);
            world.reconcile();
            world.reconcile();
            "the mounted Secret is deleted"
        }
        6 => {
            if let Some(secret) = world.secrets.get_mut(&mounted) {
                let intruder = foreign(world.now)[AUTHORITIES].expose().to_vec();
                let bundle = [secret.data[AUTHORITIES].expose(), &intruder].concat();
                secret
                    .data
                    .insert(AUTHORITIES.to_owned(), SecretBytes::new(bundle));
            }
            "somebody adds an authority"
        }
        7 if calm => {
            world.now += rng.random_range(1..8) * DAY;
            "days pass"
        }
        8 => {
            let new = secret(
                foreign(world.now),
                SecretOwner::Other {
                    owner: None,
                    former: false,
                },
            );
            let name = *GIVEN.choose(rng).unwrap();
            world.secrets.insert(name.to_owned(), new);
            "a given Secret has another authority"
        }
        _ => "nothing",
    }
}

fn walk(seed: u64) -> Result<usize, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut tls = TlsStatus::default();
    tls.nodes.mode = TlsMode::Required;
    tls.nodes.stage = TlsStage::Require;
    let mut world = World::new(tls, false);
    for name in GIVEN {
        let other = SecretOwner::Other {
            owner: None,
            former: false,
        };
        world
            .secrets
            .insert(name.to_owned(), secret(foreign(START), other));
    }
    // What a cluster is made with.
    for name in PODS {
        world
            .loaded
            .insert(name.to_owned(), secret(foreign(START), SecretOwner::Ours));
    }
    for _ in 0..3 {
        world.reconcile();
    }
    for name in PODS {
        world.load(name);
    }
    let mut exchanged = std::collections::BTreeSet::new();
    let mut last = "the beginning";
    for step in 0..450 {
        if step < 350 && rng.random_bool(0.08) {
            last = event(&mut world, &mut rng);
        }
        if rng.random_bool(0.6) {
            world.reconcile();
        }
        for name in PODS {
            if rng.random_bool(0.25) {
                world.load(name);
            }
        }
        world.now += 30;
        world.quiet += 1;
        world
            .verify()
            .map_err(|error| format!("step {step}, after {last}: {error}"))?;
        exchanged.extend(
            world
                .loaded
                .values()
                .map(|files| read_pair(files).unwrap().leaf.sha256),
        );
    }
    if !world.is_calm() {
        return Err(format!("the exchange does not end, after {last}"));
    }
    let wanted = match world
        .source
        .as_ref()
        .and_then(|source| source.secret_name.as_ref())
    {
        Some(name) => name.clone(),
        None => names::authority_secret("demo"),
    };
    let wanted = read_all(world.secrets[&wanted].data[AUTHORITIES].expose()).unwrap();
    let trusted = read_pair(world.mounted().unwrap()).unwrap().trusted;
    if trusted.first() != wanted.first() {
        return Err(format!(
            "another authority than the wanted one is trusted, after {last}"
        ));
    }
    Ok(exchanged.len())
}

#[test]
fn every_node_accepts_every_other_one_through_all_exchanges() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let one = number("WALK_SEED");
    let runs = one.map_or(number("WALK_RUNS").unwrap_or(10), |_| 1);
    let first = one.unwrap_or(1);
    let mut exchanged = 0;
    for seed in first..first + runs {
        match walk(seed) {
            Ok(count) => exchanged += count,
            Err(error) => panic!("WALK_SEED={seed}: {error}"),
        }
    }
    println!("{exchanged} certificates in {runs} walks");
    assert!(
        exchanged as u64 > runs * 3,
        "a walk in which nothing happens proves nothing"
    );
}

/// What backups show to nodes that ask clients for a certificate: accepted wherever theirs is from, renewed
/// with its authority, and of use to clients only.
#[test]
fn nodes_accept_the_certificate_of_backups() {
    let mut tls = TlsStatus::default();
    tls.clients.mode = TlsMode::Required;
    tls.clients.stage = TlsStage::Require;
    let mut world = World::new(tls, true);
    for name in PODS {
        let first = secret(foreign(START), SecretOwner::Ours);
        world.loaded.insert(name.to_owned(), first);
    }
    let other = SecretOwner::Other {
        owner: None,
        former: false,
    };
    let given = secret(foreign(START), other);
    world.secrets.insert(GIVEN[0].to_owned(), given);
    let mut leaves = std::collections::BTreeSet::new();
    let source = Some(CertificateSource {
        secret_name: Some(GIVEN[0].to_owned()),
        issuer_ref: None,
    });
    type Stage<'a> = (&'a str, &'a dyn Fn(&mut World));
    let stages: [Stage<'_>; 5] = [
        ("a new cluster", &|_| {}),
        ("a given certificate", &|world| {
            world.source.clone_from(&source);
        }),
        ("a new authority is asked for", &|world| {
            world.request = Some("authority 1".to_owned());
        }),
        ("the authority is lost", &|world| {
            let name = names::authority_secret("demo");
            world.secrets.remove(&name);
        }),
        ("months pass", &|world| world.now += 80 * DAY),
    ];
    for (what, change) in stages {
        change(&mut world);
        for _ in 0..12 {
            world.reconcile();
            PODS.iter().for_each(|pod| world.load(pod));
            world.now += 30;
        }
        let shown = read_pair(&world.secrets[&names::backup_tls_secret("demo")]).unwrap();
        let now = Time(Timestamp::from_second(world.now).unwrap());
        for (node, files) in &world.loaded {
            let trusted = read_pair(files).unwrap().trusted;
            let verdict = check_client(&shown, &trusted, &now);
            assert_eq!(verdict, Ok(()), "{what}: {node}");
            let as_server = check(&shown, &trusted, &[], false, &now);
            assert!(as_server.is_err(), "{what}: it is a server's");
        }
        let kept = leaves.contains(&shown.leaf.sha256);
        let is_same = what == "a given certificate";
        assert_eq!(kept, is_same, "{what}");
        leaves.insert(shown.leaf.sha256);
    }
}
