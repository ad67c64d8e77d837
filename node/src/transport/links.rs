//! The open encrypted connections, and what happens to them when trust is withdrawn: an authority that is
//! removed from the bundle must not leave its connections open for ever.
//!
//! A connection whose certificate the remaining authorities do not vouch for is *withdrawn*: it takes no new
//! request, and ends once the current one is answered. What has not ended after [`GRACE`] is *cut*. Raft's
//! own connections end at once, because Raft sends what was not answered again over a new one.
use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio_util::sync::CancellationToken;

/// How long a request or a transfer in progress may go on over a connection that is not trusted any more.
pub const GRACE: Duration = Duration::from_secs(30);

/// The other end of a connection, as it was verified.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The certificate and the ones that came with it; empty if none was asked for.
    pub chain: Vec<CertificateDer<'static>>,
    /// The host that this node dialed; `None` if the other side did.
    pub dialed: Option<String>,
    /// When it was verified. Later expiry does not end a connection.
    pub at: UnixTime,
}

/// The trust in one open connection's other side.
#[derive(Debug)]
pub struct Link {
    peer: Peer,
    withdrawn: CancellationToken,
    cut: AtomicBool,
    outdated: AtomicBool,
    reader: AtomicWaker,
}

impl Link {
    /// The other side has dialed this node and shown a certificate, which is asked for only to be verified.
    pub fn is_verified_client(&self) -> bool {
        self.peer.dialed.is_none() && !self.peer.chain.is_empty()
    }

    /// Completes when the connection must take no further request.
    pub fn withdrawn(&self) -> &CancellationToken {
        &self.withdrawn
    }

    /// This node must begin no further request on the connection: trust is withdrawn, or this node has shown
    /// a certificate that it has replaced since. What waits for an answer goes on.
    pub fn is_retired(&self) -> bool {
        self.withdrawn.is_cancelled() || self.outdated.load(Ordering::Relaxed)
    }

    /// This node has another certificate now. If it waited until the other node withdraws its trust in the
    /// former one, that node would close the connection just when this one sends a request.
    pub(super) fn retire(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Relaxed) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the other side's certificate is not trusted any more",
            ));
        }
        Ok(())
    }

    pub(super) fn wake_when_cut(&self, waker: &Waker) {
        self.reader.register(waker);
    }

    pub(super) fn withdraw(&self) {
        self.withdrawn.cancel();
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        self.reader.wake();
    }
}

/// All open encrypted connections.
#[derive(Debug, Default)]
pub(super) struct Links(Mutex<Vec<Weak<Link>>>);

impl Links {
    pub(super) fn add(&self, peer: Peer) -> Arc<Link> {
        let link = Arc::new(Link {
            peer,
            withdrawn: CancellationToken::new(),
            cut: AtomicBool::new(false),
            outdated: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        });
        let mut all = self.0.lock();
        all.retain(|link| link.strong_count() > 0);
        all.push(Arc::downgrade(&link));
        link
    }

    /// Retires all connections that this node has dialed.
    pub(super) fn retire_dialed(&self) {
        let open = self.0.lock();
        let open = open.iter().filter_map(Weak::upgrade);
        open.filter(|link| link.peer.dialed.is_some())
            .for_each(|link| link.retire());
    }

    /// Withdraws the connections that `trusts` rejects; returns them.
    pub(super) fn withdraw(&self, trusts: impl Fn(&Peer) -> bool) -> Vec<Weak<Link>> {
        let open: Vec<Arc<Link>> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        let lost = open.iter().filter(|link| {
            let without = link.peer.chain.is_empty();
            !without && !link.withdrawn.is_cancelled() && !trusts(&link.peer)
        });
        lost.map(|link| {
            link.withdraw();
            Arc::downgrade(link)
        })
        .collect()
    }
}

/// Cuts what is still open after [`GRACE`].
pub(super) async fn cut_later(withdrawn: Vec<Weak<Link>>) {
    tokio::time::sleep(GRACE).await;
    withdrawn
        .iter()
        .filter_map(Weak::upgrade)
        .for_each(|link| link.cut());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(certificate: &'static [u8]) -> Peer {
        let chain = match certificate {
            [] => Vec::new(),
            some => vec![CertificateDer::from(some)],
        };
        Peer {
            chain,
            dialed: None,
            at: UnixTime::now(),
        }
    }

    #[test]
    fn with_another_certificate_only_what_this_node_has_dialed_is_retired() {
        let links = Links::default();
        let accepted = links.add(peer(b"a"));
        let dialed = links.add(Peer {
            dialed: Some("host".to_owned()),
            ..peer(b"a")
        });
        links.retire_dialed();
        assert!(dialed.is_retired() && !accepted.is_retired());
        assert!(!dialed.withdrawn().is_cancelled() && dialed.check().is_ok());
    }

    #[test]
    fn who_is_not_trusted_any_more_is_withdrawn_once() {
        let links = Links::default();
        let [a, b, unverified] = [b"a".as_slice(), b"b", b""].map(|name| links.add(peer(name)));
        drop(links.add(peer(b"a")));
        let trusts = |peer: &Peer| peer.chain.iter().all(|c| c.as_ref() == b"b");
        let lost = links.withdraw(trusts);
        assert_eq!(lost.len(), 1, "the closed one is not counted");
        assert!(a.withdrawn().is_cancelled());
        assert!(!b.withdrawn().is_cancelled() && !unverified.withdrawn().is_cancelled());
        assert!(links.withdraw(trusts).is_empty());
        assert!(a.check().is_ok(), "what is in progress goes on");
        a.cut();
        assert!(a.check().is_err());
    }
}
