//! Bounds of a client's write: what its `db_timeout` means to every node alike. The argument is in
//! `node/db/DESIGN.md`.
use std::time::Duration;

use node_db::Bounds;

/// Instructions of SQLite's virtual machine per second of `db_timeout`. Common machines execute three to ten
/// times as many cheap ones, and fewer that wait for the disk; what matters is that the number is the same
/// everywhere.
pub const STEPS_PER_SECOND: u64 = 10_000_000;
/// Instructions that a write may take without a `db_timeout`. A write blocks all others, which must continue
/// within a minute, and a request that exceeds half of it beside others is run a second time. Enough to write
/// ten million rows or read fifty million.
pub const DEFAULT_STEPS: u64 = 300_000_000;
/// The fewest instructions that a `db_timeout` gives.
pub const LEAST_STEPS: u64 = 1_000_000;
/// Bytes of a text, a blob or a row. A request body has at most 32 MiB; a value is copied several times on
/// its way through a statement, on each node at once.
pub const VALUE_BYTES: u32 = 64 << 20;

/// The bounds of a request with this `db_timeout`. The leader adds the limits of the disks.
pub fn of_caller(db_timeout: Option<Duration>) -> Bounds {
    let (vm_steps, maintenance_vm_steps) = match db_timeout {
        // CREATE INDEX and similar statements end by themselves, and an administrator who runs one wants it
        // done.
        None => (DEFAULT_STEPS, u64::MAX),
        Some(limit) => {
            let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            let steps = millis
                .saturating_mul(STEPS_PER_SECOND / 1000)
                .max(LEAST_STEPS);
            (steps, steps)
        }
    };
    Bounds {
        vm_steps,
        maintenance_vm_steps,
        value_bytes: VALUE_BYTES,
        ..Bounds::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_number_of_steps() {
        let steps = |limit| {
            let bounds = of_caller(limit);
            (bounds.vm_steps, bounds.maintenance_vm_steps)
        };
        assert_eq!(steps(None), (DEFAULT_STEPS, u64::MAX));
        for (millis, expected) in [
            (1, LEAST_STEPS),
            (100, 1_000_000),
            (1_500, 15_000_000),
            (3_600_000, 36_000_000_000),
        ] {
            let limit = Some(Duration::from_millis(millis));
            assert_eq!(steps(limit), (expected, expected), "{millis} ms");
        }
        assert_eq!(steps(Some(Duration::MAX)), (u64::MAX, u64::MAX));
    }
}
