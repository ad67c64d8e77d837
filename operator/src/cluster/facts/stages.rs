//! Stages of a move to TLS: which nodes can communicate, which stage is next, and at which one a pod is.
use operator_api::status::{TlsMode, TlsStage};
use serde::{Deserialize, Serialize};

/// TLS of a pod by its command line, which may differ from the present spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTls {
    /// Between nodes.
    pub nodes: TlsStage,
    /// For clients: Plain, Accept or Require.
    pub clients: TlsStage,
    /// Does it admit only nodes whose certificate has the cluster's common name?
    #[serde(default)]
    pub checks_name: bool,
}

impl Default for PodTls {
    fn default() -> Self {
        Self {
            nodes: TlsStage::Plain,
            clients: TlsStage::Plain,
            checks_name: false,
        }
    }
}

impl PodTls {
    /// Reads the flags of a node.
    pub fn of_flags<'a>(flags: impl Iterator<Item = &'a str> + Clone) -> Self {
        let value = |name: &str| {
            let mut all = flags.clone();
            all.find_map(|flag| flag.strip_prefix(name)?.strip_prefix('='))
        };
        let nodes = match (value("-node-cert"), value("-node-tls-stage")) {
            (None, _) => TlsStage::Plain,
            (Some(_), Some("accept")) => TlsStage::Accept,
            (Some(_), Some("use")) => TlsStage::Use,
            (Some(_), _) => TlsStage::Require,
        };
        let clients = match (value("-http-cert"), value("-http-tls-optional")) {
            (None, _) => TlsStage::Plain,
            (Some(_), Some("true")) => TlsStage::Accept,
            (Some(_), _) => TlsStage::Require,
        };
        let checks_name = value("-node-verify-common-name").is_some();
        Self {
            nodes,
            clients,
            checks_name,
        }
    }
}

/// Stages in the order in which a cluster moves to TLS. A stage of a newer operator is not in it.
pub const ORDER: [TlsStage; 4] = [
    TlsStage::Plain,
    TlsStage::Accept,
    TlsStage::Use,
    TlsStage::Require,
];

fn place(stage: TlsStage) -> Option<usize> {
    ORDER.iter().position(|one| *one == stage)
}

/// Can nodes of these stages communicate in both directions? Those of the same or of neighbouring stages can.
pub fn can_speak(one: TlsStage, other: TlsStage) -> bool {
    match (place(one), place(other)) {
        (Some(one), Some(other)) => one.abs_diff(other) <= 1,
        _ => one == other,
    }
}

/// The next stage on the way.
pub fn next(from: TlsStage, to: TlsStage) -> TlsStage {
    let (Some(here), Some(there)) = (place(from), place(to)) else {
        return from;
    };
    let step = match here.cmp(&there) {
        std::cmp::Ordering::Less => here + 1,
        std::cmp::Ordering::Equal => here,
        std::cmp::Ordering::Greater => here - 1,
    };
    ORDER.get(step).copied().unwrap_or(from)
}

/// The stage at which a mode's move ends.
pub fn goal(mode: TlsMode) -> TlsStage {
    match mode {
        TlsMode::Disabled | TlsMode::Other(_) => TlsStage::Plain,
        TlsMode::Optional => TlsStage::Accept,
        TlsMode::Required => TlsStage::Require,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_understand_each_other_and_every_way_goes_through_neighbours() {
        // What nodes of a stage take, and what they dial.
        let takes = |stage: TlsStage| match stage {
            TlsStage::Plain => (true, false),
            TlsStage::Require => (false, true),
            _ => (true, true),
        };
        let dials_tls = |stage| matches!(stage, TlsStage::Use | TlsStage::Require);
        let hears = |from: TlsStage, to: TlsStage| {
            let (plain, tls) = takes(to);
            if dials_tls(from) { tls } else { plain }
        };
        for one in ORDER {
            for other in ORDER {
                let really = hears(one, other) && hears(other, one);
                assert_eq!(can_speak(one, other), really, "{one:?} {other:?}");
                let mut at = one;
                for _ in 0..ORDER.len() {
                    let then = next(at, other);
                    assert!(can_speak(at, then), "{at:?} {then:?}");
                    at = then;
                }
                assert_eq!(at, other);
            }
        }
        let future = TlsStage::from("Quantum");
        assert!(!can_speak(future, TlsStage::Require) && can_speak(future, future));
        assert_eq!(
            next(future, TlsStage::Plain),
            future,
            "left to whoever knows it"
        );
    }

    #[test]
    fn flags_say_what_a_pod_speaks() {
        let read = |flags: &[&str]| PodTls::of_flags(flags.iter().copied());
        assert_eq!(read(&["-node-id=x", "/data"]), PodTls::default());
        for (stage, expected) in [
            ("accept", TlsStage::Accept),
            ("use", TlsStage::Use),
            ("require", TlsStage::Require),
        ] {
            let flag = format!("-node-tls-stage={stage}");
            let found = read(&["-node-cert=/f", &flag, "-node-verify-common-name=x"]);
            assert_eq!((found.nodes, found.checks_name), (expected, true));
        }
        assert_eq!(read(&["-http-cert=/f"]).clients, TlsStage::Require);
        let both = read(&["-http-cert=/f", "-http-tls-optional=true"]);
        assert_eq!(both.clients, TlsStage::Accept);
    }
}
