//! Prints the software bill of materials of an image: `sbom PACKAGE... [--with PACKAGE-URL]...`.
use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use e2e_kubernetes::{
    command::run,
    sbom::{Source, document},
};

const USAGE: &str = "usage: sbom PACKAGE... [--with PACKAGE-URL]...";
/// Date of sources outside a repository.
const NO_DATE: &str = "1970-01-01T00:00:00Z";

fn main() -> ExitCode {
    match print() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sbom: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let is_option = |word: &String| word.starts_with('-');
    let count = args.iter().position(is_option).unwrap_or(args.len());
    let (packages, rest) = args.split_at(count);
    let mut with = Vec::new();
    for pair in rest.chunks(2) {
        match pair {
            [option, url] if option == "--with" => with.push(url.clone()),
            _ => bail!("{USAGE}"),
        }
    }
    if packages.is_empty() {
        bail!("{USAGE}");
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let git = |format: &str| {
        let mut log = Command::new("git");
        log.env("TZ", "UTC").arg("-C").arg(&repository);
        log.args([
            "log",
            "-1",
            "--date=format-local:%Y-%m-%dT%H:%M:%SZ",
            format,
        ]);
        run(&mut log).map(|text| text.trim().to_owned())
    };
    // Crates for other platforms are not compiled in.
    let platform = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut cargo = Command::new("cargo");
    cargo.args([
        "metadata",
        "--locked",
        "--format-version=1",
        "--filter-platform",
        &platform,
    ]);
    let metadata = run(cargo.current_dir(&repository))?;
    let document = document(&Source {
        metadata: &serde_json::from_str(&metadata).context("read cargo's answer")?,
        lock: &fs::read_to_string(repository.join("Cargo.lock")).context("read Cargo.lock")?,
        packages,
        with: &with,
        created: &git("--format=%cd").unwrap_or_else(|_| NO_DATE.to_owned()),
        revision: &git("--format=%H").unwrap_or_else(|_| "unknown".to_owned()),
    })?;
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}
