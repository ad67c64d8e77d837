//! Limits of request bodies.

/// Largest body with statements. Such a body is held in memory several times (bytes, statements, log entry,
/// frames to other nodes), and one log entry blocks those behind it. Larger input belongs to `/db/load`,
/// which streams it.
pub(super) const MAX_BODY_BYTES: usize = 32 << 20;
/// Largest body of the administrative endpoints, which holds a node id.
pub(super) const MAX_ADMIN_BODY_BYTES: usize = 64 << 10;
