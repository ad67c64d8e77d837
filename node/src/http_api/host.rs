//! Facts about the machine and this process for `/status`, read from Linux's `/proc` and `/sys`; empty where
//! those do not exist.
use std::{collections::BTreeMap, fs};

use rustix::param::page_size;
use serde_json::{Value, json};

/// The kernel's interface flags and their names.
const INTERFACE_FLAGS: [(u32, &str); 6] = [
    (0x1, "up"),
    (0x2, "broadcast"),
    (0x8, "loopback"),
    (0x10, "pointtopoint"),
    (0x1000, "multicast"),
    (RUNNING, "running"),
];
/// The link is up.
const RUNNING: u32 = 0x40;

/// Memory use of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) virtual_bytes: u64,
    pub(super) resident_bytes: u64,
}

pub(super) fn memory() -> Memory {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = text
        .split_whitespace()
        .map(|number| number.parse::<u64>().unwrap_or(0));
    let page_bytes = page_size() as u64;
    let mut bytes = || pages.next().unwrap_or(0) * page_bytes;
    Memory {
        virtual_bytes: bytes(),
        resident_bytes: bytes(),
    }
}

/// The part `os` of `/status`.
pub(super) fn os() -> Value {
    let executable = std::env::current_exe()
        .map(|path| path.display().to_string())
        .unwrap_or_default();
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    json!({
        "executable": executable,
        "hostname": hostname.trim_end(),
        "page_size": page_size(),
        "pid": std::process::id(),
        "ppid": std::os::unix::process::parent_id(),
    })
}

/// The part `network` of `/status`.
pub(super) fn network() -> Value {
    let mut interfaces: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let prefix = match &interface.addr {
            if_addrs::IfAddr::V4(address) => address.prefixlen,
            if_addrs::IfAddr::V6(address) => address.prefixlen,
        };
        let address = format!("{}/{prefix}", interface.ip());
        interfaces
            .entry(interface.name)
            .or_default()
            .push(json!({ "address": address }));
    }
    let described: BTreeMap<String, Value> = interfaces
        .into_iter()
        .map(|(name, addresses)| describe(name, addresses))
        .collect();
    json!({ "interfaces": described })
}

fn describe(name: String, addresses: Vec<Value>) -> (String, Value) {
    let read = |file: &str| {
        fs::read_to_string(format!("/sys/class/net/{name}/{file}")).unwrap_or_default()
    };
    let hardware = read("address");
    let hardware = hardware.trim();
    // The loopback interface has none, but the kernel shows zeros.
    let hardware = if hardware.chars().all(|digit| matches!(digit, '0' | ':')) {
        ""
    } else {
        hardware
    };
    let flags = u32::from_str_radix(read("flags").trim().trim_start_matches("0x"), 16).unwrap_or(0);
    // The file `flags` does not contain the state of the link; `carrier` does.
    let flags = if read("carrier").trim() == "1" {
        flags | RUNNING
    } else {
        flags
    };
    let described =
        json!({ "addresses": addresses, "flags": flag_names(flags), "hardware_address": hardware });
    (name, described)
}

fn flag_names(flags: u32) -> String {
    let set: Vec<&str> = INTERFACE_FLAGS
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    set.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_by_name() {
        assert_eq!(flag_names(0x49), "up|loopback|running");
        assert_eq!(flag_names(0x1043), "up|broadcast|multicast|running");
        assert_eq!(flag_names(0), "");
    }

    #[test]
    fn this_machine() {
        assert_eq!(os()["pid"], std::process::id());
        assert!(page_size().is_power_of_two());
        assert!(memory().resident_bytes > 0);
        let loopback = network()["interfaces"]["lo"].clone();
        assert_eq!(loopback["addresses"][0]["address"], "127.0.0.1/8");
        assert_eq!(loopback["hardware_address"], "");
    }
}
