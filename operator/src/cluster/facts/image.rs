//! The nodes' image: resolved once from the spec and the operator's default, then kept until the spec's image
//! is edited or a person asks for the default.
use operator_api::{cluster::Image, names, status::ResolvedImage};

use crate::cluster::facts::{version::Release, view::View};

/// Repository, tag and digest of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Registry and name.
    pub repository: &'a str,
    /// The tag.
    pub tag: Option<&'a str>,
    /// The digest.
    pub digest: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// Parses an image reference.
    pub fn of(image: &'a str) -> Self {
        let (name, digest) = match image.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (image, None),
        };
        match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => Self {
                repository,
                tag: Some(tag),
                digest,
            },
            _ => Self {
                repository: name,
                tag: None,
                digest,
            },
        }
    }

    /// The release that the tag names, if it names one.
    pub fn release(&self) -> Option<Release> {
        Release::parse(self.tag?)
    }

    /// The last part of the repository.
    pub fn name(&self) -> &'a str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }

    /// Does this image match what a spec asks for?
    fn has(&self, asked: &Image) -> bool {
        let same = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|text| Some(text) == is)
        };
        // With a digest, the tag is only informative.
        let tagged = asked.digest.is_some() || same(&asked.tag, self.tag);
        same(&asked.repository, Some(self.repository)) && tagged && same(&asked.digest, self.digest)
    }
}

/// The image of a spec, completed by a default image.
fn complete(asked: &Image, default: &str) -> String {
    let parts = Parts::of(default);
    let repository = asked.repository.as_deref().unwrap_or(parts.repository);
    match (&asked.digest, asked.tag.as_deref()) {
        (Some(digest), Some(tag)) => format!("{repository}:{tag}@{digest}"),
        (Some(digest), None) => format!("{repository}@{digest}"),
        (None, Some(tag)) => format!("{repository}:{tag}"),
        (None, None) if asked.repository.is_none() => default.to_owned(),
        (None, None) => format!("{repository}:{}", parts.tag.unwrap_or("latest")),
    }
}

/// What a spec says of the image's name, as one text; empty if nothing.
fn requested(asked: &Image) -> String {
    let mut text = asked.repository.clone().unwrap_or_default();
    if let Some(tag) = &asked.tag {
        text.push_str(&format!(":{tag}"));
    }
    if let Some(digest) = &asked.digest {
        text.push_str(&format!("@{digest}"));
    }
    text
}

/// The image that the spec asks for. A recorded image stays, whatever the operator's default is.
pub fn resolve(view: &View<'_>) -> ResolvedImage {
    let default = view.seen.operator.node_image.as_str();
    let asked = view.spec.image.clone().unwrap_or_default();
    let request = request(view);
    let fresh = |used: Option<&str>| ResolvedImage {
        reference: complete(&asked, default),
        requested: requested(&asked),
        update_request: used.map(str::to_owned),
    };
    let known = view.status.image.as_ref();
    if let Some(known) = known {
        let is_new = request.is_some() && request != known.update_request.as_deref();
        let applies = request.is_some_and(|value| value == "true" || value == default);
        if known.requested != requested(&asked) || (is_new && applies) {
            return fresh(request.filter(|_| applies));
        }
        return ResolvedImage {
            // Once the annotation is removed, the same value can be requested again.
            update_request: known.update_request.clone().filter(|_| request.is_some()),
            ..known.clone()
        };
    }
    // No image is recorded (an older operator, or a lost status): the running image stays, if it matches the
    // spec.
    let set = view
        .seen
        .voters
        .as_ref()
        .and_then(|set| set.image.as_deref());
    let target = view.target().map(|t| t.image.as_str());
    match target.filter(|image| !image.is_empty()).or(set) {
        Some(image) if Parts::of(image).has(&asked) => ResolvedImage {
            reference: image.to_owned(),
            requested: requested(&asked),
            update_request: None,
        },
        _ => fresh(request),
    }
}

/// The value of the annotation that asks for the operator's default image.
pub fn request<'a>(view: &View<'a>) -> Option<&'a str> {
    view.annotation(names::UPDATE_IMAGE_ANNOTATION)
}

/// The image that would be used if the spec were resolved today.
pub fn newest(view: &View<'_>) -> String {
    let asked = view.spec.image.clone().unwrap_or_default();
    complete(&asked, &view.seen.operator.node_image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture::Fixture;

    #[test]
    fn parts_of_a_name() {
        for (image, repository, tag, digest) in [
            ("rqlited", "rqlited", None, None),
            ("rqlited:1", "rqlited", Some("1"), None),
            ("h:5000/rqlited", "h:5000/rqlited", None, None),
            (
                "h:5000/a/rqlited:v1@sha256:0",
                "h:5000/a/rqlited",
                Some("v1"),
                Some("sha256:0"),
            ),
        ] {
            let expected = Parts {
                repository,
                tag,
                digest,
            };
            assert_eq!(Parts::of(image), expected);
        }
        assert_eq!(Parts::of("h:5000/a/rqlited:v1").name(), "rqlited");
    }

    #[test]
    fn a_default_completes_a_spec() {
        let of = |repository: Option<&str>, tag: Option<&str>, digest: Option<&str>| {
            let text = |part: Option<&str>| part.map(str::to_owned);
            let asked = Image {
                repository: text(repository),
                tag: text(tag),
                digest: text(digest),
                ..Image::default()
            };
            (complete(&asked, "r.io/rqlited:1"), requested(&asked))
        };
        let cases = [
            (of(None, None, None), "r.io/rqlited:1", ""),
            (of(None, Some("2"), None), "r.io/rqlited:2", ":2"),
            (of(Some("x/y"), Some("2"), None), "x/y:2", "x/y:2"),
            (
                of(None, None, Some("sha256:a")),
                "r.io/rqlited@sha256:a",
                "@sha256:a",
            ),
            (of(Some("x"), None, None), "x:1", "x"),
        ];
        for ((image, asked), expected, written) in cases {
            assert_eq!((image.as_str(), asked.as_str()), (expected, written));
        }
    }

    #[test]
    fn another_default_is_adopted_only_when_a_person_asks() {
        let mut fixture = Fixture::running(3, 0);
        let image = |fixture: &mut Fixture| {
            for _ in 0..3 {
                fixture.reconcile();
            }
            fixture.status().target.unwrap().image
        };
        fixture.seen.operator.node_image = "rqlited:2".to_owned();
        let labels = operator_api::cluster::PodMetadata {
            labels: [("team".to_owned(), "x".to_owned())].into(),
            ..Default::default()
        };
        let before = fixture.status().target.unwrap().template_hash;
        fixture.seen.cluster.spec.pod_metadata = Some(labels);
        assert_eq!(image(&mut fixture), "rqlited:1", "an edit of a label");
        assert_ne!(fixture.status().target.unwrap().template_hash, before);
        let request = |fixture: &mut Fixture, value: &str| {
            let all = fixture
                .seen
                .cluster
                .metadata
                .annotations
                .get_or_insert_default();
            all.insert(names::UPDATE_IMAGE_ANNOTATION.to_owned(), value.to_owned());
        };
        request(&mut fixture, "rqlited:7");
        assert_eq!(image(&mut fixture), "rqlited:1", "that is not the default");
        request(&mut fixture, "true");
        assert_eq!(image(&mut fixture), "rqlited:2");
        fixture.seen.operator.node_image = "rqlited:3".to_owned();
        assert_eq!(image(&mut fixture), "rqlited:2", "asked once");
        request(&mut fixture, "rqlited:3");
        assert_eq!(image(&mut fixture), "rqlited:3", "named");
        fixture.seen.operator.node_image = "rqlited:1".to_owned();
        assert_eq!(image(&mut fixture), "rqlited:3", "the operator goes back");
    }

    #[test]
    fn a_cluster_from_before_keeps_what_runs() {
        let mut fixture = Fixture::running(3, 0);
        fixture.seen.operator.node_image = "rqlited:2".to_owned();
        let mut status = fixture.status();
        status.image = None;
        fixture.seen.cluster.status = Some(status);
        fixture.reconcile();
        let status = fixture.status();
        assert_eq!(status.image.unwrap().reference, "rqlited:1");
        // The whole status is lost, and the StatefulSet says what runs.
        fixture.seen.voters.as_mut().unwrap().image = Some("rqlited:1".to_owned());
        fixture.seen.cluster.status = None;
        fixture.reconcile();
        assert_eq!(fixture.status().target.unwrap().image, "rqlited:1");
    }
}
