//! The list of what runs on this node's readers, and ending one of them.
use serde_json::{Value, json};

use super::Store;
use crate::store_types::StoreError;

/// Most reads in a list, the oldest first.
const MOST_LISTED: usize = 100;

impl Store {
    /// The reads and backups in progress on this node, for any caller.
    ///
    /// # Errors
    /// Not open.
    pub fn running(&self) -> Result<Value, StoreError> {
        let running = self.open()?.db.running(MOST_LISTED);
        let shown = running.into_iter().map(|one| {
            json!({
                "id": one.id,
                "seconds": one.age.as_secs_f64(),
                "state": match (one.writes, one.waiting) {
                    (true, _) => "writing",
                    (false, true) => "waiting",
                    (false, false) => "computing",
                },
                "client": one.origin.client.map_or_else(String::new, |client| client.to_string()),
                "user": one.origin.user.unwrap_or_default(),
                "via": one.origin.via.unwrap_or_default(),
                "sql": one.text,
            })
        });
        Ok(shown.collect())
    }

    /// Ends one of them; `false` if it no longer runs.
    ///
    /// # Errors
    /// Not open.
    pub fn end_running(&self, id: u64) -> Result<bool, StoreError> {
        Ok(self.open()?.db.kill(id))
    }
}
