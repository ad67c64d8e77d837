//! The inter-node port: accepts connections and hands each to Raft or to the cluster room, by its stated purpose.
use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{Places, Standing, Visitor},
    requests::ClusterServer,
};
use crate::{
    internode::wire::{Connection, Purpose, Welcome},
    metrics::Counter,
    raft::network::server::Server as RaftServer,
};

/// Accepts until stopped. Raft connections are refused until `raft` is set.
pub async fn serve(
    listener: TcpListener,
    places: Arc<Places>,
    cluster: ClusterServer,
    raft: Arc<OnceLock<RaftServer>>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file descriptors, most likely: let some connections end.
                tracing::warn!(target: "mux", "accepting a connection: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(visitor) = places.enter(from.ip()) else {
            cluster.metrics.count(Counter::ClusterNumConnRejected);
            continue;
        };
        cluster.metrics.count(Counter::MuxNumConnectionsHandled);
        let (cluster, raft, stop) = (cluster.clone(), Arc::clone(&raft), stop.clone());
        tokio::spawn(async move {
            let sent_away = visitor.sent_away();
            let rejected = Arc::clone(&cluster.metrics);
            tokio::select! {
                () = stop.cancelled() => {}
                () = sent_away.cancelled() => {
                    rejected.count(Counter::ClusterNumConnRejected);
                    tracing::debug!(target: "mux", "connection from {from}: it was silent, and others wanted in");
                }
                result = greet(stream, from, visitor, cluster, raft.get()) => {
                    if let Err(e) = result {
                        tracing::debug!(target: "mux", "connection from {from}: {e}");
                    }
                }
            }
        });
    }
}

/// Hears who speaks and what for, and hands the connection on.
async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    mut visitor: Visitor,
    cluster: ClusterServer,
    raft: Option<&RaftServer>,
) -> io::Result<()> {
    let greeted = Connection::accept(stream, from).await;
    if let Err(e) = &greeted
        && e.kind() == ErrorKind::InvalidData
    {
        // Nobody here serves what it speaks.
        cluster.metrics.count(Counter::MuxNumUnregisteredHandlers);
    }
    let (mut connection, hello) = greeted?;
    if cluster.standing(&hello) == Standing::Member && !visitor.admit() {
        cluster.metrics.count(Counter::ClusterNumConnRejected);
        let full = "all places for members' connections are taken";
        return connection.answer(&Welcome::Refused(full.into())).await;
    }
    match (hello.purpose, raft) {
        (Purpose::Cluster, _) => cluster.serve(connection, hello, visitor).await,
        (Purpose::Append | Purpose::Beat | Purpose::Snapshot, Some(raft)) => {
            let _place = visitor;
            raft.clone().serve(connection, hello).await
        }
        (Purpose::Append | Purpose::Beat | Purpose::Snapshot, None) => {
            let starting = Welcome::Refused("the node is starting".into());
            connection.answer(&starting).await
        }
    }
}
