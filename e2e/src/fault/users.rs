//! What careless users do to a node while it is attacked: endless statements, abandoned loads, idle connections.
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use crate::{client::Client, wait};

/// A user's deed at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A SELECT without end whose client goes away.
    EndlessRead,
    /// An INSERT without end, with a `db_timeout` of a second.
    EndlessWrite,
    /// A load whose client goes away in the middle of its body.
    HalfLoad,
    /// A load whose client goes away before the answer.
    AbandonedLoad,
    /// Connections to both ports that say nothing.
    IdleFlood,
}

/// All deeds, for drawing one.
pub const DEEDS: [Deed; 5] = [
    Deed::EndlessRead,
    Deed::EndlessWrite,
    Deed::HalfLoad,
    Deed::AbandonedLoad,
    Deed::IdleFlood,
];

/// Where the deeds write, so that nothing else is disturbed.
pub const TABLE: &str = "CREATE TABLE careless(x)";
/// Counts without end.
const ENDLESS: &str =
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c";
/// Silent connections to each port.
const IDLE: usize = 200;
/// How long a user stays before he goes away.
const STAY: Duration = Duration::from_millis(700);
/// Statements of an abandoned load: some MiB, which take more than one entry of the log.
const LOAD_ROWS: usize = 20_000;

/// Does it to the node at these addresses and returns at once; what comes of it is not looked at.
pub fn act(deed: Deed, http: &str, raft: &str) {
    let (http, raft) = (http.to_owned(), raft.to_owned());
    // Ends by itself within a few seconds; a node that is down costs nothing.
    thread::spawn(move || match deed {
        Deed::EndlessRead => {
            let sql = ENDLESS.replace("SELECT x FROM c", "SELECT count(*) FROM c");
            let body = serde_json::json!([sql]).to_string();
            let _ = Client::new(&http)
                .timeout(STAY)
                .post("/db/query?level=none", &body);
        }
        Deed::EndlessWrite => {
            let body = serde_json::json!([format!("INSERT INTO careless {ENDLESS}")]).to_string();
            let _ = Client::new(&http)
                .timeout(STAY)
                .post("/db/execute?db_timeout=1s", &body);
        }
        Deed::HalfLoad => abandon_load(&http, 2),
        Deed::AbandonedLoad => abandon_load(&http, 1),
        Deed::IdleFlood => {
            let connections: Vec<_> = [&http, &raft]
                .into_iter()
                .flat_map(|addr| (0..IDLE).filter_map(move |_| TcpStream::connect(addr).ok()))
                .collect();
            wait::pace(STAY);
            drop(connections);
        }
    });
}

/// Sends one part in `parts` of a load and goes away soon afterwards.
fn abandon_load(http: &str, parts: usize) {
    let Ok(mut stream) = TcpStream::connect(http) else {
        return;
    };
    let mut script = String::from("BEGIN;\n");
    for row in 0..LOAD_ROWS {
        script.push_str(&format!(
            "INSERT INTO careless VALUES('row {row} of a load that nobody waits for');\n"
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
