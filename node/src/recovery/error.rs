//! Errors of a recovery.
use std::{io, path::Path};

use super::peers::PeersError;
use crate::identity::IdentityError;

/// Why a recovery failed or did not finish. The peers file remains in place.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The peers file is invalid.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// This data directory cannot be recovered.
    #[error("failed to recover node: {0}")]
    Failed(String),
    /// The identity cannot be read.
    #[error("failed to recover node: {0}")]
    Identity(#[from] IdentityError),
    /// The database cannot be read.
    #[error("failed to recover node: {0}")]
    Database(#[from] node_db::OpenError),
}

impl RecoverError {
    pub(super) fn io(what: &str, path: &Path, e: &io::Error) -> Self {
        Self::Failed(format!("{what} {}: {e}", path.display()))
    }
}
