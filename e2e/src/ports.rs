//! Free loopback ports: each test process owns a slice of the range, so that test processes can run in
//! parallel.
use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

use anyhow::{Context, Result};

/// Below the kernel's ephemeral range (32768), so that no outgoing connection takes a reserved port.
const FIRST: u16 = 12_000;
/// Ports of one slice: enough for every node and proxy of one test binary.
const SLICE_LEN: u16 = 400;
/// Number of test processes that can run at once.
const SLICES: u16 = 50;

struct Slice {
    number: u16,
    next: AtomicU16,
    /// Listening on the slice's first port claims the slice until the process ends.
    _owner: TcpListener,
}

static SLICE: OnceLock<Option<Slice>> = OnceLock::new();

/// A port that has no listener now and that no other test process will reserve.
///
/// # Errors
/// If all slices are claimed or every port of this one is in use.
pub fn reserve() -> Result<u16> {
    let slice = slice()?;
    for _ in 1..SLICE_LEN {
        let step = slice.next.fetch_add(1, Ordering::Relaxed) % (SLICE_LEN - 1);
        let port = FIRST + slice.number * SLICE_LEN + 1 + step;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port in slice {}", slice.number)
}

/// Number of this process's slice: unique among the test processes that run now.
///
/// # Errors
/// If all slices are claimed.
pub fn slice_number() -> Result<u16> {
    Ok(slice()?.number)
}

fn slice() -> Result<&'static Slice> {
    SLICE
        .get_or_init(take_slice)
        .as_ref()
        .context("every port slice is owned by another test process")
}

fn take_slice() -> Option<Slice> {
    let start = u16::try_from(std::process::id() % u32::from(SLICES)).unwrap_or(0);
    (0..SLICES).find_map(|step| {
        let number = (start + step) % SLICES;
        let owner = TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + number * SLICE_LEN)).ok()?;
        Some(Slice {
            number,
            next: AtomicU16::new(0),
            _owner: owner,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_can_be_bound() {
        let ports: std::collections::BTreeSet<_> = (0..20).map(|_| reserve().unwrap()).collect();
        assert_eq!(ports.len(), 20);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
