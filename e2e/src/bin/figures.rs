//! `figures`: sizes, import circles, arrows against the layers, wide comments and banned words of a checkout.
use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use e2e::repository::{
    Repository, imports::imports, layers::Layers, report::report, root, sample::sample,
    words::Words,
};

const USAGE: &str = "\
Usage: figures [--root PATH] [--layers FILE] [--words FILE] [--details]
       figures --imports [--root PATH]
       figures --sample N --seed S --before PATH [--root PATH]

Prints a table of figures of the checkout at PATH (this one unless --root names another), measured with this checkout's
e2e/layers.txt and e2e/words.txt unless others are named; --details lists what each figure counted.
With --imports: which file of a crate imports which, one pair on each line.
With --sample: N documented public items of the older checkout at --before, chosen by the seed, beside their counterparts.";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("figures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: impl Iterator<Item = String>) -> Result<String> {
    let mut measured = root();
    let mut layers = root().join("e2e/layers.txt");
    let mut words = root().join("e2e/words.txt");
    let (mut details, mut pairs, mut number, mut seed, mut before) = (false, false, None, 1, None);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--root" => measured = PathBuf::from(value()?),
            "--layers" => layers = PathBuf::from(value()?),
            "--words" => words = PathBuf::from(value()?),
            "--details" => details = true,
            "--imports" => pairs = true,
            "--sample" => number = Some(value()?.parse()?),
            "--seed" => seed = value()?.parse()?,
            "--before" => before = Some(PathBuf::from(value()?)),
            "--help" | "-h" => return Ok(USAGE.to_owned()),
            _ => bail!("unknown argument {arg}\n{USAGE}"),
        }
    }
    let repository = Repository::read(&measured)?;
    if let Some(number) = number {
        let before = before.context("--sample needs --before PATH")?;
        return Ok(sample(
            &Repository::read(&before)?,
            &repository,
            number,
            seed,
        ));
    }
    if pairs {
        let pairs = imports(&repository).into_iter();
        let lines: Vec<String> = pairs.map(|(from, to)| format!("{from} -> {to}")).collect();
        return Ok(lines.join("\n"));
    }
    let read =
        |path: &PathBuf| fs::read_to_string(path).with_context(|| path.display().to_string());
    let layers = Layers::parse(&read(&layers)?)?;
    report(
        &repository,
        &layers,
        &Words::parse(&read(&words)?)?,
        details,
    )
}
