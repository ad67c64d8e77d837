//! Maps reasons to the pages of `runbooks/`.

/// Name of the page without its extension; None if the message says everything.
pub fn page(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "CertificateMissing"
        | "CertificateUnusable"
        | "CertificateExpired"
        | "CertificateExpiring"
        | "CertificateNamesMissing"
        | "CertificateNotIssued"
        | "CertificateRefused" => "certificates",
        "ArchiveNotStarted" | "ArchiveFailing" | "ArchiveBehind" | "ArchiveGap" => "archive-behind",
        "DrillFailed" | "Stale" => "drill-failed",
        "AuthenticationPending" => "authentication-pending",
        "BootstrapFailed" => "bootstrap-failed",
        "CredentialsRefused" => "credentials-refused",
        "DowngradeRefused" | "OlderRelease" | "DataIsNewer" => "downgrade-refused",
        "DeletionProtected" | "NamespaceTerminating" => "deletion-blocked",
        "EditedByOthers" => "edited-by-others",
        "ForeignData" => "foreign-data",
        "InvalidSpec" | "InvalidAnnotation" => "invalid-spec",
        "KubernetesRefused" => "kubernetes-refused",
        "MemberLost" | "ReplacementStalled" => "member-lost",
        "MembersMissing" | "ReadReplicasMissing" => "members-missing",
        "NameTaken" => "name-taken",
        "AnyoneMayJoin" | "AnyoneMayUseSql" | "ExposedToTheOutside" => "open-to-anyone",
        "OperatorCannotReachNodes" => "operator-cannot-reach-nodes",
        "PasswordUnusable" => "password-unusable",
        "QuotaExceeded"
        | "ServiceAccountMissing"
        | "PodsRefused"
        | "StorageClassMissing"
        | "VolumePending"
        | "PullSecretMissing"
        | "ImagePullFailed"
        | "SecretMissing"
        | "ConfigMapMissing"
        | "ContainerRefused"
        | "Unschedulable"
        | "NodeCrashLooping" => "pods-do-not-start",
        "QuorumLost" | "VotersLost" | "LossDetected" => "quorum-lost",
        "QuorumUnavailable" | "NoLeader" => "quorum-unavailable",
        "RestoreFailed"
        | "RestoreImpossible"
        | "RestoreNotReported"
        | "RestoreSourceFailed"
        | "RestoreSourceMissing"
        | "RestoreSourceUnread" => "restore",
        "RecoveredByHand" => "recovered-by-hand",
        "RecoveryStalled" => "recovery-stalled",
        "StrayPods" => "stray-pods",
        "ScaleUpBlocked" | "ScaleUpStalled" | "ScaleDownBlocked" | "ScaleDownStalled" => {
            "scaling-blocked"
        }
        "DisksTight" | "ExpansionNotAllowed" | "Expanding" => "storage",
        "UnknownMember" | "UnknownVoter" | "UnknownReader" => "unknown-member",
        "UpdateStalled" | "UpdateRolledBack" => "update-stalled",
        "WrittenByNewerOperator" => "newer-operator",
        _ => return None,
    })
}

/// Appends the name of the page to a message.
pub fn refer(reason: &str, message: String) -> String {
    match page(reason) {
        Some(page) if !message.contains("Runbook: ") => {
            format!("{}. Runbook: {page}", message.trim_end_matches('.'))
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cluster");
    const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/runbooks");

    fn sources(folder: &Path, into: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, into);
            } else if !path.ends_with("tests.rs") && !folder.ends_with("tests") {
                into.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }

    /// Every string literal that looks like the reason of a problem.
    fn reasons() -> BTreeSet<String> {
        let mut text = String::new();
        sources(Path::new(SOURCES), &mut text);
        let bad = [
            "Stalled",
            "Blocked",
            "Failed",
            "Refused",
            "Lost",
            "Missing",
            "Unavailable",
            "Exceeded",
            "Crashes",
            "Unusable",
        ];
        let quoted = text.split('"').skip(1).step_by(2);
        let reasons = quoted.filter(|word| {
            bad.iter()
                .any(|end| word.ends_with(end) && word.len() > end.len())
                && word.chars().all(char::is_alphabetic)
        });
        reasons.map(str::to_owned).collect()
    }

    #[test]
    fn every_reason_has_a_page_and_every_page_its_place() {
        let reasons = reasons();
        assert!(reasons.len() >= 10, "{reasons:?}");
        // Conditions' names are not reasons.
        let without_page: Vec<_> = reasons.iter().filter(|r| page(r).is_none()).collect();
        assert_eq!(without_page, Vec::<&String>::new());
        let index = fs::read_to_string(format!("{PAGES}/README.md")).unwrap();
        for reason in &reasons {
            let page = page(reason).unwrap();
            assert!(
                index.contains(reason.as_str()),
                "{reason} is not in the index"
            );
            assert!(
                Path::new(&format!("{PAGES}/{page}.md")).exists(),
                "{page}.md"
            );
        }
        for entry in fs::read_dir(PAGES).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let known = name == "README.md" || index.contains(&format!("({name})"));
            assert!(known, "{name} is not in the index");
        }
    }

    #[test]
    fn a_message_names_its_page_once() {
        let once = refer("UpdateStalled", "demo-1 does not start.".to_owned());
        assert_eq!(once, "demo-1 does not start. Runbook: update-stalled");
        assert_eq!(refer("UpdateStalled", once.clone()), once);
        assert_eq!(refer("Working", "x".to_owned()), "x");
    }
}
