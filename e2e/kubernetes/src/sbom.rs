//! Software bill of materials (SPDX 2.3, JSON) of an image: the crates compiled into its programs, according
//! to the lock file, and other contents.
//!
//! By hand, because `cargo-cyclonedx` writes one CycloneDX file for each crate of the workspace, while an
//! image needs one document for several programs and for what lies beside them (C library, certificates), the
//! same bytes at each build. Both read the same sources: `cargo metadata` and `Cargo.lock`.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Inputs of [`document`].
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Output of `cargo metadata`.
    pub metadata: &'a Value,
    /// Content of `Cargo.lock`, for the crates' checksums.
    pub lock: &'a str,
    /// Packages of the programs in the image; the document is named after the first.
    pub packages: &'a [String],
    /// Other contents of the image, as package URLs.
    pub with: &'a [String],
    /// When the sources were last changed, RFC 3339 in UTC.
    pub created: &'a str,
    /// Revision of the sources, part of the document's name.
    pub revision: &'a str,
}

/// The document. Equal sources give equal text.
///
/// # Errors
/// If `metadata` is not in cargo's format, or lacks a package.
pub fn document(source: &Source<'_>) -> Result<Value> {
    let crates = Crates::read(source.metadata)?;
    let roots = source.packages.iter().map(|name| crates.named(name));
    let roots: Vec<&str> = roots.collect::<Result<_>>()?;
    let root = *roots.first().context("no package is named")?;
    let sums = checksums(source.lock);
    let mut packages = Vec::new();
    let described = |id| relation("SPDXRef-DOCUMENT", "DESCRIBES", &crates.spdx_id(id));
    let mut relations: Vec<Value> = roots.iter().map(|id| described(id)).collect();
    for id in crates.reached_from(&roots) {
        packages.push(crates.entry(id, &sums));
        for needed in crates.needs(id) {
            let (from, to) = (crates.spdx_id(id), crates.spdx_id(needed));
            relations.push(relation(&from, "DEPENDS_ON", &to));
        }
    }
    for url in source.with {
        let (name, version) =
            named_by(url).with_context(|| format!("{url:?} is no package URL"))?;
        let id = format!("SPDXRef-other-{name}");
        relations.push(relation(&crates.spdx_id(root), "DEPENDS_ON", &id));
        packages.push(entry(&id, name, version, url));
    }
    let name = format!(
        "{}-{}",
        crates.text(root, "name"),
        crates.text(root, "version")
    );
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:sbom:{name}-{}", source.revision),
        "creationInfo": {"created": source.created, "creators": ["Tool: e2e/images"]},
        "packages": packages,
        "relationships": relations,
    }))
}

/// Cargo's metadata by package id.
struct Crates<'a> {
    packages: BTreeMap<&'a str, &'a Value>,
    nodes: BTreeMap<&'a str, &'a Value>,
}

impl<'a> Crates<'a> {
    fn read(metadata: &'a Value) -> Result<Self> {
        let by_id = |list: &'a Value| -> Result<BTreeMap<&'a str, &'a Value>> {
            let list = list.as_array().context("cargo metadata has no such list")?;
            Ok(list
                .iter()
                .filter_map(|item| Some((item["id"].as_str()?, item)))
                .collect())
        };
        Ok(Self {
            packages: by_id(&metadata["packages"])?,
            nodes: by_id(&metadata["resolve"]["nodes"])?,
        })
    }

    fn named(&self, package: &str) -> Result<&'a str> {
        let is_ours = |item: &Value| item["name"] == package && item["source"].is_null();
        self.packages
            .iter()
            .find_map(|(id, item)| is_ours(item).then_some(*id))
            .with_context(|| format!("the workspace has no package {package:?}"))
    }

    fn text(&self, id: &str, field: &str) -> &'a str {
        self.packages
            .get(id)
            .and_then(|item| item[field].as_str())
            .unwrap_or_default()
    }

    fn spdx_id(&self, id: &str) -> String {
        let text = format!(
            "SPDXRef-{}-{}",
            self.text(id, "name"),
            self.text(id, "version")
        );
        // SPDX ids may contain letters, digits, dots and dashes.
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        text.replace(|c| !allowed(c), "-")
    }

    /// Dependencies compiled into a crate, without build and test dependencies.
    fn needs(&self, id: &str) -> Vec<&'a str> {
        let Some(node) = self.nodes.get(id) else {
            return Vec::new();
        };
        let is_compiled_in = |needed: &Value| {
            let kinds = needed["dep_kinds"].as_array();
            kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        };
        node["deps"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|needed| is_compiled_in(needed))
            .filter_map(|needed| needed["pkg"].as_str())
            .collect()
    }

    fn reached_from(&self, roots: &[&'a str]) -> BTreeSet<&'a str> {
        let mut reached: BTreeSet<_> = roots.iter().copied().collect();
        let mut waiting = roots.to_vec();
        while let Some(id) = waiting.pop() {
            waiting.extend(self.needs(id).into_iter().filter(|id| reached.insert(id)));
        }
        reached
    }

    fn entry(&self, id: &str, sums: &BTreeMap<(&str, &str), &str>) -> Value {
        let (name, version) = (self.text(id, "name"), self.text(id, "version"));
        let url = format!("pkg:cargo/{name}@{version}");
        let mut entry = entry(&self.spdx_id(id), name, version, &url);
        let licence = self.text(id, "license").replace('/', " OR ");
        if !licence.is_empty() {
            entry["licenseDeclared"] = licence.into();
        }
        if let Some(sum) = sums.get(&(name, version)) {
            entry["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": sum}]);
        }
        entry
    }
}

fn entry(id: &str, name: &str, version: &str, url: &str) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}],
    })
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

/// Name and version in `pkg:type/…/name@version`.
fn named_by(url: &str) -> Option<(&str, &str)> {
    let (path, version) = url.strip_prefix("pkg:")?.rsplit_once('@')?;
    Some((path.rsplit_once('/')?.1, version))
}

/// Checksums by name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    lock.split("[[package]]")
        .filter_map(|block| {
            let of = |name| quoted(block, name);
            Some(((of("name")?, of("version")?), of("checksum")?))
        })
        .collect()
}

/// The value of a line `name = "value"`.
fn quoted<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = block.lines();
    lines.find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(" = \"")?
            .strip_suffix('"')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"s\"\nchecksum = \"ff\"\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";

    fn metadata() -> Value {
        let package = |name: &str, version: &str, source: Value| json!({"id": format!("{name}#{version}"), "name": name, "version": version, "source": source, "license": "MIT/Apache-2.0"});
        let dep = |id: &str, kind: Value| json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        json!({
            "packages": [
                package("own", "0.1.0", Value::Null),
                package("a", "1.0.0", "registry".into()),
                package("b", "2.0.0+x_y", "registry".into()),
                package("test-only", "3.0.0", "registry".into()),
            ],
            "resolve": {"nodes": [
                {"id": "own#0.1.0", "deps": [dep("a#1.0.0", Value::Null), dep("test-only#3.0.0", "dev".into())]},
                {"id": "a#1.0.0", "deps": [dep("b#2.0.0+x_y", Value::Null)]},
                {"id": "b#2.0.0+x_y", "deps": [dep("test-only#3.0.0", "build".into())]},
                {"id": "test-only#3.0.0", "deps": []},
            ]},
        })
    }

    fn document_with(with: &[String]) -> Result<Value> {
        document(&Source {
            metadata: &metadata(),
            lock: LOCK,
            packages: &["own".to_owned()],
            with,
            created: "2026-01-01T00:00:00Z",
            revision: "abc",
        })
    }

    #[test]
    fn it_lists_what_is_compiled_in_and_what_the_image_adds() {
        let document = document_with(&["pkg:deb/debian/libc6@2.36-9".to_owned()]).unwrap();
        let named: Vec<_> = document["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        assert_eq!(named, ["a", "b", "own", "libc6"]);
        let a = &document["packages"][0];
        assert_eq!(a["licenseDeclared"], "MIT OR Apache-2.0");
        assert_eq!(a["checksums"][0]["checksumValue"], "ff");
        assert_eq!(
            a["externalRefs"][0]["referenceLocator"],
            "pkg:cargo/a@1.0.0"
        );
        assert_eq!(document["packages"][1]["SPDXID"], "SPDXRef-b-2.0.0-x-y");
        assert_eq!(document["packages"][2]["checksums"], Value::Null);
        assert_eq!(document["packages"][3]["versionInfo"], "2.36-9");
        let relations = document["relationships"].as_array().unwrap();
        assert_eq!(relations[0]["relatedSpdxElement"], "SPDXRef-own-0.1.0");
        assert_eq!(relations.len(), 4);
    }

    #[test]
    fn what_is_no_package_is_refused() {
        for (with, expected) in [
            ("libc6", "is no package URL"),
            ("pkg:libc6@1", "is no package URL"),
        ] {
            let error = document_with(&[with.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
