//! rqlited: Raft-replicated SQLite with rqlite's HTTP API.
//!
//! The modules in reading order: [`config`] (command line) → [`identity`] and [`local`] (this node) →
//! [`command`] (content of log entries) → [`internode`] (messages between nodes) → [`raft`] (consensus) →
//! [`store`] (the replicated database) → [`discovery`] (addresses of other nodes) → [`cluster`] (joining and
//! forming) → [`http_api`] and [`internode_server`] (the two ports) → [`run`] (starts and stops all of them).
//! [`recovery`], [`inspect`] and [`prepare`] work on the data directory of a stopped node; [`entrypoint`]
//! starts the node in a container image.
pub mod archive;
pub mod audit;
pub mod auth;
pub mod auto_backup;
pub mod backup_command;
pub mod bind;
pub mod bounds;
pub mod causes;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod config;
pub mod data_dir;
pub mod descriptors;
pub mod discovery;
pub mod disk;
pub mod entrypoint;
pub mod hash_password;
pub mod health;
pub mod http_api;
pub mod identity;
pub mod inspect;
pub mod internode;
pub mod internode_server;
pub mod local;
pub mod metrics;
pub mod parked;
pub mod parked_command;
pub mod prepare;
pub mod raft;
pub mod recovery;
pub mod rejoin;
pub mod restore;
pub mod run;
pub mod skip_entry;
pub mod stop;
pub mod store;
pub mod store_types;
pub mod telemetry;
pub mod tls;
pub mod transport;
pub mod version;

/// The version that clients see (`X-RQLITE-VERSION`): of the API, which is rqlite v10's, and of this program.
pub const VERSION: &str = concat!("v10.3.0-", env!("CARGO_PKG_VERSION"));

/// What `-version` prints.
pub fn version_line() -> String {
    format!(
        "rqlited {VERSION} {} {} rust sqlite{} (commit {}, compiler rustc)",
        std::env::consts::OS,
        std::env::consts::ARCH,
        node_db::sqlite_version(),
        option_env!("RQLITED_COMMIT").unwrap_or("unknown"),
    )
}
