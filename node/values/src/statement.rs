//! Statements with their parameters.
use serde::{Deserialize, Serialize};

use crate::value::Value;

/// One SQL text (possibly several statements separated by `;`) and the parameters bound to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// SQL as the client sent it.
    pub sql: String,
    /// Positional and named parameters, in the order given.
    pub parameters: Vec<Parameter>,
}

/// One parameter. A name `n` binds `:n`, `@n` and `$n`; no name means the next positional placeholder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Name without its prefix character.
    pub name: Option<String>,
    /// What is bound.
    pub value: Value,
}
