//! Derives lineage and incarnations of a recovery from data that every survivor has, without communication. A
//! node that starts from different data derives different ids and is recognized.
use sha2::{Digest, Sha256};

use super::peers::Peers;
use crate::identity::{Cluster, Lineage};

/// Domain separation for these hashes. Never changed, because survivors of different versions must agree.
const LINEAGE_DOMAIN: &[u8] = b"rqlited recovery lineage 1";
const INCARNATION_DOMAIN: &[u8] = b"rqlited recovery incarnation 1";

/// Adds a field with its length, so that no two lists of fields give the same bytes.
pub(super) fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a peers file's content; the journal refers to the file by it.
pub fn content_hash(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// The lineage after a recovery of `from` with these members.
pub fn lineage(from: &Cluster, peers: &Peers) -> Lineage {
    let mut hash = Sha256::new();
    field(&mut hash, LINEAGE_DOMAIN);
    field(&mut hash, from.id.as_bytes());
    field(&mut hash, from.lineage.id.as_bytes());
    field(&mut hash, &from.lineage.epoch.to_le_bytes());
    for peer in peers.members() {
        field(&mut hash, peer.id.as_bytes());
        field(&mut hash, peer.address.as_bytes());
        field(&mut hash, &[u8::from(peer.non_voter)]);
    }
    let id = hash.finalize();
    Lineage {
        id: hex(id.get(..16).unwrap_or_default()),
        epoch: from.lineage.epoch.saturating_add(1),
    }
}

/// The incarnation of a member in a recovered lineage: 16 hexadecimal digits. Under this new id no member has
/// voted or acknowledged anything.
pub fn incarnation(cluster_id: &str, lineage: &Lineage, name: &str) -> String {
    let mut hash = Sha256::new();
    field(&mut hash, INCARNATION_DOMAIN);
    field(&mut hash, cluster_id.as_bytes());
    field(&mut hash, lineage.id.as_bytes());
    field(&mut hash, &lineage.epoch.to_le_bytes());
    field(&mut hash, name.as_bytes());
    hex(hash.finalize().get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(id: &str, lineage: &str, epoch: u64) -> Cluster {
        Cluster {
            id: id.into(),
            lineage: Lineage {
                id: lineage.into(),
                epoch,
            },
        }
    }

    fn peers(text: &str) -> Peers {
        Peers::parse(text.as_bytes()).unwrap()
    }

    /// Survivors of different versions must agree, so these values never change.
    #[test]
    fn golden() {
        let peers = peers(
            r#"[{"id":"1","address":"a:4002"},{"id":"2","address":"b:4002","non_voter":true}]"#,
        );
        let to = lineage(&cluster("c", "l", 0), &peers);
        assert_eq!(
            to,
            Lineage {
                id: GOLDEN_LINEAGE.into(),
                epoch: 1
            }
        );
        assert_eq!(incarnation("c", &to, "1"), GOLDEN_INCARNATION);
    }
    const GOLDEN_LINEAGE: &str = "629feb4d9170af3287d6bfe79ca6c89d";
    const GOLDEN_INCARNATION: &str = "180b8143b95eb222";

    #[test]
    fn everything_counts() {
        let base = r#"[{"id":"1","address":"a:4002"},{"id":"2","address":"b:4002"}]"#;
        let from = cluster("c", "l", 0);
        let of = |from: &Cluster, text: &str| lineage(from, &peers(text)).id;
        let swapped = r#"[{"id":"2","address":"b:4002"},{"id":"1","address":"a:4002"}]"#;
        assert_eq!(of(&from, base), of(&from, swapped));
        let others = [
            of(&cluster("d", "l", 0), base),
            of(&cluster("c", "m", 0), base),
            of(&cluster("c", "l", 1), base),
            of(
                &from,
                r#"[{"id":"1","address":"a:4003"},{"id":"2","address":"b:4002"}]"#,
            ),
            of(
                &from,
                r#"[{"id":"1","address":"a:4002","non_voter":true},{"id":"2","address":"b:4002"}]"#,
            ),
            of(&from, r#"[{"id":"1","address":"a:4002"}]"#),
            of(
                &from,
                r#"[{"id":"1a","address":":4002"},{"id":"2","address":"b:4002"}]"#
                    .replace(":4002\"},{\"id\":\"2", "a:4002\"},{\"id\":\"2")
                    .as_str(),
            ),
        ];
        for other in &others {
            assert_ne!(*other, of(&from, base));
        }
        let to = lineage(&from, &peers(base));
        assert_ne!(incarnation("c", &to, "1"), incarnation("c", &to, "2"));
        assert_ne!(incarnation("c", &to, "1"), incarnation("d", &to, "1"));
        assert_eq!(incarnation("c", &to, "1").len(), 16);
    }
}
