//! What the status says of the members' disks and of the copies of data that are parked on them.
use operator_api::status::{DiskSummary, ParkedSummary};

use crate::cluster::facts::{observation::NodeStatus, view::View};

/// Reason of the advice.
pub(crate) const REASON: &str = "DisksTight";
/// Percentage of used space from which the status advises a person. At 90 % a node deletes parked copies to
/// free space.
const TIGHT_PERCENT: u64 = 80;
/// Steps in which the used share is shown, so that a status does not change with every write.
const STEP_PERCENT: u64 = 5;

fn used_percent(node: &NodeStatus) -> Option<u64> {
    let disk = node.disk?;
    let used = disk.total_bytes.checked_sub(disk.free_bytes)?;
    used.checked_mul(100)?.checked_div(disk.total_bytes)
}

/// A member's disk, as its node reports it.
pub(super) fn disk(node: Option<&NodeStatus>) -> Option<DiskSummary> {
    let node = node?;
    let percent = used_percent(node)? / STEP_PERCENT * STEP_PERCENT;
    Some(DiskSummary {
        total_bytes: i64::try_from(node.disk?.total_bytes).ok()?,
        used_percent: i32::try_from(percent).ok()?,
    })
}

/// The copies that are parked on it.
pub(super) fn parked(node: Option<&NodeStatus>) -> Option<ParkedSummary> {
    let parked = node?.parked.as_ref()?;
    let lost = parked.copies.iter().any(|copy| copy.may_hold_lost_writes);
    Some(ParkedSummary {
        copies: i32::try_from(parked.copies.len()).ok()?,
        bytes: i64::try_from(parked.bytes).ok()?,
        may_hold_lost_writes: lost,
    })
}

/// Advice before a disk is full.
pub(super) fn problem(view: &View<'_>) -> Option<String> {
    let tight = view.seen.pods.iter().filter_map(|pod| {
        let node = view.node(&pod.name)?;
        let used = used_percent(node)?;
        if used < TIGHT_PERCENT {
            return None;
        }
        let used = used / STEP_PERCENT * STEP_PERCENT;
        let parked = node.parked.as_ref().map_or(0, |parked| parked.copies.len());
        let of_parked = match parked {
            0 => String::new(),
            1 => ", with 1 parked copy".to_owned(),
            copies => format!(", with {copies} parked copies"),
        };
        Some(format!("{} uses {used} % of its disk{of_parked}", pod.name))
    });
    let tight: Vec<String> = tight.collect();
    (!tight.is_empty()).then(|| {
        format!(
            "{}: increase spec.storage.size, or see what is parked: kubectl rqlite parked {}",
            tight.join(", "),
            view.name
        )
    })
}

#[cfg(test)]
mod tests {
    use node_contract::parked::{DiskStatus, ParkedCopy, ParkedStatus};

    use crate::cluster::fixture::Fixture;

    #[test]
    fn a_tight_disk_and_what_is_parked_are_shown() {
        let mut fixture = Fixture::running(3, 0);
        fixture.reconcile();
        assert_eq!(fixture.condition(operator_api::status::ADVISORY).1, "None");
        let disk = |free_bytes| {
            let total_bytes = 1000;
            Some(DiskStatus {
                free_bytes,
                total_bytes,
            })
        };
        fixture.node("demo-1").disk = disk(210);
        fixture.reconcile();
        assert_eq!(fixture.condition(operator_api::status::ADVISORY).1, "None");
        let node = fixture.node("demo-1");
        node.disk = disk(170);
        node.parked = Some(ParkedStatus {
            copies: vec![ParkedCopy::default()],
            bytes: 400,
            ..ParkedStatus::default()
        });
        fixture.reconcile();
        let (is, reason, said) = fixture.condition(operator_api::status::ADVISORY);
        assert!(is && reason == super::REASON, "{reason}");
        assert!(
            said.contains("demo-1 uses 80 % of its disk, with 1 parked copy"),
            "{said}"
        );
        let member = fixture.status().members[1].clone();
        let (disk, parked) = (member.disk.unwrap(), member.parked.unwrap());
        assert_eq!((disk.total_bytes, disk.used_percent), (1000, 80));
        assert_eq!((parked.copies, parked.bytes), (1, 400));
        // Writes do not change the status.
        fixture.node("demo-1").disk = Some(DiskStatus {
            free_bytes: 160,
            total_bytes: 1000,
        });
        let before = fixture.status();
        fixture.reconcile();
        assert_eq!(fixture.status().members, before.members);
    }
}
