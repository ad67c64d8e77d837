//! Where pods on machines that are being drained can be moved.
use kube::ResourceExt;

use crate::{
    cluster::facts::{observation::DrainFacts, volume::may_move},
    live::Live,
};

/// Machines that take pods, and the claims whose volumes can follow a pod to another machine.
pub(super) fn find(live: &Live) -> DrainFacts {
    let machines = live.host_names.iter().flatten().map(|(name, _)| name);
    let claims = live.claims.iter().filter(|claim| {
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_ref());
        let volume = name.and_then(|name| live.volumes.get(name));
        volume.is_some_and(|volume| volume.as_ref().is_some_and(|volume| may_move(volume)))
    });
    DrainFacts {
        free: machines
            .filter(|name| !live.cordoned.contains(name))
            .cloned()
            .collect(),
        movable: claims.map(|claim| claim.name_any()).collect(),
    }
}
