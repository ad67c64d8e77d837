//! The two ways of running: a session fed from standard input, and the lines of `-e`.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};

use anyhow::{Result, anyhow};

use crate::args::{self, ArgsError, Environment, Options, Request};
use crate::client::{Call, Client};
use crate::command::{self, Command};
use crate::commands::{self, Done, Session};
use crate::input::{self, Input};
use crate::user::{self, User};

/// Runs the shell with its arguments (program name first). True on success, and if failures are not reported
/// by the exit code. Fails only when `out` cannot be written.
pub(crate) fn run(arguments: Vec<OsString>, out: &mut dyn Write) -> io::Result<bool> {
    let mut out = BufWriter::new(out);
    let environment = Environment {
        host: std::env::var("RQLITE_HOST").ok(),
        user: std::env::var("RQLITE_USER").ok(),
        password: std::env::var("RQLITE_PASSWORD").ok(),
    };
    let mut options = match args::parse(arguments, &environment) {
        Ok(Request::Work(options)) => options,
        Ok(Request::Show(text)) => {
            out.write_all(text.as_bytes())?;
            out.flush()?;
            return Ok(true);
        }
        Err(ArgsError::Usage(text)) => {
            io::stderr().write_all(text.as_bytes())?;
            return Ok(false);
        }
        Err(ArgsError::Value(text)) => {
            writeln!(io::stderr(), "ERR! {text}")?;
            return Ok(false);
        }
    };
    if let User::Named(name) = &options.user {
        // From the terminal, even if lines come from standard input.
        let Ok(password) = rpassword::prompt_password(format!("Password for {name}: ")) else {
            writeln!(io::stderr(), "ERR! {}", user::no_password(name))?;
            return Ok(false);
        };
        options.user = User::Known(name.clone(), password);
    }
    let strict = options.exit_on_error || !options.lines.is_empty();
    let all_well = if options.lines.is_empty() {
        converse(&options, &mut out)?
    } else {
        batch(&options, &mut out)?
    };
    out.flush()?;
    Ok(all_well || !strict)
}

/// Runs the lines of `-e`: only their output goes to `out`, errors go to standard error.
fn batch(options: &Options, out: &mut dyn Write) -> io::Result<bool> {
    let mut errors = io::stderr();
    let client = match Client::new(options, Box::new(io::stderr())) {
        Ok(client) => client,
        Err(error) => {
            writeln!(errors, "ERR! {error:#}")?;
            return Ok(false);
        }
    };
    let mut session = Session::new(client, out, Some(&mut errors));
    let mut all_well = true;
    for line in &options.lines {
        match step(&mut session, Ok(line.clone()))? {
            Step::Quit => break,
            Step::Well => {}
            Step::Failed => all_well = false,
        }
        if !all_well && options.exit_on_error {
            break;
        }
    }
    Ok(all_well)
}

/// Runs a session: a greeting, then a prompt for each line until the end of input.
fn converse(options: &Options, out: &mut dyn Write) -> io::Result<bool> {
    let (client, version) = match connect(options) {
        Ok(connected) => connected,
        Err(error) => {
            writeln!(out, "ERR! {error:#}")?;
            return Ok(false);
        }
    };
    writeln!(
        out,
        "Welcome to the rqlite CLI.\nEnter \".help\" for usage hints."
    )?;
    writeln!(
        out,
        "Connected to {} running version {version}",
        client.base_url()
    )?;
    let mut input = match Input::open() {
        Ok(input) => input,
        Err(error) => {
            writeln!(out, "ERR! {error:#}")?;
            return Ok(false);
        }
    };
    let mut session = Session::new(client, out, None);
    let mut all_well = true;
    loop {
        let prompt = format!("{}> ", session.client.host());
        let line = match input.next(&prompt, session.screen()) {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                all_well = false;
                session.complain("ERR!", &format!("{error:#}"))?;
                break;
            }
        };
        match step(&mut session, input::text(line))? {
            Step::Quit => break,
            Step::Well => {}
            Step::Failed => all_well = false,
        }
        if !all_well && options.exit_on_error {
            break;
        }
    }
    writeln!(session.screen(), "bye~")?;
    if let Err(error) = input.close() {
        session.complain("ERR!", &format!("history not saved: {error:#}"))?;
    }
    Ok(all_well)
}

fn connect(options: &Options) -> Result<(Client, String)> {
    let mut client = Client::new(options, Box::new(io::stderr()))?;
    // The status does not matter: every response has the version in its headers.
    let response = client.send(&Call::get("status"))?;
    let version = response
        .headers()
        .get("X-RQLITE-VERSION")
        .and_then(|value| value.to_str().ok());
    let version = version.unwrap_or("unknown").to_owned();
    Ok((client, version))
}

/// The result of a line.
enum Step {
    Well,
    Failed,
    Quit,
}

fn step(session: &mut Session<'_>, line: Result<String>) -> io::Result<Step> {
    let parsed = line.and_then(|line| command::parse(&line).map_err(|text| anyhow!(text)));
    let done = match parsed {
        Ok(Command::Quit) => return Ok(Step::Quit),
        Ok(command) => commands::execute(session, command),
        Err(error) => Err(error),
    };
    let step = match done {
        Ok(Done::Well) => Step::Well,
        Ok(Done::Failed) => Step::Failed,
        Err(error) => {
            session.complain("ERR!", &format!("{error:#}"))?;
            Step::Failed
        }
    };
    session.screen().flush()?;
    Ok(step)
}
