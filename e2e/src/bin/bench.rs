//! `bench`: measures `rqlited` and the machine's ceilings; see `bench --help`.
use std::process::ExitCode;

/// The same allocator as the node's, so that the ceiling is not lower for lack of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    e2e::bench::run(&args).unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}
