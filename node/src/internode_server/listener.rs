//! The listener of the inter-node port: accepts connections and passes each one to Raft or to the request
//! server, by its purpose.
use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{ConnectionSlots, Slot, Standing},
    requests::RequestServer,
};
use crate::{
    internode::wire::{Connection, Purpose, Welcome},
    metrics::Counter,
    raft::network::server::Server as RaftServer,
    transport::AcceptError,
};

/// Pause after a failure to accept. Most likely the process is out of file descriptors, and other connections
/// have to end first.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until stopped. Raft's connections are refused until `raft` is set.
pub async fn serve(
    listener: TcpListener,
    slots: Arc<ConnectionSlots>,
    requests: RequestServer,
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
                tracing::warn!(target: "mux", "accepting a connection: {e}");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                continue;
            }
        };
        let Some(slot) = slots.admit(from.ip()) else {
            requests.metrics.count(Counter::ClusterNumConnRejected);
            continue;
        };
        requests.metrics.count(Counter::MuxNumConnectionsHandled);
        let (requests, raft, stop) = (requests.clone(), Arc::clone(&raft), stop.clone());
        tokio::spawn(async move {
            let evicted = slot.evicted();
            let metrics = Arc::clone(&requests.metrics);
            tokio::select! {
                () = stop.cancelled() => {}
                () = evicted.cancelled() => {
                    metrics.count(Counter::ClusterNumConnRejected);
                    tracing::debug!(target: "mux", "connection from {from}: closed while idle, because other nodes needed its slot");
                }
                result = handle(stream, from, slot, requests, raft.get()) => {
                    if let Err(e) = result {
                        tracing::debug!(target: "mux", "connection from {from}: {e}");
                    }
                }
            }
        });
    }
}

/// Reads the hello and passes the connection on.
async fn handle(
    stream: TcpStream,
    from: SocketAddr,
    mut slot: Slot,
    requests: RequestServer,
    raft: Option<&RaftServer>,
) -> Result<(), AcceptError> {
    let accepted = Connection::accept(&requests.local.transport, stream, from).await;
    if let Err(e) = &accepted {
        match e {
            AcceptError::Plain => {
                requests.metrics.count(Counter::MuxNumPlainRefused);
                let why = std::io::Error::other(e.to_string());
                requests.local.transport.refused(from, &why);
            }
            AcceptError::Tls(e) => requests.local.transport.refused(from, e),
            // The other side speaks another protocol.
            AcceptError::Io(e) if e.kind() == ErrorKind::InvalidData => {
                requests.metrics.count(Counter::MuxNumUnregisteredHandlers);
            }
            AcceptError::Io(_) => {}
        }
    }
    let (mut connection, hello) = accepted?;
    if requests.standing(&hello) == Standing::Member && !slot.admit_member() {
        requests.metrics.count(Counter::ClusterNumConnRejected);
        let full = "all connection slots for members are in use";
        return Ok(connection.respond(&Welcome::Refused(full.into())).await?);
    }
    match (hello.purpose, raft) {
        (Purpose::Cluster, _) => requests.serve(connection, hello, slot).await?,
        (Purpose::Append | Purpose::Beat | Purpose::Snapshot, Some(raft)) => {
            let _slot = slot;
            raft.clone().serve(connection, hello).await?
        }
        (Purpose::Append | Purpose::Beat | Purpose::Snapshot, None) => {
            let starting = Welcome::Refused("the node is starting".into());
            connection.respond(&starting).await?;
        }
    }
    Ok(())
}
