//! The stores of backups and archives: S3 and compatible stores, Google Cloud Storage, Azure Blob Storage or
//! a folder, behind one handle.
//!
//! Reading order: [`config`] (the JSON that users write) → [`target`] (the checked value) → [`store`] (the
//! handle) with [`read`] and [`mod@write`] → [`error`]. `open` creates the handle; `tls` and `gcs` provide
//! what `object_store` lacks. `DESIGN.md` says why.
pub mod config;
mod endpoint;
pub mod error;
mod expand;
mod gcs;
pub mod json;
mod open;
pub mod read;
pub mod secret;
pub mod store;
mod sweep;
pub mod target;
mod tls;
mod unique;
pub mod write;

pub use config::{Config, ConfigError, Use};
pub use error::{Kind, ObjectError};
pub use read::Reader;
pub use secret::Secret;
pub use store::{Created, Entry, Meta, Metadata, Store, Updated, Version};
pub use target::Target;
pub use write::Writer;
