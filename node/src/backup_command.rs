//! `rqlited backup` makes one backup of a running cluster, checks and uploads it, or (`-delete`) deletes one.
//! `rqlited fetch` downloads one into a file. All write what they did as JSON, for scripts and Jobs.
mod args;
mod cluster;
mod delete;
mod fetched;
mod report;

use std::{ffi::OsString, path::Path, time::Instant};

use node_db::Database;
use node_objects::{Config, Metadata, ObjectError, Use};
use tempfile::TempPath;

use self::{
    args::{BackupArgs, FetchArgs},
    cluster::Download,
    report::{Report, finished, joined},
};
use crate::{
    auto_backup::{
        name_at,
        settings::BackupKeys,
        upload::{Packing, sha256_of, upload_file},
    },
    clock::{now, rfc3339},
    inspect::{CommandOutput, parsed},
    restore::output::Output,
};

/// Runs `rqlited backup`; `arguments` are those after the word.
pub fn backup(arguments: impl Iterator<Item = OsString>) -> CommandOutput {
    match parsed::<BackupArgs>("rqlited backup", arguments) {
        Ok(args) => {
            let result_file = args.result_file.clone();
            let result_file = result_file.as_deref();
            match args.delete {
                true => finished(run(delete::delete(args)), result_file),
                false => finished(run(make_backup(args)), result_file),
            }
        }
        Err(output) => output,
    }
}

/// Runs `rqlited fetch`; `arguments` are those after the word.
pub fn fetch(arguments: impl Iterator<Item = OsString>) -> CommandOutput {
    match parsed::<FetchArgs>("rqlited fetch", arguments) {
        Ok(args) => {
            let result_file = args.result_file.clone();
            finished(run(fetch_backup(args)), result_file.as_deref())
        }
        Err(output) => output,
    }
}

fn run<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| format!("starting the runtime: {e}"))?;
    runtime.block_on(work)
}

async fn make_backup(args: BackupArgs) -> Result<Report, String> {
    let config = Config::<BackupKeys>::read(&args.config, Use::Object).map_err(|e| e.0)?;
    config.target.make_folder().map_err(|e| e.0)?;
    let (store, name) = config.target.open_object().map_err(|e| e.0)?;
    let began = Instant::now();
    let at = now();
    let vacuum = config.rest.vacuum || args.vacuum;
    let copy = scratch(args.scratch_dir.as_deref())?;
    let Download { source, index } = cluster::download(&args.cluster, vacuum, &copy).await?;
    sound(&copy, &format!("the backup that {source} sent")).await?;
    let bytes = length(&copy)?;
    let said = |e: std::io::Error| format!("reading the copy: {e}");
    let sha256 = sha256_of(&copy).await.map_err(said)?;
    let packing = match config.rest.no_compress || args.no_compress {
        true => Packing::None,
        false => Packing::Gzip,
    };
    let stamped = config.rest.timestamp || args.timestamp;
    let name = name_at(&name, stamped, at);
    let metadata: Metadata = [("rqlite_sha256".to_owned(), sha256.clone())].into();
    let sent = upload_file(&store, &name, &metadata, &copy, packing).await?;
    let stored_bytes = sent.bytes;
    // Compare with the length that the store reports: that object will be fetched one day.
    let kept = store
        .head(&name)
        .await
        .map_err(|e: ObjectError| e.to_string())?;
    let kept = kept.map_or(0, |meta| meta.bytes);
    if kept != stored_bytes {
        return Err(format!(
            "{stored_bytes} bytes were sent to '{name}' in {}, but it has {kept}",
            store.place()
        ));
    }
    let (folder, _) = config.target.folder_and_name();
    Ok(Report {
        object: joined(folder, &name),
        target: store.place().to_owned(),
        source: Some(source),
        file: None,
        index,
        bytes,
        stored_bytes,
        stored_sha256: Some(sent.sha256),
        compressed: packing == Packing::Gzip,
        sha256,
        integrity: "ok".to_owned(),
        started: rfc3339(at),
        seconds: began.elapsed().as_secs_f64(),
        program: crate::VERSION.to_owned(),
    })
}

async fn fetch_backup(args: FetchArgs) -> Result<Report, String> {
    let output = Output::new(&args.output).map_err(|e| e.to_string())?;
    let config = Config::<BackupKeys>::read(&args.config, Use::Object).map_err(|e| e.0)?;
    let (store, name) = config.target.open_object().map_err(|e| e.0)?;
    let (began, at) = (Instant::now(), now());
    let name = match &args.object {
        Some(given) => given.clone(),
        None if args.latest => fetched::latest(&store, &name).await?,
        None => name,
    };
    let copy = scratch(Some(output.dir()))?;
    let fetched = fetched::fetch(&store, &name, &copy).await?;
    let what = format!("object '{name}' in {}", store.place());
    sound(&copy, &what).await?;
    let said = |e: std::io::Error| format!("reading what was fetched: {e}");
    let sha256 = sha256_of(&copy).await.map_err(said)?;
    let expected = args.sha256.or(fetched.sha256);
    if let Some(expected) = expected.filter(|expected| !expected.eq_ignore_ascii_case(&sha256)) {
        return Err(format!(
            "{what} has the SHA-256 {sha256} instead of {expected}: it was damaged or replaced; fetch another backup"
        ));
    }
    let bytes = length(&copy)?;
    let made = copy.keep().map_err(|e| e.to_string())?;
    output.place(made).map_err(|e| e.to_string())?;
    let (folder, _) = config.target.folder_and_name();
    Ok(Report {
        object: joined(folder, &name),
        target: store.place().to_owned(),
        source: None,
        file: Some(output.path().display().to_string()),
        index: None,
        bytes,
        stored_bytes: fetched.stored_bytes,
        stored_sha256: None,
        compressed: fetched.was_packed,
        sha256,
        integrity: "ok".to_owned(),
        started: rfc3339(at),
        seconds: began.elapsed().as_secs_f64(),
        program: crate::VERSION.to_owned(),
    })
}

/// An empty file that is deleted unless it is kept.
fn scratch(dir: Option<&Path>) -> Result<TempPath, String> {
    let temporary = std::env::temp_dir();
    let dir = dir.unwrap_or(&temporary);
    let file = tempfile::Builder::new()
        .prefix("rqlited-backup-")
        .tempfile_in(dir);
    file.map(tempfile::NamedTempFile::into_temp_path)
        .map_err(|e| format!("{}: {e}", dir.display()))
}

fn length(path: &Path) -> Result<u64, String> {
    let meta = std::fs::metadata(path);
    meta.map(|meta| meta.len())
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// Checks by `integrity_check` that a file is an undamaged database.
async fn sound(path: &Path, what: &str) -> Result<(), String> {
    let checked = path.to_owned();
    let result = tokio::task::spawn_blocking(move || Database::validate_file(&checked)).await;
    result
        .map_err(|e| e.to_string())?
        .map_err(|why| format!("{what} is a damaged SQLite database, or none: {why}"))
}
