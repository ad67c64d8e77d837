//! A condition before it is written.

/// A condition without its times.
pub(super) struct NewCondition {
    /// Its type.
    pub(super) kind: &'static str,
    /// Is it true?
    pub(super) status: bool,
    /// Reason, one word.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) message: String,
}

/// A condition without its times.
pub(super) fn condition_of(
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: impl Into<String>,
) -> NewCondition {
    NewCondition {
        kind,
        status,
        reason,
        message: message.into(),
    }
}
