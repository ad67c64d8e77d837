//! Reads on their callers' threads while one of them waits for the disk.
use node_values::Statement;

use super::{super::state::Settings, *};
use crate::{entry::Kind, sqlite::connection::Session};

#[test]
fn nobody_follows_a_read_that_is_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db.sqlite");
    let session = Session::open(&path, false, Default::default()).unwrap();
    let readers = Readers::new(Settings::few(path));
    let read = Read {
        kind: Kind::Query,
        transaction: false,
        qualify_columns: false,
        statements: vec![Statement {
            sql: "SELECT 1".into(),
            parameters: Vec::new(),
        }],
        timeout: None,
    };
    let runs = || readers.read_inline(&read, 1_000).is_some();
    let since = |age| lock(&readers.state).inline[0] = age;
    assert!(runs());
    since(Some(Instant::now()));
    assert!(runs(), "beside one that has just begun");
    since(Instant::now().checked_sub(STALLED_LIMIT * 2));
    assert!(!runs(), "beside one that is stuck");
    since(None);
    assert!(runs(), "after it");
    drop(session);
}
