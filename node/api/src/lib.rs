//! rqlite's HTTP contract as values: what a request may say and what a reply looks like, byte for byte.
//!
//! Knows no runtime, database, server or Kubernetes crate: the node answers with it, the operator, the shell and the
//! end-to-end tests ask with it.
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

pub use json::{pretty_json, to_go_json};
pub use nodes::{NodeInfo, NodesReply};
pub use param::{BackupFormat, Level, ParamError, QueryParams};
pub use result::{Reply, ReplyWriter, Shape, write_reply};
pub use statement::{ParseError, parse_statements};
