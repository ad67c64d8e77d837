//! `peers.json`: the members of the recovered cluster. Parsing and checks; the texts are rqlite's where it
//! has one.
use std::{collections::BTreeSet, fmt};

use node_contract::Peer;

use crate::config::split_host_port;

/// Larger files are refused. A member takes about a hundred bytes, and no cluster has thousands.
pub const MAX_PEERS_BYTES: u64 = 1 << 20;

/// The members, sorted by id, so that the order in the file does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers(Vec<Peer>);

/// Why the file is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeersError {
    /// It is not a readable list of members.
    #[error("failed to read peers file: {0}")]
    File(String),
    /// It lists members that are not valid.
    #[error("failed to recover node: {0}")]
    Members(String),
}

/// Members in the format of rqlite's messages.
struct Shown<'a>(&'a [Peer]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<String> = self.0.iter().map(shown).collect();
        write!(f, "{{[{}]}}", members.join(" "))
    }
}

fn shown(peer: &Peer) -> String {
    let suffrage = if peer.non_voter { "Nonvoter" } else { "Voter" };
    format!("{{{suffrage} {} {}}}", peer.id, peer.address)
}

impl Peers {
    /// Parses and checks the content of the file.
    ///
    /// # Errors
    /// See [`PeersError`]; the first problem in file order.
    pub fn parse(content: &[u8]) -> Result<Self, PeersError> {
        let peers: Vec<Peer> = serde_json::from_slice(content)
            .map_err(|e| PeersError::File(describe_error(&e, content)))?;
        Self::new(peers)
    }

    /// Checks a list of members.
    ///
    /// # Errors
    /// See [`PeersError`].
    pub fn new(mut peers: Vec<Peer>) -> Result<Self, PeersError> {
        let file = |text| Err(PeersError::File(text));
        let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for peer in &peers {
            if peer.id.is_empty() {
                return file(format!("empty ID in configuration: {}", Shown(&peers)));
            }
            if peer.address.is_empty() {
                return file(format!("empty address in configuration: {}", shown(peer)));
            }
            if !ids.insert(&peer.id) {
                return file(format!("found duplicate ID in configuration: {}", peer.id));
            }
            if !addresses.insert(&peer.address) {
                return file(format!(
                    "found duplicate address in configuration: {}",
                    peer.address
                ));
            }
        }
        if peers.iter().all(|peer| peer.non_voter) {
            return file(format!(
                "need at least one voter in configuration: {}",
                Shown(&peers)
            ));
        }
        for Peer { address, .. } in &peers {
            if address.contains("://") {
                return Err(PeersError::Members(format!(
                    "protocol specified in address: {address}"
                )));
            }
            let port = split_host_port(address).filter(|(host, _)| !host.is_empty());
            if port
                .and_then(|(_, port)| port.parse::<u16>().ok())
                .is_none_or(|port| port == 0)
            {
                return Err(PeersError::Members(format!(
                    "invalid address in configuration: {address}"
                )));
            }
        }
        peers.sort();
        Ok(Self(peers))
    }

    /// The members, sorted by id.
    pub fn members(&self) -> &[Peer] {
        &self.0
    }

    /// The member of this name.
    pub fn get(&self, name: &str) -> Option<&Peer> {
        self.0.iter().find(|peer| peer.id == name)
    }

    /// All names, for messages.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|peer| peer.id.as_str()).collect();
        names.join(", ")
    }
}

/// The start of rqlite's message about invalid JSON, with the position.
fn describe_error(error: &serde_json::Error, content: &[u8]) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    if !error.is_syntax() {
        return error.to_string();
    }
    let line = content
        .split(|byte| *byte == b'\n')
        .nth(error.line().saturating_sub(1))
        .unwrap_or_default();
    let at = error.column().saturating_sub(1).min(line.len());
    match String::from_utf8_lossy(line.get(at..).unwrap_or_default())
        .chars()
        .next()
    {
        Some(found) => format!("invalid character {found:?}: {error}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_spaces_do_not_matter() {
        let one = Peers::parse(
            br#"[{"id":"2","address":"b:1","non_voter":true},{"id":"1","address":"a.example.:1"}]"#,
        );
        let other = Peers::parse(b"\n[ {\"address\":\"a.example.:1\", \"id\":\"1\", \"non_voter\":false},\n{\"id\":\"2\",\"non_voter\":true,\"address\":\"b:1\"}]\n");
        let one = one.unwrap();
        assert_eq!(one, other.unwrap());
        assert_eq!(one.names(), "1, 2");
        assert!(one.get("2").is_some_and(|peer| peer.non_voter));
        assert!(one.get("3").is_none());
    }

    const FILE: &str = "failed to read peers file: ";
    const MEMBERS: &str = "failed to recover node: ";
    const WRONG: &[(&str, &str, &str)] = &[
        ("", FILE, "unexpected end of JSON input"),
        ("[", FILE, "unexpected end of JSON input"),
        ("nonsense", FILE, "invalid character 'o'"),
        ("[{\"id\":x}]", FILE, "invalid character 'x'"),
        ("[]]", FILE, "invalid character ']'"),
        ("{}", FILE, "invalid type: map, expected a sequence"),
        ("null", FILE, "invalid type: null, expected a sequence"),
        ("[1]", FILE, "invalid type: integer `1`"),
        (
            r#"[{"id":1,"address":"a:1"}]"#,
            FILE,
            "invalid type: integer `1`, expected a string",
        ),
        (r#"[{"id":"1","addr":"a:1"}]"#, FILE, "unknown field `addr`"),
        (
            r#"[{"id":"1","address":"a:1","non_voter":"no"}]"#,
            FILE,
            "invalid type: string \"no\", expected a boolean",
        ),
        ("[]", FILE, "need at least one voter in configuration: {[]}"),
        (
            r#"[{"id":"1","address":"a:1","non_voter":true}]"#,
            FILE,
            "need at least one voter in configuration: {[{Nonvoter 1 a:1}]}",
        ),
        (
            r#"[{"id":"2","address":"b:1"},{"id":"","address":"a:1"}]"#,
            FILE,
            "empty ID in configuration: {[{Voter 2 b:1} {Voter  a:1}]}",
        ),
        (
            r#"[{"address":"a:1"}]"#,
            FILE,
            "empty ID in configuration: {[{Voter  a:1}]}",
        ),
        (
            r#"[{"id":"1"}]"#,
            FILE,
            "empty address in configuration: {Voter 1 }",
        ),
        (
            r#"[{"id":"1","address":"a:1"},{"id":"1","address":"b:1"}]"#,
            FILE,
            "found duplicate ID in configuration: 1",
        ),
        (
            r#"[{"id":"1","address":"a:1"},{"id":"2","address":"a:1"}]"#,
            FILE,
            "found duplicate address in configuration: a:1",
        ),
        (
            r#"[{"id":"1","address":"http://a:1"}]"#,
            MEMBERS,
            "protocol specified in address: http://a:1",
        ),
        (
            r#"[{"id":"1","address":"foo"}]"#,
            MEMBERS,
            "invalid address in configuration: foo",
        ),
        (
            r#"[{"id":"1","address":"foo:"}]"#,
            MEMBERS,
            "invalid address in configuration: foo:",
        ),
        (
            r#"[{"id":"1","address":":4002"}]"#,
            MEMBERS,
            "invalid address in configuration: :4002",
        ),
        (
            r#"[{"id":"1","address":"foo:70000"}]"#,
            MEMBERS,
            "invalid address in configuration: foo:70000",
        ),
    ];

    #[test]
    fn what_is_wrong_is_told_as_rqlite_does() {
        for (content, prefix, text) in WRONG {
            let error = Peers::parse(content.as_bytes()).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{prefix}{text}")),
                "{content}: {error}"
            );
        }
    }
}
