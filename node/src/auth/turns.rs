//! Who is next: comparisons with hashes wait in a queue that is fair to addresses, and within an address to
//! users. Passwords that come again after they were refused have turns of their own: a user repeats the same
//! one, and a flood of guesses does not. A plain data structure.
use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv6Addr},
};

/// Comparisons of one address that wait.
const MAX_PER_ADDRESS: usize = 256;
/// Users fall into this many groups, so that many names take no more memory than few.
const GROUPS: u8 = 16;

/// From where a login comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFrom {
    /// From a member of the cluster, which forwards it for a client and has checked it.
    Member,
    /// From this address.
    Address(IpAddr),
}

impl LoginFrom {
    fn counted(self) -> Self {
        match self {
            Self::Member => Self::Member,
            Self::Address(address) => Self::Address(counted_address(address)),
        }
    }
}

/// The address under which a machine's connections and logins are counted: an IPv6 machine usually has a
/// whole /64 network of addresses.
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            const HOST_BITS: u32 = 64;
            let network = u128::from(v6) >> HOST_BITS << HOST_BITS;
            Ipv6Addr::from(network).into()
        }
        v4 => v4,
    }
}

/// Why a login was not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// Too many logins of this address wait.
    #[error("too many logins from your address wait; nothing was done, try it again")]
    Address,
    /// Too many logins wait, or this one waited for too long.
    #[error("too many logins wait; nothing was done, try it again")]
    Node,
}

/// The waiting jobs of one address, by group of users.
#[derive(Debug)]
struct Waiting<T> {
    from: LoginFrom,
    again: bool,
    groups: VecDeque<(u8, VecDeque<T>)>,
    len: usize,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Turns<T> {
    /// The first one is next.
    addresses: VecDeque<Waiting<T>>,
    len: usize,
    max: usize,
}

impl<T> Turns<T> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            addresses: VecDeque::new(),
            len: 0,
            max,
        }
    }

    /// Adds a job. `again`: the same login was refused before. `user` is any number that stands for the user.
    ///
    /// # Errors
    /// Too many jobs wait.
    pub(super) fn push(
        &mut self,
        from: LoginFrom,
        again: bool,
        user: u8,
        job: T,
    ) -> Result<(), Busy> {
        let from = from.counted();
        let at = self
            .addresses
            .iter()
            .position(|waiting| (waiting.from, waiting.again) == (from, again));
        let of_address = at
            .and_then(|at| self.addresses.get(at))
            .map_or(0, |waiting| waiting.len);
        if of_address >= MAX_PER_ADDRESS.min(self.max.div_ceil(2)) {
            return Err(Busy::Address);
        }
        if self.len >= self.max {
            return Err(Busy::Node);
        }
        if at.is_none() {
            self.addresses.push_back(Waiting {
                from,
                again,
                groups: VecDeque::new(),
                len: 0,
            });
        }
        let last = self.addresses.len().saturating_sub(1);
        let Some(waiting) = self.addresses.get_mut(at.unwrap_or(last)) else {
            return Err(Busy::Node);
        };
        let group = user % GROUPS;
        match waiting.groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, jobs)) => jobs.push_back(job),
            None => waiting.groups.push_back((group, VecDeque::from([job]))),
        }
        waiting.len += 1;
        self.len += 1;
        Ok(())
    }

    /// The next job: of each address in turn, and there of each group of users in turn.
    pub(super) fn pop(&mut self) -> Option<T> {
        let mut waiting = self.addresses.pop_front()?;
        let (group, mut jobs) = waiting.groups.pop_front()?;
        let job = jobs.pop_front();
        if !jobs.is_empty() {
            waiting.groups.push_back((group, jobs));
        }
        waiting.len -= 1;
        self.len -= 1;
        if waiting.len > 0 {
            self.addresses.push_back(waiting);
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> LoginFrom {
        LoginFrom::Address([10, 0, 0, last].into())
    }

    fn drained(mut turns: Turns<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| turns.pop()).collect()
    }

    #[test]
    fn addresses_take_turns_and_so_do_users() {
        let mut turns = Turns::new(100);
        for (address, user, job) in [
            (1, 1, "a1"),
            (1, 1, "a2"),
            (1, 1, "a3"),
            (2, 1, "b1"),
            (1, 2, "a-other"),
            (2, 1, "b2"),
        ] {
            turns.push(from(address), false, user, job).unwrap();
        }
        turns.push(LoginFrom::Member, false, 1, "member").unwrap();
        assert_eq!(
            drained(turns),
            ["a1", "b1", "member", "a-other", "b2", "a2", "a3"]
        );
    }

    #[test]
    fn one_address_does_not_fill_the_queue() {
        let mut turns = Turns::new(8);
        let pushed: Vec<_> = (0..6).map(|_| turns.push(from(1), false, 1, "x")).collect();
        assert_eq!(pushed[3], Ok(()));
        assert_eq!(pushed[4], Err(Busy::Address));
        for address in 2..6 {
            turns.push(from(address), false, 1, "y").unwrap();
        }
        assert_eq!(turns.push(from(9), false, 1, "z"), Err(Busy::Node));
        assert_eq!(drained(turns).len(), 8);
    }

    #[test]
    fn who_comes_again_does_not_wait_behind_new_ones() {
        let mut turns = Turns::new(100);
        for job in ["a1", "a2", "a3"] {
            turns.push(from(1), false, 1, job).unwrap();
        }
        turns.push(from(1), true, 1, "again").unwrap();
        assert_eq!(drained(turns), ["a1", "again", "a2", "a3"]);
    }

    #[test]
    fn many_names_are_few_groups() {
        let mut turns = Turns::new(1000);
        for user in 0..=255 {
            turns.push(from(1), false, user, "x").unwrap();
        }
        assert_eq!(turns.addresses[0].groups.len(), usize::from(GROUPS));
        assert_eq!(turns.push(from(1), false, 1, "x"), Err(Busy::Address));
        assert_eq!(drained(turns).len(), 256);
    }

    #[test]
    fn one_machine_has_many_addresses() {
        let of = |text: &str| counted_address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
