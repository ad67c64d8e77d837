//! Replies: the envelope around the results of a request, and how results are written.
use node_values::StatementResult;
use serde::{Deserialize, Serialize};

mod stream;
mod write;

pub use stream::ReplyWriter;
pub use write::{Shape, write_reply};

/// The envelope of `/db/execute`, `/db/query` and `/db/request`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// One slot per statement that ran.
    pub results: Vec<StatementResult>,
    /// Why the request as a whole failed.
    pub error: Option<String>,
    /// Seconds that the whole request took; `Some` only with `timings`.
    pub time_secs: Option<f64>,
    /// Sequence number of a queued write.
    pub sequence_number: Option<i64>,
    /// Raft log index of the request; `Some` only with `raft_index`.
    pub raft_index: Option<u64>,
}
