//! Reading: threads with a connection each, spare connections for short reads on the caller's thread, and the gate that
//! lets the writer empty the room for a checkpoint or a new main file.
pub(crate) mod asked;
pub(crate) mod control;
pub(crate) mod gate;
mod inline;
mod lanes;
pub(crate) mod parts;
mod queue;
mod run;
mod sink;
pub(crate) mod state;
mod threads;
mod turns;
