//! The content of a log entry and its versioned bytes. Knows nothing of Raft.
//!
//! The leader encodes a command once; the same bytes go to its log, to every follower's log and over the
//! wire. The decoded form stays in memory until it is applied, so the leader never decodes what it has just
//! encoded.
pub mod logged;
pub mod size;

use std::{fmt, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use node_db::{Bounds, LoadChunk, Outcome, Request, Rules, Work};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// First byte of every encoded command. Raised only when old readers could misread new bytes.
const VERSION: u8 = 1;

/// One log entry's content. Variants and their fields are append only: old logs must stay readable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Client requests packed together by the proposer; they are applied in order.
    Requests(Arc<Vec<Request>>),
    /// A piece of a database file or script.
    Load(LoadChunk),
    /// Cancels the load with this id.
    LoadAbort(u64),
    /// Raises the cluster to this format version (`version.rs`); the first kind of entry that only nodes of
    /// version 2 read.
    RaiseVersion(u16),
    /// As `Requests`, under [`node_db::Rules::V2`]. From version 2 on.
    Bounded(BoundedRequests),
    /// Every node hashes its content as it is at this entry. From version 2 on.
    HashContent,
}

/// What a command asks for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Work of the database.
    Work(Work),
    /// That the cluster uses this format version. The database stores it with its metadata, and nothing else
    /// changes.
    Version(u16),
}

impl Command {
    /// What the command asks for. The only function that decides it: a node that applies an entry, and a
    /// restore that replays it years later, must do the same.
    pub fn asks(self) -> Asked {
        Asked::Work(match self {
            Self::Requests(requests) => Work::Requests(requests),
            Self::Load(chunk) => Work::Load(chunk),
            Self::LoadAbort(id) => Work::LoadAbort(id),
            Self::Bounded(batch) => Work::Requests(batch.requests),
            Self::HashContent => Work::HashContent,
            Self::RaiseVersion(version) => return Asked::Version(version),
        })
    }
}

/// Whether work may change the database: all but blank entries, metadata and pure reads.
pub fn may_change(work: &Work) -> bool {
    match work {
        Work::Requests(requests) => requests.iter().any(|r| r.kind != node_db::Kind::Query),
        Work::Load(_) => true,
        Work::Nothing | Work::Meta(_) | Work::LoadAbort(_) | Work::HashContent => false,
    }
}

/// Requests with the bounds of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundedRequests {
    /// In order. After decoding, each also holds its own bounds.
    pub requests: Arc<Vec<Request>>,
    /// One for each request, or one for all: most clients set no limits and have the same bounds.
    bounds: Vec<Bounds>,
}

impl BoundedRequests {
    /// Creates the batch from requests that follow [`Rules::V2`]; others get no bounds.
    pub fn new(mut requests: Vec<Request>) -> Self {
        let mut bounds = Vec::with_capacity(requests.len());
        for request in &mut requests {
            let own = match request.rules {
                Rules::V1 => Bounds::default(),
                Rules::V2(own) => own,
            };
            request.rules = Rules::V2(own);
            bounds.push(own);
        }
        if bounds.iter().all(|own| Some(own) == bounds.first()) {
            bounds.truncate(1);
        }
        Self {
            requests: Arc::new(requests),
            bounds,
        }
    }

    /// Gives each decoded request its bounds.
    fn distribute(&mut self) -> Result<(), DecodeError> {
        let requests = Arc::make_mut(&mut self.requests);
        match self.bounds.as_slice() {
            [] if requests.is_empty() => {}
            [all] => {
                for request in requests {
                    request.rules = Rules::V2(*all);
                }
            }
            each if each.len() == requests.len() => {
                for (request, own) in requests.iter_mut().zip(each) {
                    request.rules = Rules::V2(*own);
                }
            }
            _ => return Err(DecodeError("requests and bounds differ in number".into())),
        }
        Ok(())
    }
}

/// A command with its bytes. Cheap to clone.
#[derive(Clone)]
pub struct Encoded(Arc<Inner>);

struct Inner {
    bytes: Bytes,
    decoded: Mutex<Option<Command>>,
    deliver: Mutex<Option<Deliver>>,
}

/// Passes a command's outcomes and the index of its entry to the waiting caller. Must not block.
pub type Deliver = Box<dyn FnOnce(Vec<Outcome>, u64) + Send>;

/// Bytes that are not a command of a version known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log entry cannot be decoded: {0}")]
pub struct DecodeError(String);

impl Encoded {
    /// Encodes a command.
    ///
    /// # Errors
    /// Only if serialization itself fails, which the types exclude; reported rather than assumed.
    pub fn new(command: Command) -> Result<Self, DecodeError> {
        Self::encode(command, None)
    }

    /// As [`Self::new`], with a caller that waits on this node. Copies from the log or the wire have none.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn awaited(command: Command, deliver: Deliver) -> Result<Self, DecodeError> {
        Self::encode(command, Some(deliver))
    }

    /// The waiting caller; `None` after the first call.
    pub fn take_deliver(&self) -> Option<Deliver> {
        take(&self.0.deliver)
    }

    fn encode(command: Command, deliver: Option<Deliver>) -> Result<Self, DecodeError> {
        let mut out = BytesMut::with_capacity(256).writer();
        out.get_mut().put_u8(VERSION);
        postcard::to_io(&command, &mut out).map_err(|e| DecodeError(e.to_string()))?;
        Ok(Self(Arc::new(Inner {
            bytes: out.into_inner().freeze(),
            decoded: Mutex::new(Some(command)),
            deliver: Mutex::new(deliver),
        })))
    }

    /// Wraps bytes from the log or the wire; they are decoded on demand.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(Arc::new(Inner {
            bytes,
            decoded: Mutex::default(),
            deliver: Mutex::default(),
        }))
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The command; decoded unless it is still present from its encoding. It is removed: entries remain in
    /// the log's cache long after they were applied, and a decoded request is several times the size of its
    /// bytes.
    ///
    /// # Errors
    /// Bytes of a newer version, or damaged ones.
    pub fn take_command(&self) -> Result<Command, DecodeError> {
        take(&self.0.decoded).map_or_else(|| decode(&self.0.bytes), Ok)
    }
}

fn take<T>(from: &Mutex<Option<T>>) -> Option<T> {
    from.lock().take()
}

fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            let mut command = postcard::from_bytes(rest).map_err(|e| DecodeError(e.to_string()))?;
            if let Command::Bounded(batch) = &mut command {
                batch.distribute()?;
            }
            Ok(command)
        }
        Some((v, _)) => Err(DecodeError(format!(
            "version {v} is newer than {VERSION}; run a newer rqlited"
        ))),
        None => Err(DecodeError("empty".into())),
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command({} bytes)", self.0.bytes.len())
    }
}

impl fmt::Display for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl PartialEq for Encoded {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

#[cfg(test)]
mod tests {
    use node_db::{Kind, Stamp};
    use node_values::{Parameter, Statement, Value};

    use super::*;

    fn sample() -> Command {
        Command::Requests(Arc::new(vec![request(Rules::V1)]))
    }

    fn bounded() -> Command {
        let bounds = Bounds {
            vm_steps: 300,
            ..Bounds::NONE
        };
        Command::Bounded(BoundedRequests::new(vec![request(Rules::V2(bounds))]))
    }

    fn request(rules: Rules) -> Request {
        Request {
            kind: Kind::Execute,
            transaction: true,
            qualify_columns: false,
            statements: vec![Statement {
                sql: "INSERT INTO t VALUES(?, :n)".into(),
                parameters: vec![
                    Parameter {
                        name: None,
                        value: Value::Integer(-1),
                    },
                    Parameter {
                        name: Some("n".into()),
                        value: Value::Blob(vec![0, 255]),
                    },
                ],
            }],
            stamp: Stamp {
                unix_micros: 1,
                seed: 2,
            },
            rules,
        }
    }

    #[test]
    fn round_trip() {
        for command in [sample(), bounded(), Command::RaiseVersion(2)] {
            let encoded = Encoded::new(command.clone()).unwrap();
            let again = Encoded::from_bytes(encoded.bytes().clone());
            for encoded in [encoded, again] {
                assert_eq!(encoded.take_command().unwrap(), command);
                assert_eq!(encoded.take_command().unwrap(), command, "the second time");
            }
        }
    }

    /// The bytes of version 1, recorded: a change that breaks them breaks every existing log.
    #[test]
    fn version_one_bytes_are_frozen() {
        let encoded = Encoded::new(sample()).unwrap();
        let hex: String = encoded.bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "0100010001000 11b".replace(' ', "")
                + "494e5345525420494e544f20742056414c554553283f2c203a6e29"
                + "02000101"
                + "01016e04"
                + "0200ff"
                + "0202"
        );
    }

    /// The same for the kinds of version 2.
    #[test]
    fn version_two_bytes_are_frozen() {
        let hex = |command| -> String {
            let encoded = Encoded::new(command).unwrap();
            encoded.bytes().iter().map(|b| format!("{b:02x}")).collect()
        };
        assert_eq!(hex(Command::RaiseVersion(2)), "010302");
        assert_eq!(hex(Command::HashContent), "0105");
        let request = "00010001 1b494e5345525420494e544f20742056414c554553283f2c203a6e29 \
             0200010101016e040200ff0202";
        let bounds = "01 ac02 ffffffffffffffffff01 ffffffffffffffffff01 00 00";
        let whole = format!("0104 01 {request} {bounds}");
        assert_eq!(hex(bounded()), whole.replace(' ', ""));
    }

    #[test]
    fn bounds_are_shared_or_each_has_its_own() {
        let with = |vm_steps| {
            request(Rules::V2(Bounds {
                vm_steps,
                ..Bounds::NONE
            }))
        };
        for requests in [
            vec![],
            vec![with(5)],
            vec![with(5), with(5), with(5)],
            vec![with(5), with(6), with(5)],
        ] {
            let command = Command::Bounded(BoundedRequests::new(requests.clone()));
            let bytes = Encoded::new(command).unwrap().bytes().clone();
            let Ok(Command::Bounded(again)) = Encoded::from_bytes(bytes).take_command() else {
                panic!("another command");
            };
            assert_eq!(*again.requests, requests);
        }
    }

    #[test]
    fn damaged_or_newer_bytes_are_errors() {
        assert!(Encoded::from_bytes(Bytes::new()).take_command().is_err());
        assert!(
            Encoded::from_bytes(Bytes::from_static(&[9, 0]))
                .take_command()
                .unwrap_err()
                .to_string()
                .contains("newer")
        );
        let whole = Encoded::new(sample()).unwrap();
        for cut in 1..whole.bytes().len() {
            assert!(
                Encoded::from_bytes(whole.bytes().slice(..cut))
                    .take_command()
                    .is_err(),
                "cut at {cut}"
            );
        }
    }
}
