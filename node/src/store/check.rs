//! Checks of this node's database in the background: started by an id, at most one at a time, with progress,
//! and ended by a request.
pub mod run;

use node_contract::status::{CheckRequest, CheckStatus};

use self::run::CheckRefusal;
use super::{Caller, Store};

impl Store {
    /// Starts a check, unless one was started with this id. Returns its state.
    ///
    /// # Errors
    /// Another check runs, or the store is not open.
    pub fn start_check(
        &self,
        request: &CheckRequest,
        caller: &Caller,
    ) -> Result<CheckStatus, CheckRefusal> {
        let opened = self.open();
        let opened = opened.map_err(|error| CheckRefusal::Failed(error.to_string()))?;
        let checks = &self.0.checks;
        checks.start(opened.db.clone(), request, caller.origin())
    }

    /// Ends the check with this id. Returns its state.
    ///
    /// # Errors
    /// It does not run.
    pub fn end_check(&self, id: &str) -> Result<CheckStatus, CheckRefusal> {
        self.0.checks.end(id)
    }

    /// The check that runs, or the last one since the start.
    pub fn check_status(&self) -> Option<CheckStatus> {
        self.0.checks.last()
    }
}
