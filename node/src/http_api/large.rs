//! Results that are too large for memory: written while they are read, at the pace of the client.
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use node_api::{Reply, ReplyWriter, Shape};
use node_db::Part;

use super::reply::ReplyBody;
use crate::store::Streamed;

struct Large {
    streamed: Streamed,
    writer: ReplyWriter,
    /// The client asked for times.
    timed: Option<Instant>,
    done: bool,
}

/// The content of such a reply. Dropping it, as hyper does when the client goes away, ends the read.
pub(super) fn body(streamed: Streamed, shape: Shape, timed: Option<Instant>) -> ReplyBody {
    let large = Large {
        streamed,
        writer: ReplyWriter::new(shape),
        timed,
        done: false,
    };
    ReplyBody::Chunks(Box::pin(stream::unfold(large, Large::next)))
}

impl Large {
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
