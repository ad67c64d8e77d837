//! Results that are too large for memory: sent to the client while they are read, as fast as it receives
//! them.
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use node_api::{Reply, ReplyWriter, Shape};
use node_db::Part;

use super::reply::ReplyBody;
use crate::store::Streamed;

struct StreamedReply {
    streamed: Streamed,
    writer: ReplyWriter,
    /// When the request began, if the client requested times.
    timed: Option<Instant>,
    done: bool,
}

/// The body of the reply. hyper drops it when the client disconnects, which ends the read.
pub(super) fn body(streamed: Streamed, shape: Shape, timed: Option<Instant>) -> ReplyBody {
    let reply = StreamedReply {
        streamed,
        writer: ReplyWriter::new(shape),
        timed,
        done: false,
    };
    ReplyBody::Chunks(Box::pin(stream::unfold(reply, StreamedReply::next)))
}

impl StreamedReply {
    async fn next(mut self) -> Option<(std::io::Result<Bytes>, Self)> {
        if self.done {
            return None;
        }
        let mut json = Vec::new();
        while json.is_empty() {
            let part = self.streamed.next().await;
            self.write(&mut json, part);
        }
        Some((Ok(Bytes::from(json)), self))
    }

    fn write(&mut self, out: &mut Vec<u8>, part: Part) {
        let writer = &mut self.writer;
        match part {
            Part::Result(result) => writer.result(out, &result),
            Part::Begin { columns, types } => writer.begin_rows(out, &columns, &types),
            Part::Rows(rows) => writer.rows(out, &rows),
            Part::End { time_secs, error } => writer.end_rows(out, time_secs, error.as_deref()),
            Part::Done { error } => {
                let reply = Reply {
                    error,
                    time_secs: self.timed.map(|started| started.elapsed().as_secs_f64()),
                    ..Reply::default()
                };
                writer.finish(out, &reply);
                self.done = true;
            }
        }
    }
}
