//! Restoring from an archive or a backup: replaying entries on a base, the subcommand `rqlited archive`,
//! `-auto-restore`, and replacing the contents of a running cluster. See DESIGN.md beside this file.
pub mod auto;
pub mod child;
pub mod choose;
pub mod command;
pub mod entries;
pub mod in_place;
pub mod output;
pub mod replay;
pub mod run;
pub mod source;

#[cfg(test)]
mod tests;
