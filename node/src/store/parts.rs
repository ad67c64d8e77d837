//! Large results in transit: from a reader thread of this node, or from the leader over its connection.
use std::{sync::Arc, time::Duration};

use node_db::{Part, Parts};
use node_values::StatementResult;
use tokio::time::timeout;

use crate::{
    internode::{transfer::TRANSFER_IDLE_TIMEOUT, wire::Connection},
    metrics::{Counter, Metrics},
    store_types::Served,
};

/// A node that sends a result in parts sends an empty part after this long without one, so that the receiver
/// does not time out.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// A served read.
#[derive(Debug)]
pub enum ReadResponse {
    /// All of it.
    Whole(Served),
    /// More than is held in memory.
    Parts(Streamed),
}

/// A large result, piece by piece. Dropping it ends the read, here or on the node that reads.
#[derive(Debug)]
pub struct Streamed {
    /// As [`Served::served_by`].
    pub served_by: String,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Here { parts: Parts, metrics: Arc<Metrics> },
    There(Box<Connection>),
}

impl Streamed {
    pub(super) fn here(parts: Parts, served_by: String, metrics: Arc<Metrics>) -> Self {
        Self {
            served_by,
            source: Source::Here { parts, metrics },
        }
    }

    pub(super) fn there(connection: Connection, served_by: String) -> Self {
        Self {
            served_by,
            source: Source::There(Box::new(connection)),
        }
    }

    /// The next piece; the last one is [`Part::Done`]. Cancel safe for a read on this node.
    pub async fn next(&mut self) -> Part {
        match &mut self.source {
            Source::Here { parts, metrics } => {
                let part = parts.next().await;
                let part = part.unwrap_or_else(|| broke_off("the database was closed"));
                if is_failure(&part) {
                    metrics.count(Counter::DbQueryErrors);
                }
                part
            }
            Source::There(connection) => {
                let from = &self.served_by;
                match timeout(TRANSFER_IDLE_TIMEOUT, connection.receive()).await {
                    Ok(Ok(Some(part))) => part,
                    Ok(Ok(None)) => broke_off(&format!("{from} closed the connection")),
                    Ok(Err(error)) => broke_off(&format!("connection with {from}: {error}")),
                    Err(_) => broke_off(&format!("timeout waiting for {from}")),
                }
            }
        }
    }
}

fn broke_off(why: &str) -> Part {
    Part::Done {
        error: Some(format!("the result broke off: {why}")),
    }
}

fn is_failure(part: &Part) -> bool {
    matches!(
        part,
        Part::Result(StatementResult::Error(_)) | Part::End { error: Some(_), .. }
    )
}
