//! `restart`, `promote`, `sql`, and the request for new certificates.
use std::{
    io::{IsTerminal, Read, Write as _},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use operator_api::names;

use crate::{
    access::{Demands, Login, for_sql},
    manager,
    node::Nodes,
    statements,
    target::Target,
};

/// Seconds within which the operator should begin a restart.
const TAKEN_UP_SECONDS: u64 = 10;
/// Field manager of this program's changes.
const FIELD_MANAGER: &str = "kubectl-rqlite";

/// Requests a restart of all nodes from the operator, by an annotation.
pub(crate) async fn restart(target: &Target) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now().to_string();
    let patch = serde_json::json!({
        "metadata": {"annotations": {names::RESTARTED_AT_ANNOTATION: now}}
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let clusters = target.clusters();
    let cluster = target.cluster().await?;
    if let Some(unmanaged) = manager::unmanaged(&cluster) {
        bail!("nothing would restart {}: {unmanaged}", target.name);
    }
    clusters
        .patch(&target.name, &params, &Patch::Merge(&patch))
        .await
        .with_context(|| format!("writing the annotation to {}", target.name))?;
    let name = &target.name;
    let watch = format!("kubectl rqlite status {name} -n {}", target.namespace);
    let said = match manager::waits_for(&cluster) {
        Some(wait) => format!("a restart of {name} is requested; {wait}"),
        None if taken_up(target, &now).await? => {
            format!("{name} restarts one node at a time")
        }
        None => format!(
            "a restart of {name} is requested; the operator has not begun it within {TAKEN_UP_SECONDS} s"
        ),
    };
    println!("{said}. Watch: {watch}");
    Ok(ExitCode::SUCCESS)
}

/// Requests new certificates from the operator, by an annotation. `what`: leaf or authority.
pub(crate) async fn rotate(target: &Target, what: &str) -> anyhow::Result<ExitCode> {
    let cluster = target.cluster().await?;
    let name = &target.name;
    if let Some(unmanaged) = manager::unmanaged(&cluster) {
        bail!("nothing would renew the certificates of {name}: {unmanaged}");
    }
    let tls = cluster.status.and_then(|status| status.tls);
    if tls.is_none_or(|tls| tls.nodes.certificate.is_none() && tls.clients.certificate.is_none()) {
        bail!("{name} has no certificates: spec.tls asks for them");
    }
    let value = format!("{what} {}", Timestamp::now());
    let patch = serde_json::json!({
        "metadata": {"annotations": {names::ROTATE_CERTIFICATES_ANNOTATION: value}}
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let clusters = target.clusters();
    let sent = clusters.patch(name, &params, &Patch::Merge(&patch)).await;
    sent.with_context(|| format!("writing the annotation to {name}"))?;
    println!(
        "new certificates of {name} are requested. Watch: kubectl rqlite certificates {name} -n {}",
        target.namespace
    );
    Ok(ExitCode::SUCCESS)
}

/// Has the operator begun the restart that was requested at this time? Until then the cluster may still be
/// Ready, so that waiting for it would end at once.
async fn taken_up(target: &Target, at: &str) -> anyhow::Result<bool> {
    for _ in 0..TAKEN_UP_SECONDS * 5 {
        let cluster = target.cluster().await?;
        let inputs = cluster.status.and_then(|status| status.target?.inputs);
        if inputs.is_some_and(|inputs| inputs.restarted_at.as_deref() == Some(at)) {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(false)
}

/// Transfers leadership to a pod.
pub(crate) async fn promote(
    target: &Target,
    pod: &str,
    user: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let leader = target.leader().await?;
    if leader == pod {
        println!("{pod} is already the leader");
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = target.cluster().await?;
    let nodes = Nodes::of(target, &cluster, user).await?;
    let status = cluster.status.unwrap_or_default();
    let voters: Vec<&str> = status
        .members
        .iter()
        .filter(|m| m.role == operator_api::status::Role::Voter)
        .map(|m| m.name.as_str())
        .collect();
    if !voters.contains(&pod) {
        bail!(
            "{pod} is not a voter that could lead: choose one of {}",
            voters.join(", ")
        );
    }
    nodes.transfer_leadership(&leader, pod).await?;
    println!("{pod} is the leader");
    Ok(ExitCode::SUCCESS)
}

/// Bytes of statements that are sent with one kubectl exec: they are part of its URL.
const MAX_SENT_BYTES: usize = 16 * 1024;

/// Where the certificate for clients is in a pod.
const CERTIFICATES: &str = "/etc/rqlite/http-tls";

/// Runs statements in the leader's pod, or opens the shell there.
pub(crate) async fn sql(
    target: &Target,
    user: Option<&str>,
    arguments: &[String],
) -> anyhow::Result<ExitCode> {
    let cluster = target.cluster().await?;
    let leader = target.leader().await?;
    let login = for_sql(target, &cluster, user).await?;
    let domain = cluster.domain(names::USUAL_DOMAIN);
    let host = format!(
        "{leader}.{}.{}.svc.{domain}",
        names::headless(&target.name),
        target.namespace
    );
    let connect = connect_arguments(Demands::of(&cluster), &host, login.is_some());
    for (input, shell_arguments) in calls(arguments, std::io::stdin().is_terminal())? {
        let shell_arguments = [connect.clone(), shell_arguments].concat();
        let through = match (&login, input) {
            (None, input) => input,
            (Some(_), _) => Stdin::Stream,
        };
        let kubectl_arguments = exec_arguments(
            target.context.as_deref(),
            &target.namespace,
            &leader,
            through,
            &shell_arguments,
        );
        let ended = run(&kubectl_arguments, login.as_ref(), input)?;
        if !ended.success() {
            let code = ended.code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(1)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Arguments with which the shell in the pod reaches its node. The user is in the first line of standard
/// input, because arguments appear in the process lists of both machines.
fn connect_arguments(demands: Demands, host: &str, logs_in: bool) -> Vec<String> {
    let mut all = Vec::new();
    if demands.tls {
        all.extend(["-s", "https", "-H", host, "-c"].map(str::to_owned));
        all.push(format!("{CERTIFICATES}/ca.crt"));
    }
    if demands.certificate {
        all.push(format!("--client-cert={CERTIFICATES}/tls.crt"));
        all.push(format!("--client-key={CERTIFICATES}/tls.key"));
    }
    if logs_in {
        all.push("--user-file=-".to_owned());
    }
    all
}

/// Runs kubectl. With a login, its standard input is the login's line, followed by this program's standard
/// input.
fn run(
    arguments: &[String],
    login: Option<&Login>,
    input: Stdin,
) -> anyhow::Result<std::process::ExitStatus> {
    let mut command = Command::new("kubectl");
    command.args(arguments);
    let starting = "starting kubectl: is it on the PATH?";
    let Some(login) = login else {
        return command.status().context(starting);
    };
    let mut child = command.stdin(Stdio::piped()).spawn().context(starting)?;
    let mut sink = child.stdin.take().context("no standard input")?;
    sink.write_all(login.line().as_bytes())?;
    if input == Stdin::None {
        drop(sink);
        return child.wait().context(starting);
    }
    if input == Stdin::Terminal {
        eprintln!(
            "Connected as {}: one statement or command per line, such as .tables; .exit ends it.",
            login.user
        );
    }
    // The thread ends with the program, because a read from a terminal cannot be interrupted.
    std::thread::spawn(move || {
        let mut lines = std::io::stdin().lines();
        while let Some(Ok(line)) = lines.next() {
            if writeln!(sink, "{line}").is_err() {
                return;
            }
        }
    });
    child.wait().context(starting)
}

/// What kubectl exec does with standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stdin {
    None,
    Stream,
    Terminal,
}

/// The runs of `rqlite` in the pod, each with its arguments.
fn calls(arguments: &[String], terminal: bool) -> anyhow::Result<Vec<(Stdin, Vec<String>)>> {
    if arguments
        .first()
        .is_some_and(|first| first.starts_with('-'))
    {
        let stdin = if terminal {
            Stdin::Terminal
        } else {
            Stdin::Stream
        };
        return Ok(vec![(stdin, arguments.to_vec())]);
    }
    if !arguments.is_empty() {
        return batches(arguments);
    }
    if terminal {
        return Ok(vec![(Stdin::Terminal, Vec::new())]);
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("reading SQL from standard input")?;
    batches(&statements::split(&text))
}

/// Divides statements among runs of `rqlite`. A run ends with its first statement that fails.
fn batches(statements: &[String]) -> anyhow::Result<Vec<(Stdin, Vec<String>)>> {
    let mut all: Vec<(Stdin, Vec<String>)> = Vec::new();
    let mut bytes = MAX_SENT_BYTES;
    for statement in statements {
        if statement.len() > MAX_SENT_BYTES {
            bail!(
                "a statement of {} KiB is too long for kubectl exec: forward a port (kubectl port-forward) and send it to /db/execute or /db/load",
                statement.len() / 1024
            );
        }
        if bytes + statement.len() > MAX_SENT_BYTES {
            all.push((Stdin::None, vec!["--exit-on-error".to_owned()]));
            bytes = 0;
        }
        bytes += statement.len();
        if let Some((_, call)) = all.last_mut() {
            call.extend(["-e".to_owned(), statement.clone()]);
        }
    }
    Ok(all)
}

fn exec_arguments(
    context: Option<&str>,
    namespace: &str,
    pod: &str,
    stdin: Stdin,
    arguments: &[String],
) -> Vec<String> {
    let mut kubectl_arguments: Vec<String> = Vec::new();
    kubectl_arguments.extend(context.map(|context| format!("--context={context}")));
    kubectl_arguments.push("exec".to_owned());
    match stdin {
        Stdin::None => {}
        Stdin::Stream => kubectl_arguments.push("-i".to_owned()),
        Stdin::Terminal => kubectl_arguments.push("-it".to_owned()),
    }
    let fixed = ["-n", namespace, pod, "-c", "rqlited", "--", "rqlite"];
    kubectl_arguments.extend(fixed.map(str::to_owned));
    kubectl_arguments.extend(arguments.iter().cloned());
    kubectl_arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_runs_in_the_leaders_pod() {
        let arguments = ["-f".to_owned(), "json".to_owned()];
        let line =
            |stdin| exec_arguments(Some("prod"), "shop", "demo-1", stdin, &arguments).join(" ");
        let end = "-n shop demo-1 -c rqlited -- rqlite -f json";
        for (stdin, begin) in [
            (Stdin::None, "--context=prod exec "),
            (Stdin::Stream, "--context=prod exec -i "),
            (Stdin::Terminal, "--context=prod exec -it "),
        ] {
            assert_eq!(line(stdin), format!("{begin}{end}"));
        }
    }

    #[test]
    fn the_shell_is_told_how_to_connect_without_the_password() {
        let demands = |user, tls, certificate| Demands {
            user,
            tls,
            certificate,
        };
        let line = |demands, logs_in| connect_arguments(demands, "demo-0.x", logs_in).join(" ");
        assert_eq!(line(demands(false, false, false), false), "");
        assert_eq!(line(demands(true, false, false), true), "--user-file=-");
        assert_eq!(
            line(demands(true, true, false), true),
            "-s https -H demo-0.x -c /etc/rqlite/http-tls/ca.crt --user-file=-"
        );
        assert!(line(demands(false, true, true), false).ends_with("tls.key"));
    }

    #[test]
    fn statements_become_calls() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let found = calls(&words(&["SELECT 1", ".tables"]), true).unwrap();
        let expected = words(&["--exit-on-error", "-e", "SELECT 1", "-e", ".tables"]);
        assert_eq!(found, [(Stdin::None, expected)]);
        let flags = words(&["-t", "5s"]);
        assert_eq!(
            calls(&flags, true).unwrap(),
            [(Stdin::Terminal, flags.clone())]
        );
        assert_eq!(
            calls(&flags, false).unwrap(),
            [(Stdin::Stream, flags.clone())]
        );
        assert_eq!(calls(&[], true).unwrap(), [(Stdin::Terminal, vec![])]);
        let long = vec!["x".repeat(MAX_SENT_BYTES / 2 + 1); 3];
        assert_eq!(batches(&long).unwrap().len(), 3);
        assert!(batches(&["x".repeat(MAX_SENT_BYTES + 1)]).is_err());
    }
}
