//! The node at the other end of a connection, as the caller of the work that it forwards.
use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    slice,
    sync::Arc,
};

use node_db::Origin;

use super::admission::Standing;
use crate::{
    audit::Notes,
    auth::LoginFrom,
    identity::name_of,
    internode::wire::{Connection, Hello},
    store_types::Credentials,
};

/// The other node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer<'a> {
    pub(super) hello: &'a Hello,
    /// What the hello proves.
    pub(super) standing: Standing,
    /// It has shown a certificate, and it was verified.
    pub(super) verified: bool,
    /// The address from which it has connected.
    pub(super) address: Option<SocketAddr>,
    /// For the audit log: of the request, or of each write in it. Empty without one.
    pub(super) notes: &'a [Arc<Notes>],
}

impl<'a> Peer<'a> {
    /// The same, for one write of the request.
    pub(super) fn of_write(&self, at: usize) -> Self {
        Self {
            notes: self.notes.get(at).map_or(&[], slice::from_ref),
            ..*self
        }
    }

    /// What the audit log says of the request, if there is one.
    pub(super) fn note(&self) -> Option<&'a Notes> {
        self.notes.first().map(|notes| &**notes)
    }

    /// Logins that members forward do not wait behind those of others: members have checked them.
    pub(super) fn login(&self) -> LoginFrom {
        match (self.standing, self.address) {
            (Standing::Member, _) => LoginFrom::Member,
            (_, Some(address)) => LoginFrom::Address(address.ip()),
            (_, None) => LoginFrom::Address(Ipv4Addr::UNSPECIFIED.into()),
        }
    }
}

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
