//! What runs on this node's readers, for whoever has to find out what keeps it busy, and to end it.
use serde_json::{Value, json};

use super::Store;
use crate::store_types::StoreError;

/// Reads that a list shows, the oldest first.
const MOST_LISTED: usize = 100;

impl Store {
    /// Reads and backups under way on this node, whoever asked for them.
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

    /// Ends one of them; `false` if it is not running any more.
    ///
    /// # Errors
    /// Not open.
    pub fn end_running(&self, id: u64) -> Result<bool, StoreError> {
        Ok(self.open()?.db.kill(id))
    }
}
