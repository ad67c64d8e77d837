//! The life cycle of a process, with `sh` in place of the node.
use super::*;

/// A node whose "binary" is a shell script: the flags become its ignored arguments.
fn fake(script: &str) -> Node {
    let mut node = Node::new("fake").unwrap();
    node.prefix = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    // `Node::start` still resolves `binary::rqlited`; the script ignores it.
    node
}

fn start(node: &mut Node) {
    let log = node.printed().open().unwrap();
    let child = Command::new(&node.prefix[0])
        .args(&node.prefix[1..])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap();
    node.child = Some(child);
}

fn await_log(node: &Node, text: &str) {
    wait::until(text, PROCESS_LIMIT, || {
        node.log()
            .contains(text)
            .then_some(())
            .ok_or_else(|| node.log())
    })
    .unwrap();
}

#[test]
fn stop_lets_the_process_end_in_its_own_way() {
    let mut node = fake("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.02; done");
    start(&mut node);
    await_log(&node, "up");
    assert_eq!(node.stop().unwrap().code(), Some(3));
    assert!(node.log_tail().ends_with("bye"), "{}", node.log_tail());
    assert!(!node.is_running());
}

#[test]
fn kill_reaches_the_whole_group() {
    let mut node = fake("trap '' TERM; sleep 1000 & echo child $!; wait");
    start(&mut node);
    await_log(&node, "child");
    let grandchild = node.log().split_whitespace().nth(1).unwrap().to_owned();
    node.kill().unwrap();
    let state = Path::new("/proc").join(grandchild).join("stat");
    wait::until(
        "the grandchild's end",
        PROCESS_LIMIT,
        || match fs::read_to_string(&state) {
            Ok(stat) if !stat.contains(") Z ") => Err(stat),
            _ => Ok(()),
        },
    )
    .unwrap();
}

#[test]
fn a_paused_process_makes_no_progress() {
    let mut node = fake("while :; do echo tick; sleep 0.01; done");
    start(&mut node);
    await_log(&node, "tick");
    node.pause().unwrap();
    let stat = format!("/proc/{}/stat", node.pid().unwrap());
    wait::until("the stop", PROCESS_LIMIT, || {
        let seen = fs::read_to_string(&stat).map_err(|error| error.to_string())?;
        // D: a shell that has just started a command waits for it, and that one was stopped first.
        if seen.contains(") T ") || seen.contains(") D ") {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .unwrap();
    let before = node.log().len();
    wait::throughout("pause", Duration::from_millis(100), || {
        if node.log().len() == before {
            Ok(())
        } else {
            Err("it printed".to_owned())
        }
    })
    .unwrap();
    node.resume().unwrap();
    wait::until("progress", PROCESS_LIMIT, || {
        (node.log().len() > before)
            .then_some(())
            .ok_or_else(String::new)
    })
    .unwrap();
}

#[test]
fn wiping_needs_a_stopped_node() {
    let mut node = fake("while :; do sleep 0.02; done");
    fs::create_dir_all(&node.data).unwrap();
    start(&mut node);
    assert!(node.wipe().is_err());
    node.kill().unwrap();
    node.wipe().unwrap();
    assert!(!node.data.exists());
}
