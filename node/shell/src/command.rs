//! Parses an input line into a [`Command`]. Without I/O.

use crate::settings::{Consistency, Mode, Switch, parse_on_off};

/// A parsed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// A blank line.
    Nothing,
    /// End the session.
    Quit,
    /// A statement: every line that is not a command.
    Sql(String),
    Backup(String),
    Boot(String),
    /// Show or set the consistency level.
    Consistency(Option<Consistency>),
    /// Output file, and the tables to dump as a comma-separated list; none means all.
    Dump(String, Option<String>),
    /// Metrics, optionally one key.
    Expvar(Option<String>),
    Extensions,
    Help,
    Indexes,
    Leader,
    /// Show or set the output mode.
    Mode(Option<Mode>),
    /// Cluster members; with non-voters when true.
    Nodes(bool),
    /// Query output to a file, or back to standard output.
    Output(Option<String>),
    Read(String),
    Ready,
    Reap,
    Remove(String),
    Restore(String),
    Schema,
    Show,
    /// Number of log entries to keep.
    Snapshot(Option<u64>),
    /// Status, optionally one key.
    Status(Option<String>),
    /// Transfer leadership to this node, or to any.
    Stepdown(Option<String>),
    /// Show or set a switch.
    Switch(Switch, Option<bool>),
    Sysdump(String),
    Tables,
}

/// The text of `.help`: sorted, each line starting with its command.
pub(crate) const HELP: &str = "\
.backup FILE                Write a binary backup of the database to FILE
.blobarray [on|off]         Show or set whether BLOBs are shown as arrays of numbers
.boot FILE                  Boot a single-node cluster from the SQLite file FILE
.changes [on|off]           Show or set whether the last insert ID follows a write
.consistency [LEVEL]        Show or set the level for .tables, .indexes, .schema: none, weak, linearizable, strong
.dump FILE [TABLES]         Write the database, or a comma-separated list of tables, as SQL text to FILE
.exit                       Leave the shell
.expvar [KEY]               Show the metrics of the node, or one of them
.extensions                 Show the loaded SQLite extensions
.forcewrites [on|off]       Show or set whether every statement is sent to the write endpoint
.help                       Show this text
.indexes                    Show the statements that created the indexes
.leader                     Show the leader of the cluster
.mode [MODE]                Show or set the output mode: column, csv, json, line
.nodes [all]                Show the voting nodes of the cluster, or all nodes
.output [FILE]              Send query output to FILE, or back to the screen
.quit                       Leave the shell
.read FILE                  Run the statements in FILE, one per line
.ready                      Show whether the node is ready
.reap                       Remove snapshots that are not needed any more
.remove NODE-ID             Remove a node from the cluster
.restore FILE               Load a SQLite file or SQL text into the cluster
.schema                     Show the statements that created the database's objects
.show                       Show the settings
.snapshot [N]               Take a snapshot, optionally keeping N log entries
.status [KEY]               Show the status of the node, or one part of it
.stepdown [NODE-ID]         Hand leadership to another node, or to the named one
.sysdump FILE               Write the diagnostics of every node to FILE
.tables                     Show the names of the tables
.timer [on|off]             Show or set whether execution times are shown
";

/// Parses a line. The error is the text to show after `ERR!`.
pub(crate) fn parse(line: &str) -> Result<Command, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(Command::Nothing);
    }
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let word = word.to_ascii_lowercase();
    if !word.starts_with('.') {
        let quit = rest.is_empty() && matches!(word.trim_end_matches(';'), "quit" | "exit");
        return Ok(if quit {
            Command::Quit
        } else {
            Command::Sql(line.to_owned())
        });
    }
    let words = split_words(rest)?;
    let first = words.first().cloned();
    let need = |what: &str| {
        first
            .clone()
            .ok_or_else(|| format!("please specify {what}"))
    };
    let switch = |which| {
        let value = words
            .first()
            .map(|text| parse_on_off(&text.to_ascii_lowercase()))
            .transpose()?;
        Ok::<_, String>(Command::Switch(which, value))
    };
    Ok(match word.as_str() {
        ".backup" => Command::Backup(need("an output file for the backup")?),
        ".blobarray" => switch(Switch::BlobArray)?,
        ".boot" => Command::Boot(need("an input file to boot with")?),
        ".changes" => switch(Switch::Changes)?,
        ".consistency" => Command::Consistency(
            first
                .map(|text| Consistency::parse(&lower(&text)))
                .transpose()?,
        ),
        ".dump" => Command::Dump(
            need("an output file for the SQL text")?,
            words.get(1).cloned(),
        ),
        ".exit" | ".quit" => Command::Quit,
        ".expvar" => Command::Expvar(first),
        ".extensions" => Command::Extensions,
        ".forcewrites" => switch(Switch::ForceWrites)?,
        ".help" => Command::Help,
        ".indexes" => Command::Indexes,
        ".leader" => Command::Leader,
        ".mode" => Command::Mode(first.map(|text| Mode::parse(&lower(&text))).transpose()?),
        ".nodes" => Command::Nodes(all_nodes(first)?),
        ".output" => Command::Output(first.filter(|file| file != "stdout")),
        ".read" => Command::Read(need("an input file to read from")?),
        ".ready" => Command::Ready,
        ".reap" => Command::Reap,
        ".remove" => Command::Remove(need("the ID of the node to remove")?),
        ".restore" => Command::Restore(need("an input file to restore from")?),
        ".schema" => Command::Schema,
        ".show" => Command::Show,
        ".snapshot" => Command::Snapshot(first.map(trailing_logs).transpose()?),
        ".status" => Command::Status(first),
        ".stepdown" => Command::Stepdown(first),
        ".sysdump" => Command::Sysdump(need("an output file for the sysdump")?),
        ".tables" => Command::Tables,
        ".timer" => switch(Switch::Timer)?,
        _ => Command::Sql(line.to_owned()),
    })
}

fn lower(text: &str) -> String {
    text.to_ascii_lowercase()
}

fn all_nodes(argument: Option<String>) -> Result<bool, String> {
    match argument.as_deref().map(lower).as_deref() {
        None => Ok(false),
        Some("all") => Ok(true),
        Some(other) => Err(format!("invalid option '{other}'. Use 'all' or nothing")),
    }
}

fn trailing_logs(text: String) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("invalid trailing logs value: {text}"))
}

/// Splits at blanks, except inside single or double quotes, so that a file name may contain blanks. A quote
/// inside a word is an ordinary character.
fn split_words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(start) = rest.chars().next() {
        let (word, tail) = if start == '"' || start == '\'' {
            rest[1..]
                .split_once(start)
                .ok_or_else(|| format!("missing closing {start}"))?
        } else {
            rest.split_once(char::is_whitespace).unwrap_or((rest, ""))
        };
        words.push(word.to_owned());
        rest = tail.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn lines_become_commands() {
        for (line, expected) in [
            ("", Command::Nothing),
            ("  \t", Command::Nothing),
            ("quit", Command::Quit),
            ("EXIT", Command::Quit),
            (".Quit", Command::Quit),
            (".exit", Command::Quit),
            (" SELECT 1; ", Command::Sql("SELECT 1;".into())),
            ("exit now", Command::Sql("exit now".into())),
            (".unknown x", Command::Sql(".unknown x".into())),
            (".backup a.db", Command::Backup("a.db".into())),
            (".backup \"a b.db\"", Command::Backup("a b.db".into())),
            (".backup 'a b.db'", Command::Backup("a b.db".into())),
            (".boot x", Command::Boot("x".into())),
            (".consistency", Command::Consistency(None)),
            (
                ".consistency STRONG",
                Command::Consistency(Some(Consistency::Strong)),
            ),
            (".dump o.sql", Command::Dump("o.sql".into(), None)),
            (
                ".dump o.sql t1,t2",
                Command::Dump("o.sql".into(), some("t1,t2")),
            ),
            (".expvar store", Command::Expvar(some("store"))),
            (".extensions", Command::Extensions),
            (".help", Command::Help),
            (".indexes", Command::Indexes),
            (".leader", Command::Leader),
            (".mode", Command::Mode(None)),
            (".MODE csv", Command::Mode(Some(Mode::Csv))),
            (".nodes", Command::Nodes(false)),
            (".nodes ALL", Command::Nodes(true)),
            (".output", Command::Output(None)),
            (".output stdout", Command::Output(None)),
            (".output f", Command::Output(some("f"))),
            (".read f", Command::Read("f".into())),
            (".ready", Command::Ready),
            (".reap", Command::Reap),
            (".remove n1", Command::Remove("n1".into())),
            (".restore f", Command::Restore("f".into())),
            (".schema", Command::Schema),
            (".show", Command::Show),
            (".snapshot", Command::Snapshot(None)),
            (".snapshot 5", Command::Snapshot(Some(5))),
            (".status store.raft", Command::Status(some("store.raft"))),
            (".stepdown", Command::Stepdown(None)),
            (".stepdown n2", Command::Stepdown(some("n2"))),
            (".sysdump f", Command::Sysdump("f".into())),
            (".tables", Command::Tables),
            (".timer", Command::Switch(Switch::Timer, None)),
            (".timer on", Command::Switch(Switch::Timer, Some(true))),
            (
                ".changes off",
                Command::Switch(Switch::Changes, Some(false)),
            ),
            (
                ".blobarray on",
                Command::Switch(Switch::BlobArray, Some(true)),
            ),
            (
                ".forcewrites on",
                Command::Switch(Switch::ForceWrites, Some(true)),
            ),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        for (line, expected) in [
            (".backup", "please specify an output file for the backup"),
            (".restore", "please specify an input file to restore from"),
            (".boot", "please specify an input file to boot with"),
            (".sysdump", "please specify an output file for the sysdump"),
            (".dump", "please specify an output file for the SQL text"),
            (".read", "please specify an input file to read from"),
            (".remove", "please specify the ID of the node to remove"),
            (
                ".mode x",
                "invalid mode 'x'. Use 'column', 'csv', 'json', or 'line'",
            ),
            (
                ".consistency x",
                "invalid consistency 'x'. Use 'none', 'weak', 'linearizable', or 'strong'",
            ),
            (
                ".timer x",
                "invalid option 'x'. Use 'on' or 'off' (default)",
            ),
            (".snapshot x", "invalid trailing logs value: x"),
            (".snapshot -1", "invalid trailing logs value: -1"),
            (".nodes x", "invalid option 'x'. Use 'all' or nothing"),
            (".read 'a", "missing closing '"),
        ] {
            assert_eq!(parse(line), Err(expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn help_is_sorted_and_every_command_in_it_is_known() {
        let lines: Vec<&str> = HELP.lines().collect();
        assert!(lines.is_sorted(), "{HELP}");
        for line in lines {
            let word = line.split_whitespace().next().unwrap();
            assert!(!matches!(parse(word), Ok(Command::Sql(_))), "{word}");
        }
    }
}
