//! The program of the image `localhost/rqlite-e2e`: see [`USAGE`] and [`e2e_kubernetes::numbered`].
use std::{env, fs, path::Path, process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use e2e_kubernetes::{
    command::until,
    numbered::{
        check,
        http::Server,
        record::{self, now_ms},
        report,
        write::{self, Folder},
    },
};

const USAGE: &str = "\
usage: numbered-writer FOLDER COMMAND
  write URL               write rows 1, 2, 3, ... until `stop`; then keep running for `report` and `check`
  report [LAST_MS]        print acknowledged writes and gaps, of the last LAST_MS milliseconds if given; as JSON
  stop                    stop writing, and wait until it has stopped
  user                    print the user that the connection Secret names, if there is one
  check URL [NODE_URL...] compare acknowledged rows with the database, and the nodes with each other; as JSON
URL is http[s]://[user:password@]host:port. What it leaves out is read from the files of the connection Secret
that is mounted at /access, before each request.";

/// Where the pod has the connection Secret.
const SECRET: &str = "/access";

/// Longer than a write may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match carry_out(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("numbered-writer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (folder, args) = args.split_first().context(USAGE)?;
    let folder = Folder::new(Path::new(folder));
    match args {
        ["write", url] => {
            write::write(&server(url)?, &folder)?;
            println!("stopped");
            loop {
                thread::park();
            }
        }
        ["report"] => print_report(&folder, None),
        ["report", last] => print_report(&folder, Some(last.parse().context("LAST_MS")?)),
        ["stop"] => stop(&folder),
        ["user"] => {
            let user = fs::read_to_string(Path::new(SECRET).join("username"));
            println!("{}", user.unwrap_or_default());
            Ok(())
        }
        ["check", url, nodes @ ..] => {
            let nodes: Vec<Server> = nodes.iter().map(|url| server(url)).collect::<Result<_>>()?;
            let entries = record::read(&folder.record())?;
            let found = check::check(&server(url)?, &nodes, &entries)?;
            println!("{}", serde_json::to_string(&found)?);
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}

fn server(url: &str) -> Result<Server> {
    Ok(Server::parse(url)?.with_secret(Path::new(SECRET)))
}

fn print_report(folder: &Folder, last_ms: Option<u64>) -> Result<()> {
    let entries = record::read(&folder.record())?;
    let now = now_ms();
    // Without a span the report begins with the first acknowledgement, because the time before is the
    // cluster's start.
    let first = entries.first().map_or(now, |entry| entry.at_ms);
    let from = last_ms.map_or(first, |last| now.saturating_sub(last));
    let mut seen = report::report(&entries, from, now);
    if let Ok(text) = fs::read_to_string(folder.failures()) {
        seen.failures = serde_json::from_str(&text).context("read the failures")?;
    }
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

fn stop(folder: &Folder) -> Result<()> {
    fs::write(folder.stop(), "").context("create the stop file")?;
    until("the writer to stop", STOP_LIMIT, || {
        ensure!(folder.stopped().exists(), "it has not stopped");
        Ok(())
    })
}
