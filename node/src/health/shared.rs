//! What all requests of the health listener share.
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{StatusCode, header::HeaderValue};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::recent::Recent;
use crate::{metrics::Metrics, store::Store};

/// Time without such a sign after which the process counts as stuck. Long, because a restart is a blunt tool.
const STUCK_AFTER: Duration = Duration::from_secs(30);

const TEXT: &str = "text/plain; charset=utf-8";

/// What is reported of the node.
#[derive(Clone, Debug)]
pub struct About {
    /// The database.
    pub store: Store,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the node stops: it is not ready any more.
    pub stopping: CancellationToken,
}

/// Status and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) content_type: HeaderValue,
    pub(super) text: Bytes,
}

impl Reply {
    pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type: HeaderValue::from_static(TEXT),
            text: text.into(),
        }
    }

    pub(super) fn unavailable(text: &'static str) -> Self {
        Self::text(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) about: OnceLock<About>,
    pub(super) main: Handle,
    started: Instant,
    /// The last sign of the main runtime, in milliseconds since the start.
    last_beat: AtomicU64,
    pub(super) ready: Recent<Reply>,
    pub(super) ready_and_synced: Recent<Reply>,
    pub(super) scrape: Recent<Reply>,
}

impl Shared {
    pub(super) fn new(main: Handle) -> Self {
        Self {
            about: OnceLock::new(),
            main,
            started: Instant::now(),
            last_beat: AtomicU64::new(0),
            ready: Recent::default(),
            ready_and_synced: Recent::default(),
            scrape: Recent::default(),
        }
    }

    /// Notes that the main runtime runs tasks.
    pub(super) fn beat(&self) {
        self.last_beat.store(self.now_millis(), Relaxed);
    }

    fn now_millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The main runtime has run a task lately.
    pub(super) fn is_alive(&self) -> bool {
        let silent = self
            .now_millis()
            .saturating_sub(self.last_beat.load(Relaxed));
        Duration::from_millis(silent) < STUCK_AFTER
    }
}
