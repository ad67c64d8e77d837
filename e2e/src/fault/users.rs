//! Misuse of a node by users during an attack: endless statements, abandoned loads, idle connections.
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use crate::{client::Client, wait};

/// One way in which a user misuses a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// A SELECT without end whose client disconnects.
    EndlessRead,
    /// An INSERT without end, with a `db_timeout` of one second.
    EndlessWrite,
    /// A load whose client disconnects in the middle of the body.
    HalfLoad,
    /// A load whose client disconnects before the reply.
    AbandonedLoad,
    /// Connections to both ports that send nothing.
    IdleFlood,
}

/// All kinds, to draw one from.
pub const ALL_MISUSES: [Misuse; 5] = [
    Misuse::EndlessRead,
    Misuse::EndlessWrite,
    Misuse::HalfLoad,
    Misuse::AbandonedLoad,
    Misuse::IdleFlood,
];

/// The table these requests write to, so that nothing else is disturbed.
pub const TABLE: &str = "CREATE TABLE careless(x)";
/// A common table expression that counts without end.
const ENDLESS: &str =
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c";
/// Idle connections to each port.
const IDLE: usize = 200;
/// How long a client stays before it disconnects.
const STAY: Duration = Duration::from_millis(700);
/// Statements of an abandoned load: several MiB, which need more than one log entry.
const LOAD_ROWS: usize = 20_000;

/// Misuses the node at these addresses. Returns at once; the result is ignored.
pub fn act(misuse: Misuse, http: &str, raft: &str) {
    let (http, raft) = (http.to_owned(), raft.to_owned());
    // The thread ends within a few seconds, also if the node is down.
    thread::spawn(move || match misuse {
        Misuse::EndlessRead => {
            let sql = ENDLESS.replace("SELECT x FROM c", "SELECT count(*) FROM c");
            let body = serde_json::json!([sql]).to_string();
            let _ = Client::new(&http)
                .timeout(STAY)
                .post("/db/query?level=none", &body);
        }
        Misuse::EndlessWrite => {
            let body = serde_json::json!([format!("INSERT INTO careless {ENDLESS}")]).to_string();
            let _ = Client::new(&http)
                .timeout(STAY)
                .post("/db/execute?db_timeout=1s", &body);
        }
        Misuse::HalfLoad => abandon_load(&http, 2),
        Misuse::AbandonedLoad => abandon_load(&http, 1),
        Misuse::IdleFlood => {
            let connections: Vec<_> = [&http, &raft]
                .into_iter()
                .flat_map(|addr| (0..IDLE).filter_map(move |_| TcpStream::connect(addr).ok()))
                .collect();
            wait::sleep(STAY);
            drop(connections);
        }
    });
}

/// Sends the first of `parts` parts of a load and disconnects soon afterwards.
fn abandon_load(http: &str, parts: usize) {
    let Ok(mut stream) = TcpStream::connect(http) else {
        return;
    };
    let mut script = String::from("BEGIN;\n");
    for row in 0..LOAD_ROWS {
        script.push_str(&format!(
            "INSERT INTO careless VALUES('row {row} of an abandoned load');\n"
        ));
    }
    script.push_str("COMMIT;\n");
    let head = format!(
        "POST /db/load HTTP/1.1\r\nHost: {http}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        script.len()
    );
    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&script.as_bytes()[..script.len() / parts]);
    let _ = stream.read(&mut [0; 1]);
    let _ = stream.shutdown(Shutdown::Both);
}
