//! Writes the generated files: the chart's definitions, and with Helm also `manifests/install.yaml`.
use std::{fs, process::ExitCode};

use anyhow::{Context, Result};
use e2e_operator::{generated, tool};

fn main() -> ExitCode {
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<()> {
    // The manifest is rendered from the chart on disk, so the definitions come first.
    for file in generated::chart_definitions()? {
        fs::write(&file.path, file.text).with_context(|| file.path.display().to_string())?;
    }
    let helm = tool::helm().context(
        "the chart's definitions are written; manifests/install.yaml needs Helm: run e2e/tools/build helm",
    )?;
    let manifest = generated::manifest(&helm)?;
    fs::write(&manifest.path, manifest.text).with_context(|| manifest.path.display().to_string())
}
