//! Checks of the spec that the API server's rules cannot express, or that it did not apply because the object
//! is older than the rules.
use operator_api::{ByteSize, Period, names, status::Pool};

use crate::cluster::facts::{
    archive,
    authentication::is_known_by,
    beginning, doors,
    image::{self, Parts},
    view::View,
};

mod pods;

/// Everything that is wrong with the spec, each with what to change.
pub fn mistakes(view: &View<'_>) -> Vec<String> {
    let mut found = Vec::new();
    if view.name.len() > names::MAX_NAME_CHARS || view.name.contains('.') {
        found.push(format!(
            "the name {:?} is longer than {} characters or contains a dot: create the cluster under another name",
            view.name,
            names::MAX_NAME_CHARS
        ));
    }
    if !(1..=operator_api::cluster::MAX_VOTERS).contains(&view.spec.replicas) {
        found.push(format!(
            "replicas is {}: set it to a number from 1 to {}",
            view.spec.replicas,
            operator_api::cluster::MAX_VOTERS
        ));
    }
    found.extend(pods::mistakes(view.name, view.spec));
    found.extend(archive::mistakes(view));
    found.extend(restore(view));
    found.extend(domain(view));
    found.extend(doors::mistakes(view));
    let sizes = [Some(&view.spec.storage.size), reader_size(view)];
    found.extend(
        sizes
            .into_iter()
            .flatten()
            .filter_map(|size| size.bytes().err())
            .map(|e| e.to_string()),
    );
    found.extend(
        periods(view)
            .into_iter()
            .filter_map(|p| p.duration().err())
            .map(|e| e.to_string()),
    );
    for pool in [Pool::Voter, Pool::Read] {
        let wanted = view.wanted_size(pool);
        let now = view
            .set(pool)
            .map(|set| ByteSize::from(set.claim_size.as_str()));
        if let (Some(Ok(now)), Ok(then)) = (now.map(|size| size.bytes()), wanted.bytes())
            && then < now
        {
            found.push(format!(
                "the volumes of {} cannot shrink to {wanted}: restore the former size",
                view.set_name(pool)
            ));
        }
    }
    found
}

/// An image that does not know how to restore would begin with an empty database.
fn restore(view: &View<'_>) -> Option<String> {
    let needed = !view.is_formed() && beginning::asked(view).is_some();
    let image = image::resolve(view).reference;
    (needed && !is_known_by(Parts::of(&image).release())).then(|| {
        format!(
            "the nodes of the image {image} cannot begin with a backup: choose a newer image, or remove bootstrap.restore"
        )
    })
}

fn domain(view: &View<'_>) -> Option<String> {
    let (given, recorded) = (&view.spec.cluster_domain, &view.status.cluster_domain);
    match (given, recorded) {
        (Some(given), Some(recorded)) if given != recorded => Some(format!(
            "clusterDomain is {given}, but the nodes' addresses are in {recorded}: set it to {recorded} or remove it"
        )),
        _ => None,
    }
}

fn reader_size<'a>(view: &View<'a>) -> Option<&'a ByteSize> {
    view.spec
        .read_replicas
        .as_ref()?
        .storage
        .as_ref()?
        .size
        .as_ref()
}

fn periods<'a>(view: &View<'a>) -> Vec<&'a Period> {
    let mut all = Vec::new();
    if let Some(update) = &view.spec.update {
        all.extend([&update.min_ready, &update.progress_deadline]);
    }
    if let Some(raft) = view.spec.config.as_ref().and_then(|c| c.raft.as_ref()) {
        all.extend([
            &raft.heartbeat_timeout,
            &raft.election_timeout,
            &raft.apply_timeout,
        ]);
    }
    all.extend(view.spec.bootstrap.as_ref().map(|b| &b.timeout));
    all
}

/// Advice about a valid spec.
pub fn hints(view: &View<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let voters = view.spec.replicas;
    if voters % 2 == 0 {
        found.push(format!(
            "{voters} voters tolerate no more failures than {}: use an odd number",
            voters - 1
        ));
    }
    if view.spec.storage.ephemeral.is_some() {
        let needed = voters / 2 + 1;
        found.push(format!(
            "storage.ephemeral: the data is in the pods; if {needed} of {voters} voters' pods are deleted, the database is lost"
        ));
    }
    found.extend(doors::hint(view));
    found.extend(beginning::ignored(view));
    if voters == 1 {
        found.push("one voter: every restart interrupts service, and without a backup a lost volume means lost data".to_owned());
    }
    found
}
