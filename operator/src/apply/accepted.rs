//! Values that the API server does not keep as they are applied: admission may rewrite them (images of a
//! registry mirror, added containers), and the API server may write them in another notation. They are
//! detected in the response to the operator's own apply, so that it is not repeated for ever and the
//! difference is not reported as an edit.
use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::Value;

use super::compare::Difference;
use crate::cluster::facts::observation::Edit;

/// How many changed values a message names.
const NAMED: usize = 3;

/// What the response to the last apply of an object had different.
#[derive(Debug)]
struct Known {
    desired: Value,
    differences: Vec<Difference>,
}

/// Accepted differences, by uid of the cluster, and kind and name of the object. After a restart of the
/// operator each such object is applied once more, which changes nothing.
#[derive(Debug, Default)]
pub struct Accepted(Mutex<HashMap<String, OfCluster>>);

#[derive(Debug, Default)]
struct OfCluster {
    objects: HashMap<(String, String), Known>,
    news: Vec<String>,
}

impl Accepted {
    /// Does an object differ only by what was different right after this very object was applied?
    pub(super) fn covers(
        &self,
        uid: &str,
        (kind, name): (&str, &str),
        desired: &Value,
        differences: &[Difference],
    ) -> bool {
        let all = self.0.lock();
        let known = all
            .get(uid)
            .and_then(|of| of.objects.get(&(kind.to_owned(), name.to_owned())));
        known.is_some_and(|known| known.desired == *desired && known.differences == differences)
    }

    /// Stores what is different in the response to an apply; remembers to report it if it is new.
    pub(super) fn note(
        &self,
        uid: &str,
        (kind, name): (&str, &str),
        desired: &Value,
        differences: Vec<Difference>,
    ) {
        let mut all = self.0.lock();
        let of = all.entry(uid.to_owned()).or_default();
        let key = (kind.to_owned(), name.to_owned());
        if differences.is_empty() {
            of.objects.remove(&key);
            return;
        }
        let before = of.objects.get(&key);
        if before.is_none_or(|before| before.differences != differences) {
            of.news.push(describe(kind, name, &differences));
        }
        let known = Known {
            desired: desired.clone(),
            differences,
        };
        of.objects.insert(key, known);
    }

    /// What is to be reported, once.
    pub fn take_news(&self, uid: &str) -> Vec<String> {
        let mut all = self.0.lock();
        let of = all.get_mut(uid);
        of.map(|of| std::mem::take(&mut of.news))
            .unwrap_or_default()
    }

    /// Removes the entries of a deleted cluster.
    pub fn forget(&self, uid: &str) {
        let mut all = self.0.lock();
        all.remove(uid);
    }
}

fn describe(kind: &str, name: &str, differences: &[Difference]) -> String {
    let named = differences.iter().take(NAMED).map(|one| {
        let value = match &one.live {
            Value::Null => "nothing".to_owned(),
            Value::String(text) => text.clone(),
            Value::Object(_) | Value::Array(_) => "another content".to_owned(),
            other => other.to_string(),
        };
        format!("{} to {value}", one.path)
    });
    let named: Vec<_> = named.collect();
    let more = differences.len().saturating_sub(NAMED);
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "admission (a webhook or a policy of this Kubernetes) changes {kind} {name} whenever it is applied: {}{more}. That is accepted",
        named.join(", ")
    )
}

/// The first of these edits that an apply has reverted: the value is another one now than before.
pub(super) fn reverted(
    candidates: Vec<Edit>,
    before: &[Difference],
    after: &[Difference],
) -> Option<Edit> {
    candidates.into_iter().find(|edit| {
        let is_it = |one: &&Difference| one.path == edit.field;
        before.iter().find(is_it) != after.iter().find(is_it)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apply::compare::differences;

    fn image(image: &str, replicas: i32) -> Value {
        json!({"metadata": {"name": "demo"}, "spec": {"replicas": replicas, "containers": [{"image": image}]}})
    }

    fn edits(differences: &[Difference]) -> Vec<Edit> {
        let edit = |one: &Difference| Edit {
            kind: "StatefulSet".to_owned(),
            name: "demo".to_owned(),
            field: one.path.clone(),
            value: None,
            by: None,
            times: 1,
        };
        differences.iter().map(edit).collect()
    }

    #[test]
    fn what_admission_rewrites_is_accepted_and_reported_once() {
        let accepted = Accepted::default();
        let key = ("StatefulSet", "demo");
        let (desired, live) = (image("a", 3), image("mirror/a", 3));
        let found = differences(&desired, &live);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "spec.containers[0].image");
        assert!(
            !accepted.covers("u", key, &desired, &found),
            "not known yet"
        );
        assert_eq!(
            reverted(edits(&found), &found, &found),
            None,
            "nobody's edit"
        );
        accepted.note("u", key, &desired, found.clone());
        assert!(accepted.covers("u", key, &desired, &found));
        let [news] = &accepted.take_news("u")[..] else {
            panic!("not reported");
        };
        assert!(
            news.contains("spec.containers[0].image to mirror/a"),
            "{news}"
        );
        accepted.note("u", key, &desired, found.clone());
        assert_eq!(accepted.take_news("u"), Vec::<String>::new(), "once");
        // An edit beside it, or of the very same field, is one.
        let touched = differences(&desired, &image("mirror/a", 5));
        assert!(!accepted.covers("u", key, &desired, &touched));
        let edit = reverted(edits(&touched), &touched, &found).unwrap();
        assert_eq!(edit.field, "spec.replicas");
        let other = differences(&desired, &image("evil", 3));
        assert!(!accepted.covers("u", key, &desired, &other));
        assert!(reverted(edits(&other), &other, &found).is_some());
        // Another desired object is applied.
        assert!(!accepted.covers("u", key, &image("b", 3), &found));
        accepted.note("u", key, &desired, Vec::new());
        assert!(!accepted.covers("u", key, &desired, &found), "it has ended");
        assert!(!accepted.covers("other", key, &desired, &found));
        accepted.forget("u");
    }
}
