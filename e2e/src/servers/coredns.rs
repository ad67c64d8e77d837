//! CoreDNS with one zone, whose records a test can change.
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

use anyhow::{Context, Result};

use super::{
    daemon::{Daemon, LIMIT},
    dns,
    tool::Tool,
};
use crate::{ports, wait};

/// How often the server checks the zone file for changes.
const RELOAD_MS: u32 = 50;
/// TTL of records without one, and of negative answers (the SOA's last field) unless set otherwise.
const TTL_SECS: u32 = 1;

/// An authoritative DNS server for one zone, on UDP and TCP.
#[derive(Debug)]
pub struct CoreDns {
    daemon: Daemon,
    addr: SocketAddr,
    zone: String,
    serial: u32,
    negative_ttl_secs: u32,
}

impl CoreDns {
    /// Serves `zone` (such as `cluster.test`) with `records`: lines of a zone file relative to the zone, such
    /// as `n1 IN A 127.0.0.1` or `_raft._tcp IN SRV 0 0 4002 n1`. SOA and NS are added. Other names in the
    /// zone do not exist; names outside it are refused.
    ///
    /// # Errors
    /// If the server cannot be started or rejects the records; shows the end of its log.
    pub fn start(zone: &str, records: &str) -> Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port_for_both()?));
        Self::start_at(addr, zone, records)
    }

    /// Like [`CoreDns::start`] at a given address: resolvers only use port 53.
    ///
    /// # Errors
    /// See [`CoreDns::start`].
    pub fn start_at(addr: SocketAddr, zone: &str, records: &str) -> Result<Self> {
        let mut server = Self {
            daemon: Daemon::new(Tool::CoreDns.program()?)?,
            addr,
            zone: zone.trim_end_matches('.').to_owned(),
            serial: 0,
            negative_ttl_secs: TTL_SECS,
        };
        server.write_zone(records)?;
        let corefile = format!(
            "{zone}:{port} {{\n  bind {ip}\n  file zone {zone} {{\n    reload {RELOAD_MS}ms\n  }}\n  errors\n  log\n}}\n",
            zone = server.zone,
            ip = addr.ip(),
            port = addr.port(),
        );
        fs::write(server.daemon.dir().join("Corefile"), corefile).context("write the Corefile")?;
        let ready = server.serves(1);
        let args = ["-conf", "Corefile"].map(str::to_owned).to_vec();
        server.daemon.start(args, ready)?;
        Ok(server)
    }

    /// Where it listens, UDP and TCP.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Replaces all records of the zone; returns once they are served.
    ///
    /// # Errors
    /// If the server rejects them (a line that is not a record); shows the end of its log.
    pub fn set(&mut self, records: &str) -> Result<()> {
        self.write_zone(records)?;
        wait::until("the new records", LIMIT, self.serves(self.serial))
            .with_context(|| format!("log of coredns:\n{}", self.daemon.log_tail()))
    }

    /// Sets the TTL of negative answers, effective from the next [`CoreDns::set`].
    pub fn set_negative_ttl_secs(&mut self, secs: u32) {
        self.negative_ttl_secs = secs;
    }

    /// Kills the process, as if its machine failed; [`CoreDns::restart`] starts it again.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again with the same records at the same address.
    ///
    /// # Errors
    /// See [`CoreDns::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.daemon.kill();
        let ready = self.serves(self.serial);
        self.daemon.start_again(ready)
    }

    /// The process, for its log and for freezing it.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    fn serves(&self, serial: u32) -> impl FnMut() -> Result<(), String> + use<> {
        let (addr, zone) = (self.addr, self.zone.clone());
        move || match dns::serial(addr, &zone) {
            Ok(seen) if seen == serial => Ok(()),
            Ok(seen) => Err(format!("serial {seen}, not {serial}")),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    fn write_zone(&mut self, records: &str) -> Result<()> {
        self.serial += 1;
        let text = format!(
            "$ORIGIN {}.\n$TTL {TTL_SECS}\n@ IN SOA ns hostmaster {} 60 60 60 {}\n@ IN NS ns\nns IN A 127.0.0.1\n{records}\n",
            self.zone, self.serial, self.negative_ttl_secs,
        );
        // Renamed into place, so that the server never reads a partial file.
        let (new, zone) = (
            self.daemon.dir().join("zone.new"),
            self.daemon.dir().join("zone"),
        );
        fs::write(&new, text).context("write the zone")?;
        fs::rename(new, zone).context("replace the zone")
    }
}

/// A port that is free for both UDP and TCP.
pub(super) fn port_for_both() -> Result<u16> {
    loop {
        let port = ports::reserve()?;
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
}
