//! Places on the inter-node port: members have their own, and strangers share a few, so that nobody from outside can keep members out.
//!
//! A stranger is whoever has not shown yet that it is of this cluster. What shows it is random and told to nobody outside: the cluster's
//! id, a member's Raft id, or this node's.
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{identity::Cluster, internode::wire::Hello};

/// Strangers of one address at a time: nodes that join or form a cluster from one machine need a few each.
const MAX_OF_ONE_ADDRESS: usize = 32;

/// What a connection's hello shows about who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing. It may ask to join, and learns nothing.
    Stranger,
    /// It is of this cluster, but not a member that this node knows: removed, left out of a recovery, or just admitted. It is told why it is refused.
    Acquainted,
    /// A member, or the leader that a node without a cluster has asked to admit it.
    Member,
}

/// Who speaks, by what only members can know.
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
        Standing::Acquainted
    } else {
        Standing::Stranger
    }
}

/// The places of one port.
#[derive(Debug)]
pub struct Places {
    strangers: Mutex<Strangers>,
    members: Arc<Semaphore>,
}

#[derive(Debug)]
struct Strangers {
    max: usize,
    next_id: u64,
    /// The oldest first.
    here: Vec<Stranger>,
}

#[derive(Debug)]
struct Stranger {
    id: u64,
    address: IpAddr,
    busy: Arc<AtomicBool>,
    sent_away: CancellationToken,
}

/// Where a new stranger goes.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// To the place of this one, which waits for its own side.
    Instead(usize),
    None,
}

/// Decides from the address and business of those who are there, the oldest first. An address that has used up its share makes room
/// for itself; otherwise the address with the most waiting connections does.
fn room(here: &[(IpAddr, bool)], max: usize, from: IpAddr) -> Room {
    let oldest_idle = |address: IpAddr| {
        let found = here.iter().position(|(a, busy)| *a == address && !busy);
        found.map_or(Room::None, Room::Instead)
    };
    if here.iter().filter(|(a, _)| *a == from).count() >= MAX_OF_ONE_ADDRESS {
        return oldest_idle(from);
    }
    if here.len() < max {
        return Room::Free;
    }
    let mut idle: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (address, _) in here.iter().filter(|(_, busy)| !busy) {
        *idle.entry(*address).or_default() += 1;
    }
    let crowd = idle.into_iter().max_by_key(|(_, count)| *count);
    crowd.map_or(Room::None, |(address, _)| oldest_idle(address))
}

/// One machine, as far as addresses tell: whoever has an IPv6 address has a whole network of them.
fn machine(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            const HOST_BITS: u32 = 64;
            let network = u128::from(v6) >> HOST_BITS << HOST_BITS;
            Ipv6Addr::from(network).into()
        }
        v4 => v4,
    }
}

impl Places {
    /// Places for so many at a time.
    pub fn new(max_members: usize, max_strangers: usize) -> Arc<Self> {
        Arc::new(Self {
            strangers: Mutex::new(Strangers {
                max: max_strangers,
                next_id: 0,
                here: Vec::new(),
            }),
            members: Arc::new(Semaphore::new(max_members)),
        })
    }

    /// Takes a new connection in, as a stranger; if need be instead of another one that waits for its own side. `None`: all are busy.
    pub fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Visitor> {
        let address = machine(from);
        let mut strangers = self.lock();
        let here: Vec<(IpAddr, bool)> = strangers
            .here
            .iter()
            .map(|s| (s.address, s.busy.load(Ordering::Relaxed)))
            .collect();
        match room(&here, strangers.max, address) {
            Room::Free => {}
            Room::Instead(at) => strangers.here.remove(at).sent_away.cancel(),
            Room::None => return None,
        }
        let id = strangers.next_id;
        strangers.next_id += 1;
        let (busy, sent_away) = (Arc::default(), CancellationToken::new());
        strangers.here.push(Stranger {
            id,
            address,
            busy: Arc::clone(&busy),
            sent_away: sent_away.clone(),
        });
        Some(Visitor {
            places: Arc::clone(self),
            id,
            busy,
            sent_away,
            member: None,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Strangers> {
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, id: u64) {
        self.lock().here.retain(|stranger| stranger.id != id);
    }
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
pub struct Visitor {
    places: Arc<Places>,
    id: u64,
    busy: Arc<AtomicBool>,
    sent_away: CancellationToken,
    member: Option<OwnedSemaphorePermit>,
}

impl Visitor {
    /// Still on a stranger's place.
    pub fn is_stranger(&self) -> bool {
        self.member.is_none()
    }

    /// Gives it a member's place. False if all are taken.
    pub fn admit(&mut self) -> bool {
        if self.member.is_some() {
            return true;
        }
        let Ok(place) = Arc::clone(&self.places.members).try_acquire_owned() else {
            return false;
        };
        self.member = Some(place);
        self.places.forget(self.id);
        true
    }

    /// Whoever is being answered is not sent away for others.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Cancelled when the place is given to somebody else.
    pub fn sent_away(&self) -> CancellationToken {
        self.sent_away.clone()
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        if self.member.is_none() {
            self.places.forget(self.id);
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
            ("nothing said", "n#9", None, None, Some(&x), Standing::Stranger),
            ("another cluster", "n#9", None, Some(&y), Some(&x), Standing::Stranger),
            ("another data directory meant", "n#9", Some("a#0"), Some(&y), Some(&x), Standing::Stranger),
            ("our cluster, unknown here", "n#9", None, Some(&x), Some(&x), Standing::Acquainted),
            ("a member", "b#2", None, Some(&x), Some(&x), Standing::Member),
            ("a member whose connection is older than its membership", "b#2", None, None, Some(&x), Standing::Member),
            ("a member's name, another incarnation", "b#3", None, None, Some(&x), Standing::Stranger),
            ("the leader that a new node has asked", "n#9", Some("a#1"), Some(&x), None, Standing::Member),
            ("a guess at a new node", "n#9", Some("a#"), Some(&x), None, Standing::Stranger),
            ("no cluster on either side", "n#9", None, None, None, Standing::Stranger),
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
    fn who_makes_room() {
        let (a, b, c) = (address(1), address(2), address(3));
        let many = vec![(a, false); MAX_OF_ONE_ADDRESS];
        let mut first_busy = many.clone();
        first_busy[0].1 = true;
        let all_busy = vec![(a, true); MAX_OF_ONE_ADDRESS];
        #[rustfmt::skip]
        let cases = [
            ("the first", vec![], 4, a, Room::Free),
            ("an address with its share", many.clone(), 128, a, Room::Instead(0)),
            ("the oldest is being answered", first_busy, 128, a, Room::Instead(1)),
            ("all of its share are", all_busy.clone(), 128, a, Room::None),
            ("and others still come in", all_busy, 128, b, Room::Free),
            ("full: the crowd makes room", vec![(b, false), (a, false), (a, false), (c, false)], 4, c, Room::Instead(1)),
            ("full of busy ones", vec![(a, true), (b, true)], 2, c, Room::None),
        ];
        for (name, here, max, from, expected) in cases {
            assert_eq!(room(&here, max, from), expected, "{name}");
        }
    }

    #[test]
    fn one_machine_has_many_addresses() {
        let of = |text: &str| machine(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), address(1));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn silent_ones_give_way_and_members_stay() {
        let places = Places::new(2, 8);
        let mut member = places.enter(address(1)).unwrap();
        assert!(member.admit() && !member.is_stranger());
        let silent: Vec<Visitor> = (0..100)
            .map(|_| places.enter(address(2)).unwrap())
            .collect();
        let gone = silent.iter().filter(|v| v.sent_away().is_cancelled());
        assert_eq!(gone.count(), 92);
        assert!(!member.sent_away().is_cancelled());
        let mut joiner = places.enter(address(1)).unwrap();
        joiner.set_busy(true);
        let _others: Vec<Visitor> = (0..8).map(|_| places.enter(address(3)).unwrap()).collect();
        assert!(!joiner.sent_away().is_cancelled());
        assert!(joiner.admit());
        let mut third = places.enter(address(1)).unwrap();
        assert!(!third.admit(), "both places of members are taken");
        drop(member);
        assert!(third.admit());
    }

    #[test]
    fn places_come_back() {
        let places = Places::new(1, 3);
        for _ in 0..10 {
            let visitors: Vec<Visitor> = (0..3).filter_map(|_| places.enter(address(1))).collect();
            visitors.iter().for_each(|v| v.set_busy(true));
            assert_eq!(visitors.len(), 3);
            assert!(places.enter(address(2)).is_none());
        }
    }
}
