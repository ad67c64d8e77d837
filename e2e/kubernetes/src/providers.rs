//! The providers by their names.
use anyhow::{Result, bail};

use crate::{kind::Kind, local::Local, provider::Provider};

/// The provider with this name: `local` or `kind`.
///
/// # Errors
/// For any other name, or if its directory is unknown.
pub fn named(name: &str) -> Result<Box<dyn Provider>> {
    match name {
        "local" => Ok(Box::new(Local::new()?)),
        "kind" => Ok(Box::new(Kind::new()?)),
        _ => bail!("there is no provider {name:?}: use local or kind"),
    }
}
