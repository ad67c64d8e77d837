//! Why a recovery did not happen, or did not end.
use std::{io, path::Path};

use super::peers::PeersError;
use crate::identity::IdentityError;

/// Why a recovery did not happen, or did not end. The peers file stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The file is wrong.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// The data directory cannot be recovered so.
    #[error("failed to recover node: {0}")]
    Failed(String),
    /// The identity cannot be had.
    #[error("failed to recover node: {0}")]
    Identity(#[from] IdentityError),
    /// The database cannot be had.
    #[error("failed to recover node: {0}")]
    Database(#[from] node_db::OpenError),
}

impl RecoverError {
    pub(super) fn io(what: &str, path: &Path, e: &io::Error) -> Self {
        Self::Failed(format!("{what} {}: {e}", path.display()))
    }
}
