//! `bench`: measures `rqlited` and the ceilings beside it; see `bench --help`.
use std::process::ExitCode;

/// The node uses it too: the ceiling must not be lower for want of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    e2e::bench::run(&args).unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}
