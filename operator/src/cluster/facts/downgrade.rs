//! Whether an image of an older release is refused before any pod is replaced.
//!
//! Compares the releases that the tags name; an image without such a tag is not checked here. The program
//! itself decides whether it can read the data: `rqlited prepare` refuses data in a newer format before the
//! node starts (`NEWER_FORMAT`), and the update stops at this first pod.
use operator_api::names;

use crate::cluster::facts::{
    image::Parts, observation::ObservedPod, version, version::Release, view::View,
};

/// State in the report of `rqlited prepare`: the data is in a format that this program does not know.
pub const NEWER_FORMAT: &str = "NewerFormat";
/// Reason of conditions and events.
pub const REASON: &str = "DowngradeRefused";

/// Why the pods are not moved to this image; None if they may be.
pub fn refused(view: &View<'_>, image: &str) -> Option<String> {
    let target = view
        .target()
        .filter(|t| !t.image.is_empty() && t.image != image)?;
    let (now, next) = (Parts::of(&target.image), Parts::of(image));
    let wanted = next.release()?;
    let present = now.release().or_else(|| newest_member(view))?;
    let older = now.name() == next.name() && wanted.line() < present.line();
    // An update that is not complete can always be undone: as long as one member runs the older release, the
    // cluster uses only what that release supports.
    let good = view.status.last_good_target.as_ref();
    let unfinished = target.worked_at.is_none() && good.is_some_and(|t| t.image == image);
    let allowed = view
        .annotation(names::ALLOW_DOWNGRADE_ANNOTATION)
        .is_some_and(|value| value == "true" || value == image || Some(value) == next.tag);
    if !older || unfinished || allowed {
        return None;
    }
    let (tag, name) = (next.tag.unwrap_or_default(), view.name);
    let formats = match view.status.format_version {
        Some(version) => format!("; the data is in format version {version}"),
        None => String::new(),
    };
    Some(format!(
        "{image} is an older release than {}, and may not read what newer nodes have written{formats}. The pods stay at {}. \
         Set image.tag back; or try it with kubectl annotate rqlitecluster {name} {}={tag}: the first pod shows whether its program reads the data, and goes back if not",
        target.image,
        target.image,
        names::ALLOW_DOWNGRADE_ANNOTATION
    ))
}

/// The newest release that a node reports.
fn newest_member(view: &View<'_>) -> Option<Release> {
    let members = view.status.members.iter();
    let versions =
        members.filter_map(|m| Release::parse(version::of_program(m.version.as_deref()?)));
    versions.max()
}

/// A pod with the present template whose program does not know the format of its data.
pub fn pod_with_newer_data<'a>(view: &View<'a>) -> Option<&'a ObservedPod> {
    let target = view.target()?;
    view.seen.pods.iter().find(|pod| {
        let hashes = [
            Some(&target.template_hash),
            target.read_template_hash.as_ref(),
        ];
        let refuses = pod
            .prepared
            .as_ref()
            .is_some_and(|p| p.state == NEWER_FORMAT);
        refuses && !pod.deleting && hashes.contains(&Some(&pod.template_hash))
    })
}
