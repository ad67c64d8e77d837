//! Memory of a process, as reported by the kernel in `/proc/<pid>/status`.
use anyhow::{Context, Result};

/// Resident memory in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Current.
    pub resident: f64,
    /// Maximum since the process started.
    pub peak: f64,
}

/// Resident memory of the process `pid`.
///
/// # Errors
/// If there is no such process.
pub fn of(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse(&text).with_context(|| format!("{path} shows no memory"))
}

/// From now on the peak is that of what follows.
///
/// # Errors
/// If there is no such process.
pub fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").with_context(|| format!("write {path}"))
}

fn parse(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib / 1024.0)
    };
    Some(Memory {
        resident: field("VmRSS:")?,
        peak: field("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_lines() {
        let memory = parse("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n").unwrap();
        assert!((memory.resident - 1.0).abs() < 1e-9 && (memory.peak - 2.0).abs() < 1e-9);
        assert!(parse("Name:\tzombie\n").is_none());
        assert!(of(std::process::id()).unwrap().resident > 0.5);
    }
}
