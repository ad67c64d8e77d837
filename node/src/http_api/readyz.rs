//! `GET /readyz`: whether this node is ready for requests.
use std::sync::Arc;

use hyper::StatusCode;

use super::{
    param::Call,
    reply::{Response, TEXT},
    state::HttpState,
};
use crate::{metrics::Counter, store::Readiness};

pub(super) async fn handle(state: &Arc<HttpState>, call: &Call) -> Response {
    state.metrics.count(Counter::HttpNumReadyz);
    let params = &call.params;
    let (status, text) = if params.noleader {
        (StatusCode::OK, "[+]node ok".to_owned())
    } else {
        describe(
            state.store.ready(params.sync, params.timeout).await,
            params.sync,
            true,
        )
    };
    let mut response = state.replies.content(TEXT, text.into_bytes());
    *response.status_mut() = status;
    response
}

/// One line for each check that passed, and one for the first that failed; with or without the reason, which
/// may name addresses and files.
pub(crate) fn describe(readiness: Readiness, sync: bool, reasons: bool) -> (StatusCode, String) {
    let reason = |shown: String| if reasons { shown } else { String::new() };
    let synced = if sync { "\n[+]sync ok" } else { "" };
    let text = match readiness {
        Readiness::Ready => {
            return (
                StatusCode::OK,
                format!("[+]node ok\n[+]leader ok\n[+]store ok{synced}\n[+]db ok"),
            );
        }
        Readiness::NoLeader => "[+]node ok\n[+]leader does not exist".to_owned(),
        Readiness::LeaderNotContactable(why) => {
            let why = reason(format!(": {why}"));
            format!("[+]node ok\n[+]leader not contactable{why}")
        }
        Readiness::NotReady => "[+]node ok\n[+]leader ok\n[+]store not ready".to_owned(),
        Readiness::SyncFailed(why) => {
            let why = if reasons { why } else { "failed".to_owned() };
            format!("[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync {why}")
        }
        Readiness::DatabaseFailed(why) => {
            let why = reason(format!(": ({why})"));
            format!("[+]node ok\n[+]leader ok\n[+]store ok{synced}\n[+]db not ok{why}")
        }
    };
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let why = || "why".to_owned();
        let cases = [
            (
                Readiness::Ready,
                false,
                200,
                "[+]node ok\n[+]leader ok\n[+]store ok\n[+]db ok",
            ),
            (
                Readiness::Ready,
                true,
                200,
                "[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync ok\n[+]db ok",
            ),
            (
                Readiness::NoLeader,
                true,
                503,
                "[+]node ok\n[+]leader does not exist",
            ),
            (
                Readiness::LeaderNotContactable(why()),
                false,
                503,
                "[+]node ok\n[+]leader not contactable: why",
            ),
            (
                Readiness::NotReady,
                false,
                503,
                "[+]node ok\n[+]leader ok\n[+]store not ready",
            ),
            (
                Readiness::SyncFailed(why()),
                true,
                503,
                "[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync why",
            ),
            (
                Readiness::DatabaseFailed(why()),
                false,
                503,
                "[+]node ok\n[+]leader ok\n[+]store ok\n[+]db not ok: (why)",
            ),
        ];
        for (readiness, sync, status, text) in cases {
            let (got, shown) = describe(readiness, sync, true);
            assert_eq!((got.as_u16(), shown.as_str()), (status, text));
        }
        let brief = [
            Readiness::LeaderNotContactable(why()),
            Readiness::SyncFailed(why()),
            Readiness::DatabaseFailed(why()),
        ];
        for readiness in brief {
            let (status, shown) = describe(readiness, false, false);
            assert!(status == 503 && !shown.contains("why"), "{shown}");
        }
    }
}
