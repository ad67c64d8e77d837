//! Who makes a call to the store, and how long they wait.
use std::{net::SocketAddr, time::Duration};

use node_api::param::DEFAULT_TIMEOUT;
use node_db::Origin;

use crate::store_types::Credentials;

/// The caller of a store operation, and how long it waits.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `None` for an anonymous caller.
    pub credentials: Option<Credentials>,
    /// Limit for talking to another node (default 30 s).
    pub timeout: Duration,
    /// Additional attempts when forwarding fails before anything was sent.
    pub retries: u32,
    /// The client's address, if the caller is a client.
    pub client: Option<SocketAddr>,
}

impl Caller {
    /// Whether a forwarded call may take longer than `timeout` while the leader works: a caller that did not
    /// ask for less than the default wants the result.
    pub(super) fn is_patient(timeout: Duration) -> bool {
        timeout >= DEFAULT_TIMEOUT
    }

    /// For the list of running statements.
    pub(super) fn origin(&self) -> Origin {
        let credentials = self.credentials.as_ref();
        Origin {
            client: self.client,
            user: credentials.map(|given| given.username.clone()),
            via: None,
        }
    }
}
