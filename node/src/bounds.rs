//! How far a client's write may go: what its `db_timeout` means to every node alike. The argument is in `node/db/DESIGN.md`.
use std::time::Duration;

use node_db::Bounds;

/// Instructions of SQLite's virtual machine that a second of `db_timeout` stands for. Common machines do three to ten times as many of the
/// cheap ones and fewer of those that wait for the disk; what matters is that the number is the same everywhere.
pub const STEPS_PER_SECOND: u64 = 10_000_000;
/// What a write may take without a `db_timeout`: it holds up all others, which must go on within a minute, and a request that passes half of it
/// beside others is run a second time. Ten million rows can be written, or fifty million read.
pub const DEFAULT_STEPS: u64 = 300_000_000;
/// The least that a `db_timeout` gives.
pub const LEAST_STEPS: u64 = 1_000_000;
/// Bytes of a text, a blob or a row. A body of a request is at most 32 MiB; a value is copied several times on its way through a statement, on
/// each node at once.
pub const VALUE_BYTES: u32 = 64 << 20;

/// The bounds of a request whose caller sets this limit. The leader adds what the disks can spare.
pub fn of_caller(db_timeout: Option<Duration>) -> Bounds {
    let (vm_steps, maintenance_vm_steps) = match db_timeout {
        // CREATE INDEX and the like end by themselves, and an administrator who asks for one wants it done.
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
