//! What the machine says about itself and this process, for `/status`: read from Linux's own files, empty where there are none.
use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

/// Fallback where the kernel does not tell; right on nearly all machines.
const PAGE_BYTES: u64 = 4096;
/// Type of the auxiliary vector's entry that holds the page size.
const AT_PAGESZ: u64 = 6;
/// Interface flags as the kernel numbers them, and their names.
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

/// Memory of this process.
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
    let page_bytes = page_bytes();
    let mut bytes = || pages.next().unwrap_or(0) * page_bytes;
    Memory {
        virtual_bytes: bytes(),
        resident_bytes: bytes(),
    }
}

fn page_bytes() -> u64 {
    let auxiliary = fs::read("/proc/self/auxv").unwrap_or_default();
    page_bytes_of(&auxiliary).unwrap_or(PAGE_BYTES)
}

/// Finds the page size in pairs of native 64-bit numbers.
fn page_bytes_of(auxiliary: &[u8]) -> Option<u64> {
    let (numbers, _) = auxiliary.as_chunks::<8>();
    let (pairs, _) = numbers.as_chunks::<2>();
    let pair = pairs
        .iter()
        .find(|[kind, _]| u64::from_ne_bytes(*kind) == AT_PAGESZ)?;
    Some(u64::from_ne_bytes(pair[1]))
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
        "page_size": page_bytes(),
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
    // The loopback has none but shows zeros.
    let hardware = if hardware.chars().all(|digit| matches!(digit, '0' | ':')) {
        ""
    } else {
        hardware
    };
    let flags = u32::from_str_radix(read("flags").trim().trim_start_matches("0x"), 16).unwrap_or(0);
    // This file leaves out whether the link is up; another tells.
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
    fn page_size_is_found_among_pairs() {
        let auxiliary: Vec<u8> = [16_u64, 1, 6, 16_384, 0, 0]
            .iter()
            .flat_map(|number| number.to_ne_bytes())
            .collect();
        assert_eq!(page_bytes_of(&auxiliary), Some(16_384));
        assert_eq!(page_bytes_of(&auxiliary[..20]), None);
        assert!(page_bytes().is_power_of_two());
    }

    #[test]
    fn this_machine() {
        assert_eq!(os()["pid"], std::process::id());
        assert!(memory().resident_bytes > 0);
        let loopback = network()["interfaces"]["lo"].clone();
        assert_eq!(loopback["addresses"][0]["address"], "127.0.0.1/8");
        assert_eq!(loopback["hardware_address"], "");
    }
}
