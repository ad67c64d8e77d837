//! Appends of any size over a real connection.
use bytes::Bytes;
use openraft::vote::RaftVote;
use tokio::net::TcpListener;

use super::*;
use crate::{
    command::Encoded,
    identity::Identity,
    internode::wire::{Hello, Purpose},
    raft::types::{Entry, Vote, log_id},
    transport::Transport,
};

/// The largest entry that was acknowledged before requests were limited.
const OLD_ENTRY_BYTES: usize = 84 << 20;

#[test]
fn large_appends_get_time() {
    assert_eq!(response_limit(1000), Duration::from_secs(10));
    assert_eq!(response_limit(84 << 20), Duration::from_secs(94));
}

/// A node that accepts an append of any size.
async fn follower(listener: TcpListener, speaks: u16) -> Option<usize> {
    let (stream, from) = listener.accept().await.unwrap();
    let (mut connection, _) = Connection::accept(&Transport::default(), stream, from)
        .await
        .unwrap();
    connection.version = speaks;
    connection.accepted().await.unwrap();
    let ask = read_frame(&mut connection.reader, MAX_APPEND_BYTES)
        .await
        .unwrap()?;
    let Request::Append(record) = ask else {
        panic!("{ask:?}");
    };
    connection
        .send(&Response::Append(AppendResponseRecord::Success))
        .await
        .unwrap();
    Some(record.entries.len())
}

/// Sends one append with an entry of this many bytes; returns the response, and what is recorded about the
/// target.
async fn send(bytes: usize, speaks: u16) -> (Result<u64, String>, Option<String>, Option<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::new("a");
    let local = Arc::new(Local::new(
        dir.path().to_owned(),
        identity,
        "a:4002".into(),
        "http://a:4001".into(),
        Duration::from_secs(5),
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let following = tokio::spawn(follower(listener, speaks));
    let hello = Hello {
        purpose: Purpose::Append,
        from: "a#1".into(),
        to: Some("b#1".into()),
        cluster: None,
        version: crate::version::NEWEST,
    };
    let mut connection =
        Connection::dial(&local.transport, &address, &hello, Duration::from_secs(5))
            .await
            .unwrap();
    connection.version = speaks;
    let append = AppendEntriesRequest {
        vote: Vote::from_leader_id(
            openraft::impls::leader_id_std::LeaderId {
                term: 1,
                voted_for: "a#1".into(),
            },
            true,
        ),
        prev_log_id: None,
        entries: vec![Entry {
            log_id: log_id(1, 7),
            payload: EntryPayload::Normal(Encoded::from_bytes(Bytes::from(vec![7; bytes]))),
        }],
        leader_commit: None,
    };
    let (unsendable, target) = (Unsendable::default(), RaftId::from("b#1"));
    let mut put_back = None;
    let reported = Target {
        local: &local,
        target: &target,
        unsendable: &unsendable,
    };
    let answers = replicate(connection, &mut put_back, stream::iter([append]), reported);
    let answer = Box::pin(answers).next().await.unwrap();
    let answer = match answer {
        Ok(Ok(upto)) => Ok(upto.unwrap().index),
        other => Err(format!("{other:?}")),
    };
    let said = unsendable.all().remove(&target);
    (answer, said, following.await.unwrap())
}

#[tokio::test]
async fn an_entry_of_an_old_log_still_replicates_but_not_to_a_node_that_refuses_it() {
    let (answer, said, entries) = send(OLD_ENTRY_BYTES, 2).await;
    assert_eq!((answer, said, entries), (Ok(7), None, Some(1)));
    let (answer, said, entries) = send(OLD_ENTRY_BYTES, 1).await;
    assert!(answer.is_err(), "{answer:?}");
    let said = said.unwrap();
    assert!(said.contains("a newer rqlited there takes more"), "{said}");
    assert_eq!(entries, None, "nothing was sent in vain");
    let (answer, said, _) = send(60 << 20, 1).await;
    assert_eq!((answer, said), (Ok(7), None), "as much as it takes");
    let (answer, said, _) = send(MAX_APPEND_BYTES, 2).await;
    assert!(answer.is_err() && said.is_some(), "{answer:?}");
}
