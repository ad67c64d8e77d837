//! Reads: reader threads with one connection each, spare connections for short reads on the caller's thread,
//! and the gate by which the writer holds reads back for a checkpoint or a new main file.
pub(crate) mod control;
pub(crate) mod gate;
mod inline;
mod lanes;
pub(crate) mod parts;
pub(crate) mod pending;
mod queue;
mod run;
mod sink;
pub(crate) mod state;
mod threads;
mod turns;
