//! The inter-node port: accepts connections and hands each to Raft or to the cluster room, by its stated purpose.
use std::{
    io::ErrorKind,
    sync::{Arc, OnceLock},
};

use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::serve::ClusterServer,
    metrics::Counter,
    raft::serve::Server as RaftServer,
    wire::{Connection, Purpose, Welcome},
};

/// Inter-node connections at a time. A cluster of nine uses about thirty; forwarded calls of busy followers some dozens more.
const MAX_CONNECTIONS: usize = 512;

/// Accepts until stopped. Raft connections are refused until `raft` is set.
pub async fn serve(
    listener: TcpListener,
    cluster: ClusterServer,
    raft: Arc<OnceLock<RaftServer>>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            cluster.metrics.count(Counter::ClusterNumConnRejected);
            continue;
        };
        cluster.metrics.count(Counter::MuxNumConnectionsHandled);
        let (cluster, raft, stop) = (cluster.clone(), Arc::clone(&raft), stop.clone());
        tokio::spawn(async move {
            let serving = async {
                let greeted = Connection::accept(stream, from).await;
                if let Err(e) = &greeted
                    && e.kind() == ErrorKind::InvalidData
                {
                    // Nobody here serves what it speaks.
                    cluster.metrics.count(Counter::MuxNumUnregisteredHandlers);
                }
                let (mut connection, hello) = greeted?;
                match (hello.purpose, raft.get()) {
                    (Purpose::Cluster, _) => cluster.serve(connection, hello).await,
                    (Purpose::Append | Purpose::Beat | Purpose::Snapshot, Some(raft)) => {
                        raft.clone().serve(connection, hello).await
                    }
                    (Purpose::Append | Purpose::Beat | Purpose::Snapshot, None) => {
                        connection
                            .answer(&Welcome::Refused("the node is starting".into()))
                            .await
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                result = serving => {
                    if let Err(e) = result {
                        tracing::debug!(target: "mux", "connection from {from}: {e}");
                    }
                }
            }
            drop(permit);
        });
    }
}
