//! rqlite's HTTP contract as values: request bodies, query parameters and replies, byte for byte. The node's
//! HTTP API is built on it; other programs read replies with `node-contract` or as plain JSON.
//!
//! Knows no runtime, database, server or Kubernetes crate.
//!
//! Reading order: [`statement`] → [`result`] → [`param`] → [`json`]; then the small bodies: [`nodes`],
//! [`status`], [`admin`].

pub mod admin;
pub mod json;
pub mod nodes;
pub mod param;
pub mod result;
pub mod statement;
pub mod status;

pub use json::{from_named_fields, pretty_json, to_go_json};
pub use nodes::{NodeInfo, NodesReply};
pub use param::{BackupFormat, Level, ParamError, QueryParams, unescape_path};
pub use result::{Reply, ReplyWriter, Shape, write_reply};
pub use statement::{ParseError, parse_statements};
