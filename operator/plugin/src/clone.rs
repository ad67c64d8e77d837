//! `kubectl rqlite clone`: creates a cluster that begins with a point of another's archive.
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use kube::api::PostParams;
use operator_api::{
    RqliteCluster, RqliteClusterSpec,
    cluster::{ArchivePoint, BootstrapRestore, CertificateSource, Image},
};

use crate::{restore::Point, target::Target};

/// Arguments of `clone`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CloneOptions {
    /// The cluster whose archive is read. It may have lost all its volumes.
    pub(crate) cluster: String,
    /// Name of the new cluster.
    clone: String,
    #[command(flatten)]
    pub(crate) point: Point,
    /// Number of voters. Defaults to that of the cluster.
    #[arg(long)]
    replicas: Option<i32>,
    /// Size of each volume. Defaults to that of the cluster.
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// Only print the object.
    #[arg(long)]
    dry_run: bool,
}

/// The new cluster: the spec of the old one, restored to the given point of its archive.
fn clone_object(source: &RqliteCluster, options: &CloneOptions) -> RqliteCluster {
    let mut spec = source.spec.clone();
    let mut bootstrap = spec.bootstrap.take().unwrap_or_default();
    bootstrap.restore = Some(BootstrapRestore {
        archive: Some(ArchivePoint {
            cluster: Some(options.cluster.clone()),
            lineage: options.point.lineage.clone(),
            to_time: options.point.to_time.clone(),
            to_index: options.point.to_index,
        }),
        ..BootstrapRestore::default()
    });
    spec.bootstrap = Some(bootstrap);
    // Two clusters never write to one place.
    spec.archive = None;
    spec.hibernated = false;
    spec.paused = false;
    spec.deletion_protection = false;
    // Entries are replayed by the SQLite that wrote them.
    let runs = source.status.as_ref().and_then(|s| s.target.as_ref());
    if let Some(target) = runs.filter(|target| !target.image.is_empty()) {
        spec.image = Some(image_of(&target.image, spec.image.take()));
    }
    disentangle(&mut spec);
    if let Some(replicas) = options.replicas {
        spec.replicas = replicas;
    }
    if let Some(size) = &options.size {
        spec.storage.size = size.as_str().into();
    }
    RqliteCluster::new(&options.clone, spec)
}

/// Removes what only one cluster can have: passwords, ports of machines, names in DNS, and certificates for
/// these.
fn disentangle(spec: &mut RqliteClusterSpec) {
    for user in spec.users.iter_mut().flatten() {
        user.password_secret = None;
    }
    if let Some(services) = &mut spec.services {
        let all = [
            &mut services.client,
            &mut services.leader,
            &mut services.read,
        ];
        for service in all.into_iter().flatten() {
            service.node_port = None;
            service.health_check_node_port = None;
            service.annotations.clear();
        }
    }
    if let Some(tls) = &mut spec.tls {
        let given = |source: &CertificateSource| source.secret_name.is_some();
        if let Some(nodes) = &mut tls.nodes {
            nodes.certificate = nodes.certificate.take().filter(|source| !given(source));
        }
        if let Some(clients) = &mut tls.clients {
            clients.certificate = clients.certificate.take().filter(|source| !given(source));
            clients.extra_names.clear();
        }
    }
}

/// The image of this reference: `repository[:tag][@digest]`.
fn image_of(reference: &str, before: Option<Image>) -> Image {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest.to_owned())),
        None => (reference, None),
    };
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.to_owned())),
        _ => (name, None),
    };
    Image {
        repository: Some(repository.to_owned()),
        tag: tag.or_else(|| digest.is_none().then(|| "latest".to_owned())),
        digest,
        ..before.unwrap_or_default()
    }
}

/// Makes a new cluster from another's archive.
pub(crate) async fn clone(target: &Target, options: &CloneOptions) -> anyhow::Result<ExitCode> {
    let source = target.cluster().await?;
    if source.spec.archive.is_none() {
        bail!(
            "{} has no archive (spec.archive): make a backup and begin a cluster from it by spec.bootstrap.restore.backup. Nothing was done",
            target.name
        );
    }
    if options.clone == options.cluster {
        bail!(
            "a clone needs a name of its own. To take the cluster itself back: kubectl rqlite restore {}",
            target.name
        );
    }
    let object = clone_object(&source, options);
    if options.dry_run {
        println!("{}", serde_json::to_string_pretty(&object)?);
        return Ok(ExitCode::SUCCESS);
    }
    let clusters = target.clusters();
    let made = clusters.create(&PostParams::default(), &object).await;
    made.with_context(|| format!("creating the RqliteCluster {}", options.clone))?;
    println!(
        "{} begins with the archive of {}; it gets new passwords, and has no archive of its own yet (spec.archive, with another prefix). Watch: kubectl rqlite status {} -n {}",
        options.clone, target.name, options.clone, target.namespace
    );
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use operator_api::{
        Moment,
        cluster::{KeySelector, User},
    };

    use super::*;

    fn point() -> Point {
        Point {
            to_time: Some(Moment::from("2026-11-29T08:00:00Z")),
            to_index: None,
            lineage: None,
        }
    }

    #[test]
    fn a_clone_has_no_archive_of_its_own() {
        let mut source = RqliteCluster::new("demo", RqliteClusterSpec::default());
        source.spec.replicas = 5;
        source.spec.hibernated = true;
        let options = CloneOptions {
            cluster: "demo".to_owned(),
            clone: "look".to_owned(),
            point: point(),
            replicas: None,
            size: Some("2Gi".to_owned()),
            dry_run: false,
        };
        let status = source.status.get_or_insert_default();
        let target = status.target.get_or_insert_default();
        target.image = "reg:5000/rqlited:1.2@sha256:abc".to_owned();
        let mut user = User::application();
        user.password_secret = Some(KeySelector {
            name: "own".to_owned(),
            key: "k".to_owned(),
        });
        source.spec.users = Some(vec![user]);
        let made = clone_object(&source, &options);
        assert_eq!(
            (made.name_any(), made.spec.replicas),
            ("look".to_owned(), 5)
        );
        assert!(made.spec.archive.is_none() && !made.spec.hibernated);
        assert_eq!(made.spec.storage.size.0, "2Gi");
        let image = made.spec.image.unwrap();
        assert_eq!(image.repository.as_deref(), Some("reg:5000/rqlited"));
        assert_eq!(image.tag.as_deref(), Some("1.2"));
        assert_eq!(image.digest.as_deref(), Some("sha256:abc"));
        let users = made.spec.users.unwrap();
        assert_eq!(
            (users[0].name.as_str(), &users[0].password_secret),
            ("app", &None)
        );
        let restore = made.spec.bootstrap.unwrap().restore.unwrap();
        let point = restore.archive.unwrap();
        assert_eq!(point.cluster.as_deref(), Some("demo"));
        assert_eq!(point.to_time, options.point.to_time);
    }
}
