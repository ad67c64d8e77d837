//! Admission of connections on the inter-node port: members have connection slots of their own, and all other
//! nodes share a few, so that connections from outside cannot keep members out.
//!
//! A node proves that it belongs to this cluster by knowing the cluster's id, a member's Raft id or this
//! node's Raft id. They are random and not disclosed to other nodes.
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{auth::counted_address, identity::Cluster, internode::wire::Hello};

/// Connections of non-members from one address at a time. Nodes of one machine that join or form a cluster
/// need a few each.
const MAX_PER_ADDRESS: usize = 32;

/// What a connection's hello proves about the other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing. The node may ask to join, and learns nothing.
    Unknown,
    /// It belongs to this cluster, but this node does not know it as a member: it was removed, left out of a
    /// recovery, or has just been added. Its requests are refused with the reason.
    SameCluster,
    /// It is a member, or the leader that this node, without a cluster so far, has asked to be added by.
    Member,
}

/// Derives the standing from what only members can know.
pub fn standing(
    hello: &Hello,
    raft_id: &str,
    own: Option<&Cluster>,
    is_member: impl Fn(&str) -> bool,
) -> Standing {
    let same_cluster =
        matches!((own, &hello.cluster), (Some(own), Some(theirs)) if own.id == theirs.id);
    if hello.to.as_deref() == Some(raft_id) || is_member(&hello.from) {
        Standing::Member
    } else if same_cluster {
        Standing::SameCluster
    } else {
        Standing::Unknown
    }
}

/// What keeps outsiders out of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// There is a credentials file.
    pub users: bool,
    /// There is TLS between nodes, at whichever stage.
    pub tls: bool,
}

/// Whether the other side has no right yet to anything but to ask for membership. Members are known by ids
/// that are random. `verified`: it has shown a certificate of a trusted authority, which counts where there
/// are no users.
pub fn is_outsider(standing: Standing, verified: bool, protection: Protection) -> bool {
    let Protection { users, tls } = protection;
    standing == Standing::Unknown && (users || (tls && !verified))
}

/// The connection slots of one port.
#[derive(Debug)]
pub struct ConnectionSlots {
    non_members: Mutex<NonMembers>,
    members: Arc<Semaphore>,
}

#[derive(Debug)]
struct NonMembers {
    max: usize,
    next_id: u64,
    /// Open connections, the oldest first.
    connections: Vec<NonMember>,
}

#[derive(Debug)]
struct NonMember {
    id: u64,
    address: IpAddr,
    busy: Arc<AtomicBool>,
    evicted: CancellationToken,
}

/// How a new connection gets a slot.
#[derive(Debug, PartialEq, Eq)]
enum Admission {
    /// A slot is free.
    Free,
    /// The idle connection at this position is closed for it.
    Evict(usize),
    /// It gets none.
    Refuse,
}

/// Decides on a new connection from `from`. `open` lists the open connections as (address, busy), the oldest
/// first. An address that has used up its share loses its own oldest idle connection; otherwise the address
/// with the most idle connections loses one.
fn admission(open: &[(IpAddr, bool)], max: usize, from: IpAddr) -> Admission {
    let oldest_idle = |address: IpAddr| {
        let found = open.iter().position(|(a, busy)| *a == address && !busy);
        found.map_or(Admission::Refuse, Admission::Evict)
    };
    if open.iter().filter(|(a, _)| *a == from).count() >= MAX_PER_ADDRESS {
        return oldest_idle(from);
    }
    if open.len() < max {
        return Admission::Free;
    }
    let mut idle: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (address, _) in open.iter().filter(|(_, busy)| !busy) {
        *idle.entry(*address).or_default() += 1;
    }
    let most = idle.into_iter().max_by_key(|(_, count)| *count);
    most.map_or(Admission::Refuse, |(address, _)| oldest_idle(address))
}

impl ConnectionSlots {
    /// Slots for this many connections at a time.
    pub fn new(max_members: usize, max_non_members: usize) -> Arc<Self> {
        Arc::new(Self {
            non_members: Mutex::new(NonMembers {
                max: max_non_members,
                next_id: 0,
                connections: Vec::new(),
            }),
            members: Arc::new(Semaphore::new(max_members)),
        })
    }

    /// Gives a new connection a non-member's slot, if necessary that of an idle connection, which is closed.
    /// `None` if all are busy.
    pub fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Slot> {
        let address = counted_address(from);
        let mut non_members = self.lock();
        let open: Vec<(IpAddr, bool)> = non_members
            .connections
            .iter()
            .map(|c| (c.address, c.busy.load(Ordering::Relaxed)))
            .collect();
        match admission(&open, non_members.max, address) {
            Admission::Free => {}
            Admission::Evict(at) => non_members.connections.remove(at).evicted.cancel(),
            Admission::Refuse => return None,
        }
        let id = non_members.next_id;
        non_members.next_id += 1;
        let (busy, evicted) = (Arc::default(), CancellationToken::new());
        non_members.connections.push(NonMember {
            id,
            address,
            busy: Arc::clone(&busy),
            evicted: evicted.clone(),
        });
        Some(Slot {
            slots: Arc::clone(self),
            id,
            busy,
            evicted,
            member: None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, NonMembers> {
        self.non_members.lock()
    }

    fn remove(&self, id: u64) {
        self.lock().connections.retain(|c| c.id != id);
    }
}

/// A connection's slot; free again when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<ConnectionSlots>,
    id: u64,
    busy: Arc<AtomicBool>,
    evicted: CancellationToken,
    member: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// This is a member's slot.
    pub fn is_members(&self) -> bool {
        self.member.is_some()
    }

    /// Exchanges the slot for a member's. False if all of those are taken.
    pub fn admit_member(&mut self) -> bool {
        if self.member.is_some() {
            return true;
        }
        let Ok(permit) = Arc::clone(&self.slots.members).try_acquire_owned() else {
            return false;
        };
        self.member = Some(permit);
        self.slots.remove(self.id);
        true
    }

    /// A connection whose request is being served is not evicted.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Cancelled when the slot is given to another connection.
    pub fn evicted(&self) -> CancellationToken {
        self.evicted.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.member.is_none() {
            self.slots.remove(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::Lineage, internode::wire::Purpose};

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn who_is_who() {
        let cluster = |id: &str| Cluster {
            id: id.into(),
            lineage: Lineage {
                id: "l".into(),
                epoch: 0,
            },
        };
        let (x, y) = (cluster("x"), cluster("y"));
        #[rustfmt::skip]
        let cases = [
            ("nothing said", "n#9", None, None, Some(&x), Standing::Unknown),
            ("another cluster", "n#9", None, Some(&y), Some(&x), Standing::Unknown),
            ("another data directory meant", "n#9", Some("a#0"), Some(&y), Some(&x), Standing::Unknown),
            ("our cluster, unknown here", "n#9", None, Some(&x), Some(&x), Standing::SameCluster),
            ("a member", "b#2", None, Some(&x), Some(&x), Standing::Member),
            ("a member whose connection is older than its membership", "b#2", None, None, Some(&x), Standing::Member),
            ("a member's name, another incarnation", "b#3", None, None, Some(&x), Standing::Unknown),
            ("the leader that a new node has asked", "n#9", Some("a#1"), Some(&x), None, Standing::Member),
            ("a guess at a new node", "n#9", Some("a#"), Some(&x), None, Standing::Unknown),
            ("no cluster on either side", "n#9", None, None, None, Standing::Unknown),
        ];
        for (name, from, to, theirs, own, expected) in cases {
            let hello = Hello {
                purpose: Purpose::Cluster,
                from: from.into(),
                to: to.map(Into::into),
                cluster: theirs.cloned(),
                version: 1,
            };
            let is_member = |id: &str| own.is_some() && ["a#1", "b#2"].contains(&id);
            assert_eq!(standing(&hello, "a#1", own, is_member), expected, "{name}");
        }
    }

    #[test]
    fn who_is_a_outsider() {
        let protected = |users, tls| Protection { users, tls };
        #[rustfmt::skip]
        let cases = [
            ("nothing protects this node", Standing::Unknown, false, protected(false, false), false),
            ("users", Standing::Unknown, false, protected(true, false), true),
            ("users, and a certificate", Standing::Unknown, true, protected(true, true), true),
            ("TLS without a certificate of the client's, or plain at a stage that takes both", Standing::Unknown, false, protected(false, true), true),
            ("a verified certificate", Standing::Unknown, true, protected(false, true), false),
            ("of the cluster", Standing::SameCluster, false, protected(true, true), false),
            ("a member", Standing::Member, false, protected(true, true), false),
        ];
        for (name, standing, verified, protection, expected) in cases {
            assert_eq!(
                is_outsider(standing, verified, protection),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn who_makes_room() {
        let (a, b, c) = (address(1), address(2), address(3));
        let many = vec![(a, false); MAX_PER_ADDRESS];
        let mut first_busy = many.clone();
        first_busy[0].1 = true;
        let all_busy = vec![(a, true); MAX_PER_ADDRESS];
        #[rustfmt::skip]
        let cases = [
            ("the first", vec![], 4, a, Admission::Free),
            ("an address with its share", many.clone(), 128, a, Admission::Evict(0)),
            ("the oldest is being answered", first_busy, 128, a, Admission::Evict(1)),
            ("all of its share are", all_busy.clone(), 128, a, Admission::Refuse),
            ("and others still come in", all_busy, 128, b, Admission::Free),
            ("full: the address with most idle ones loses one", vec![(b, false), (a, false), (a, false), (c, false)], 4, c, Admission::Evict(1)),
            ("full of busy ones", vec![(a, true), (b, true)], 2, c, Admission::Refuse),
        ];
        for (name, open, max, from, expected) in cases {
            assert_eq!(admission(&open, max, from), expected, "{name}");
        }
    }

    #[test]
    fn silent_ones_give_way_and_members_stay() {
        let slots = ConnectionSlots::new(2, 8);
        let mut member = slots.admit(address(1)).unwrap();
        assert!(member.admit_member() && member.is_members());
        let idle: Vec<Slot> = (0..100).map(|_| slots.admit(address(2)).unwrap()).collect();
        let gone = idle.iter().filter(|slot| slot.evicted().is_cancelled());
        assert_eq!(gone.count(), 92);
        assert!(!member.evicted().is_cancelled());
        let mut joiner = slots.admit(address(1)).unwrap();
        joiner.set_busy(true);
        let _others: Vec<Slot> = (0..8).map(|_| slots.admit(address(3)).unwrap()).collect();
        assert!(!joiner.evicted().is_cancelled());
        assert!(joiner.admit_member());
        let mut third = slots.admit(address(1)).unwrap();
        assert!(!third.admit_member(), "both members' slots are taken");
        drop(member);
        assert!(third.admit_member());
    }

    #[test]
    fn places_come_back() {
        let slots = ConnectionSlots::new(1, 3);
        for _ in 0..10 {
            let open: Vec<Slot> = (0..3).filter_map(|_| slots.admit(address(1))).collect();
            open.iter().for_each(|slot| slot.set_busy(true));
            assert_eq!(open.len(), 3);
            assert!(slots.admit(address(2)).is_none());
        }
    }
}
