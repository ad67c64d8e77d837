//! The node at the other end of a connection, as the caller of the work that it forwards.
use std::future::Future;

use node_db::Origin;

use crate::{
    identity::name_of,
    internode::wire::{Connection, Hello},
    store_types::Credentials,
};

/// For whom a forwarded read runs, as far as this node knows; shown in the list of running statements.
pub(super) fn origin_of(hello: &Hello, credentials: &Option<Credentials>) -> Origin {
    Origin {
        client: None,
        user: credentials.as_ref().map(|given| given.username.clone()),
        via: Some(name_of(&hello.from).to_owned()),
    }
}

/// Runs `work`. Returns `None`, and drops the work, as soon as the other side has closed the connection.
pub(super) async fn while_connected<T>(
    connection: &mut Connection,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = connection.closed() => None,
    }
}
