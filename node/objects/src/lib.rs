//! Where backups and archives are kept: S3 and its clones, Google Cloud Storage, Azure Blob Storage or a
//! folder, behind one handle.
//!
//! Reading order: [`config`] (the JSON that users write) → [`target`] (what it means) → [`store`] (the
//! handle) with [`read`] and [`mod@write`] → [`error`]. `open` makes the handle; `tls` and `gcs` are what
//! `object_store` lacks. `DESIGN.md` says why.
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
pub mod target;
mod tls;
pub mod write;

pub use config::{Config, ConfigError, Use};
pub use error::{Kind, ObjectError};
pub use read::Reader;
pub use secret::Secret;
pub use store::{Created, Entry, Meta, Metadata, Store, Updated, Version};
pub use target::Target;
pub use write::Writer;
