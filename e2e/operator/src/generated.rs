//! Generated files that are checked in: the chart's custom resource definitions (from `crds/`) and
//! `manifests/install.yaml` (from the chart).
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::run;

use crate::{chart, root};

/// The command that regenerates them.
pub const REFRESH: &str = "cargo run -p e2e-operator --bin generate";
/// Namespace of the operator in `manifests/install.yaml`.
pub const NAMESPACE: &str = "rqlite-system";
/// Name of the Helm release from which `manifests/install.yaml` is rendered.
const RELEASE: &str = "rqlite-operator";
/// Kubernetes version that Helm assumes when it renders without an API server.
pub const KUBERNETES: &str = "1.34.0";
/// Lines that have no meaning outside Helm.
const HELM_ONLY: [&str; 3] = [
    "# Source: ",
    "helm.sh/chart: ",
    "app.kubernetes.io/managed-by: Helm",
];

/// A file with its expected content.
#[derive(Debug)]
pub struct Expected {
    /// Its path.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// The chart's templates of all custom resource definitions.
///
/// # Errors
/// If `crds/` cannot be read or contains anything else.
pub fn chart_definitions() -> Result<Vec<Expected>> {
    let folder = root().join("crds");
    let mut all = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let source = entry?.path();
        let text = fs::read_to_string(&source).with_context(|| source.display().to_string())?;
        let file = source.file_name().context("a file's name")?;
        let name = file.to_string_lossy().into_owned();
        all.push(Expected {
            path: chart().join("templates/crds").join(file),
            text: definition(&name, &text).with_context(|| source.display().to_string())?,
        });
    }
    ensure!(!all.is_empty(), "crds/ is empty");
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

/// One definition as a template: rendered if `crds.install` is set, kept on uninstall if `crds.keep` is set.
fn definition(file: &str, text: &str) -> Result<String> {
    let from = text.find("apiVersion:").context("there is no apiVersion")?;
    let body = text[from..].replace("{{", "{{ \"{{\" }}");
    let (head, rest) = body
        .split_once("\nspec:\n")
        .context("there is no spec at the top")?;
    ensure!(
        head.lines()
            .last()
            .is_some_and(|line| line.starts_with("  name: ")),
        "the metadata is more than a name"
    );
    Ok(format!(
        "{{{{/* Generated from crds/{file}; do not edit. To refresh: {REFRESH} */}}}}\n\
         {{{{- if .Values.crds.install }}}}\n\
         {head}\n  \
           labels:\n    \
             {{{{- include \"rqlite-operator.labels\" . | nindent 4 }}}}\n  \
           {{{{- if .Values.crds.keep }}}}\n  \
           annotations:\n    \
             helm.sh/resource-policy: keep\n  \
           {{{{- end }}}}\n\
         spec:\n\
         {rest}\
         {{{{- end }}}}\n"
    ))
}

/// `manifests/install.yaml`: the chart with its default values, for `kubectl apply`.
///
/// # Errors
/// If Helm rejects the chart.
pub fn manifest(helm: &Path) -> Result<Expected> {
    let mut command = Command::new(helm);
    command.args(["template", RELEASE]).arg(chart());
    command.args(["--namespace", NAMESPACE, "--kube-version", KUBERNETES]);
    command.args(["--set", "crds.keep=false"]);
    Ok(Expected {
        path: root().join("manifests/install.yaml"),
        text: without_helm(&run(&mut command)?),
    })
}

fn without_helm(rendered: &str) -> String {
    let mut text = format!(
        "# Everything that the operator needs, from charts/rqlite-operator with its default values; do not edit.\n\
         # To install or upgrade: kubectl apply --server-side -f install.yaml\n\
         # To refresh: {REFRESH}\n\
         apiVersion: v1\n\
         kind: Namespace\n\
         metadata:\n  \
           name: {NAMESPACE}\n  \
           labels:\n    \
             pod-security.kubernetes.io/enforce: restricted\n"
    );
    for line in rendered.lines() {
        let bare = line.trim_start();
        if !bare.is_empty() && !HELM_ONLY.iter().any(|own| bare.starts_with(own)) {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_becomes_a_template() {
        let source = "# x\napiVersion: a\nkind: K\nmetadata:\n  name: n\nspec:\n  a: '{{x}}'\n";
        let text = definition("f.yaml", source).unwrap();
        let expected = "{{- if .Values.crds.install }}\napiVersion: a\nkind: K\nmetadata:\n  name: n\n  labels:\n    \
             {{- include \"rqlite-operator.labels\" . | nindent 4 }}\n  {{- if .Values.crds.keep }}\n  annotations:\n    \
             helm.sh/resource-policy: keep\n  {{- end }}\nspec:\n  a: '{{ \"{{\" }}x}}'\n{{- end }}\n";
        assert_eq!(text.split_once('\n').unwrap().1, expected);
        assert!(definition("f.yaml", "apiVersion: a\nmetadata:\n  labels: {}\nspec:\n").is_err());
    }

    #[test]
    fn nothing_of_helm_is_left() {
        let text = without_helm("---\n# Source: a\nkind: A\n\n    helm.sh/chart: b\n    # kept\n");
        assert!(text.ends_with("\n---\nkind: A\n    # kept\n"), "{text}");
    }
}
