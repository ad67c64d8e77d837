//! The continuous archive of a cluster: what its pods have for it, and what is wrong with its spec.
use crate::cluster::facts::{
    archive_config::{InPods, of},
    authentication::is_known_by,
    image::{self, Parts},
    view::View,
};

/// What the pod template of the present spec has; None without an archive.
pub fn in_pods(view: &View<'_>) -> Option<InPods> {
    view.spec.archive.as_ref().map(of)
}

/// What is wrong with the spec's archive, as texts for people.
pub fn mistakes(view: &View<'_>) -> Vec<String> {
    let Some(archive) = &view.spec.archive else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let image = image::resolve(view).reference;
    if !is_known_by(Parts::of(&image).release()) {
        found.push(format!(
            "the nodes of the image {image} know no archive: choose a newer image, or remove spec.archive"
        ));
    }
    let spans = [&archive.base_interval, &archive.retention];
    let wrong = spans
        .into_iter()
        .flatten()
        .filter_map(|span| span.duration().err());
    found.extend(wrong.map(|e| format!("archive: {e}")));
    let every = archive
        .every
        .as_ref()
        .and_then(|every| every.duration().err());
    found.extend(every.map(|e| format!("archive.every: {e}")));
    let limit = archive
        .log_limit
        .as_ref()
        .and_then(|limit| limit.bytes().err());
    found.extend(limit.map(|e| format!("archive.logLimit: {e}")));
    found
}
