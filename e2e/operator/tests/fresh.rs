//! Generated files are up to date.
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e_operator::{
    chart,
    generated::{self, Expected, REFRESH},
    tool,
};

fn is_fresh(file: &Expected) -> Result<()> {
    let there = fs::read_to_string(&file.path).unwrap_or_default();
    let first = there
        .lines()
        .zip(file.text.lines())
        .position(|(a, b)| a != b);
    ensure!(
        there == file.text,
        "{} is stale from line {} on; refresh it with: {REFRESH}",
        file.path.display(),
        first.map_or(0, |line| line + 1)
    );
    Ok(())
}

#[test]
fn the_charts_definitions_are_those_of_crds() -> Result<()> {
    let all = generated::chart_definitions()?;
    all.iter().try_for_each(is_fresh)?;
    let folder = chart().join("templates/crds");
    let there = fs::read_dir(&folder)
        .context("the chart's definitions")?
        .count();
    assert_eq!(
        there,
        all.len(),
        "{} holds files that nothing generates",
        folder.display()
    );
    Ok(())
}

#[test]
fn the_manifest_is_the_charts() -> Result<()> {
    let Some(helm) = tool::helm() else {
        return tool::skip(
            "manifests/install.yaml against the chart",
            "run e2e/tools/build helm",
        );
    };
    is_fresh(&generated::manifest(&helm)?)
}
