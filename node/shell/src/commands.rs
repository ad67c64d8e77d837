//! The commands: each takes the [`Session`], sends requests to the node, and prints.

mod cluster;
mod diagnostics;
mod session;
mod statement;
mod transfer;

use std::fs::File;
use std::io::BufWriter;

use anyhow::{Context, Result};

use self::session::print;
pub(crate) use self::session::{Done, Session};
use crate::command::{Command, HELP};
use crate::settings::{Settings, Switch, on_off};

/// Carries out any command but [`Command::Quit`], which ends the session before this is called.
pub(crate) fn execute(session: &mut Session<'_>, command: Command) -> Result<Done> {
    let done = dispatch(session, command)?;
    session.flush_sink()?;
    Ok(done)
}

fn dispatch(session: &mut Session<'_>, command: Command) -> Result<Done> {
    match command {
        Command::Nothing | Command::Quit => Ok(Done::Well),
        Command::Sql(sql) => statement::run(session, &sql),
        Command::Read(file) => statement::read_file(session, &file),
        Command::Tables => statement::catalog(session, statement::TABLES),
        Command::Indexes => statement::catalog(session, statement::INDEXES),
        Command::Schema => statement::catalog(session, statement::SCHEMA),
        Command::Backup(file) => transfer::backup(session, &file),
        Command::Dump(file, tables) => transfer::dump(session, &file, tables.as_deref()),
        Command::Restore(file) => transfer::restore(session, &file),
        Command::Boot(file) => transfer::boot(session, &file),
        Command::Leader => cluster::leader(session),
        Command::Nodes(all) => cluster::nodes(session, all),
        Command::Ready => cluster::ready(session),
        Command::Reap => cluster::reap(session),
        Command::Remove(id) => cluster::remove(session, &id),
        Command::Snapshot(trailing_logs) => cluster::snapshot(session, trailing_logs),
        Command::Stepdown(id) => cluster::stepdown(session, id.as_deref()),
        Command::Status(key) => diagnostics::tree_of(session, "status", key.as_deref()),
        Command::Expvar(key) => diagnostics::tree_of(session, "debug/vars", key.as_deref()),
        Command::Extensions => diagnostics::extensions(session),
        Command::Sysdump(file) => diagnostics::sysdump(session, &file),
        Command::Help => print(session, HELP.trim_end()),
        Command::Mode(mode) => set_or_show(
            session,
            mode,
            |settings| &mut settings.mode,
            |value| value.as_str(),
        ),
        Command::Consistency(level) => set_or_show(
            session,
            level,
            |settings| &mut settings.consistency,
            |value| value.as_str(),
        ),
        Command::Switch(switch, value) => switch_or_show(session, switch, value),
        Command::Output(file) => output(session, file),
        Command::Show => {
            session.settings.write(session.screen)?;
            Ok(Done::Well)
        }
    }
}

fn set_or_show<T: Copy>(
    session: &mut Session<'_>,
    new: Option<T>,
    field: impl Fn(&mut Settings) -> &mut T,
    name: impl Fn(T) -> &'static str,
) -> Result<Done> {
    let current = field(&mut session.settings);
    match new {
        Some(value) => {
            *current = value;
            Ok(Done::Well)
        }
        None => {
            let text = name(*current);
            print(session, text)
        }
    }
}

fn switch_or_show(session: &mut Session<'_>, switch: Switch, new: Option<bool>) -> Result<Done> {
    set_or_show(session, new, |settings| settings.switch(switch), on_off)
}

fn output(session: &mut Session<'_>, file: Option<String>) -> Result<Done> {
    session.sink = match &file {
        Some(path) => Some(BufWriter::new(
            File::create(path).with_context(|| path.clone())?,
        )),
        None => None,
    };
    session.settings.output = file;
    Ok(Done::Well)
}
