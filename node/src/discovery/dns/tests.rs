//! Tests of names and counts, and of lookups at a small DNS server in this process, over UDP and TCP.
use std::{collections::BTreeMap, net::Ipv6Addr};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Record,
        rdata::{A, AAAA, SRV},
    },
    serialize::binary::{BinDecodable, BinEncodable},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

use super::*;

type Zone = Arc<Mutex<BTreeMap<String, Vec<RData>>>>;

/// Responds from its zone; other names do not exist. With `truncate`, UDP responses are cut so
/// that TCP must be used.
struct Server {
    address: SocketAddr,
    zone: Zone,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(truncate: bool) -> Self {
        let zone = Zone::default();
        // TCP first: it has fewer ports in use by others; UDP then takes the same one.
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("TCP");
        let address = tcp.local_addr().expect("an address");
        let udp = UdpSocket::bind(address).await.expect("UDP");
        let mut tasks = JoinSet::new();
        let names = Arc::clone(&zone);
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let answer = answer(&buffer[..length], &names, truncate);
                udp.send_to(&answer, from).await.expect("sent");
            }
        });
        let names = Arc::clone(&zone);
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                while let Ok(length) = stream.read_u16().await {
                    let mut question = vec![0; usize::from(length)];
                    stream.read_exact(&mut question).await.expect("read");
                    let answer = answer(&question, &names, false);
                    let length = u16::try_from(answer.len()).expect("short");
                    stream.write_u16(length).await.expect("sent");
                    stream.write_all(&answer).await.expect("sent");
                }
            }
        });
        Self {
            address,
            zone,
            _tasks: tasks,
        }
    }

    fn put(&self, name: &str, records: impl IntoIterator<Item = RData>) {
        let mut zone = self.zone.lock();
        zone.insert(name.to_owned(), records.into_iter().collect());
    }

    fn remove(&self, name: &str) {
        self.zone.lock().remove(name);
    }

    fn host(&self, name: &str) -> AddressLookup {
        let text = format!(
            "{{\"name\":\"{name}\",\"nameservers\":[\"{}\"]}}",
            self.address
        );
        open(&text, 4002, &|_| None).expect("valid")
    }

    fn service(&self) -> AddressLookup {
        let text = format!(
            "{{\"name\":\"db.example\",\"service\":\"raft\",\"nameservers\":[\"{}\"]}}",
            self.address
        );
        open_srv(&text).expect("valid")
    }
}

fn answer(question: &[u8], zone: &Zone, truncate: bool) -> Vec<u8> {
    let request = Message::from_bytes(question).expect("a question");
    let query = request.queries.first().expect("a query").clone();
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_available = true;
    response.add_query(query.clone());
    let name = query.name().to_ascii().trim_end_matches('.').to_lowercase();
    match zone.lock().get(&name) {
        None => response.metadata.response_code = ResponseCode::NXDomain,
        Some(_) if truncate => response.metadata.truncation = true,
        Some(records) => {
            for data in records {
                if data.record_type() == query.query_type() {
                    response.add_answer(Record::from_rdata(
                        query.name().clone(),
                        3600,
                        data.clone(),
                    ));
                }
            }
        }
    }
    response.to_bytes().expect("an answer")
}

fn v4(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(10, 0, 0, last)))
}

fn v6(last: u16) -> RData {
    RData::AAAA(AAAA(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)))
}

fn srv(target: &str, port: u16) -> RData {
    RData::SRV(SRV::new(
        0,
        0,
        port,
        Name::from_ascii(target).expect("a name"),
    ))
}

fn found(addresses: &[&str], nodes: usize) -> Found {
    Found {
        addresses: addresses.iter().map(ToString::to_string).collect(),
        nodes,
    }
}

#[tokio::test]
async fn records_are_seen_as_they_come_and_go() {
    let server = Server::start(false).await;
    let lookup = server.host("db.example");
    let missing = lookup.lookup().await.expect_err("no such name").to_string();
    assert_eq!(missing, "db.example does not exist in DNS (NXDOMAIN)");
    assert_eq!(lookup.status()["last_error"], missing);
    server.put("db.example", []);
    let empty = lookup.lookup().await.expect_err("no records").to_string();
    assert_eq!(empty, "db.example has no A or AAAA records");
    server.put("db.example", [v4(2), v4(1), v4(1), v6(1)]);
    let both = lookup.lookup().await.expect("records");
    assert_eq!(
        both,
        found(&["10.0.0.1:4002", "10.0.0.2:4002", "[fd00::1]:4002"], 2)
    );
    let status = lookup.status();
    assert_eq!(status.get("last_error"), None, "{status}");
    assert_eq!(status["last_addresses"], json!(both.addresses));
    assert!(status["last_contact"].is_string(), "{status}");
    server.put("db.example", [v6(1), v6(2)]);
    let six = lookup.lookup().await.expect("records");
    assert_eq!(six, found(&["[fd00::1]:4002", "[fd00::2]:4002"], 2));
    server.remove("db.example");
    lookup.lookup().await.expect_err("gone again");
}

#[tokio::test]
async fn an_answer_too_large_for_udp_comes_by_tcp() {
    let server = Server::start(true).await;
    server.put("db.example", (0..=255).map(v4));
    let all = server.host("db.example").lookup().await.expect("records");
    assert_eq!((all.addresses.len(), all.nodes), (256, 256));
}

#[tokio::test]
async fn targets_of_a_server_of_our_own_are_addresses_and_must_resolve() {
    let server = Server::start(false).await;
    let lookup = server.service();
    let service = "_raft._tcp.db.example";
    lookup.lookup().await.expect_err("no such service");
    server.put(service, [srv(".", 1)]);
    let none = lookup.lookup().await.expect_err("the root").to_string();
    assert_eq!(none, "_raft._tcp.db.example has no SRV records");
    server.put(
        service,
        [
            srv("N1.db.example.", 4002),
            srv("n1.db.example.", 4002),
            srv("n1.db.example.", 4003),
            srv("n2.db.example.", 4002),
        ],
    );
    let unresolved = lookup.lookup().await.expect_err("no target").to_string();
    assert!(
        unresolved.starts_with("none of the 3 targets of _raft._tcp.db.example resolves"),
        "{unresolved}"
    );
    server.put("n1.db.example", [v4(1), v4(2), v6(1)]);
    assert_eq!(
        lookup.lookup().await,
        Ok(found(
            &[
                "10.0.0.1:4002",
                "10.0.0.1:4003",
                "10.0.0.2:4002",
                "10.0.0.2:4003",
                "[fd00::1]:4002",
                "[fd00::1]:4003"
            ],
            3
        ))
    );
    server.put("n2.db.example", [v6(2)]);
    let all = lookup.lookup().await.expect("all");
    assert_eq!((all.addresses.len(), all.nodes), (7, 3));
}

#[test]
fn targets_of_the_systems_servers_stay_names() {
    let targets = BTreeSet::from([("n1".to_owned(), 4002), ("n2".to_owned(), 4003)]);
    let ip = BTreeSet::from([IpAddr::from([10, 0, 0, 1])]);
    let resolved = [Ok(ip), Err("n2 does not exist".to_owned())];
    assert_eq!(
        targets_found("s", &targets, &resolved, false),
        Ok(found(&["n1:4002"], 2))
    );
    assert_eq!(
        targets_found("s", &targets, &resolved, true),
        Ok(found(&["10.0.0.1:4002"], 2))
    );
}

#[tokio::test]
async fn a_silent_server_is_not_waited_for_longer_than_the_limit() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("UDP");
    let address = silent.local_addr().expect("an address");
    let text = format!("{{\"name\":\"db.example\",\"nameservers\":[\"{address}\"]}}");
    let lookup = open(&text, 4002, &|_| None).expect("valid");
    let begun = Instant::now();
    let slow = lookup.lookup().await.expect_err("no response").to_string();
    assert!(
        slow.starts_with("no name server answered for db.example in time"),
        "{slow}"
    );
    let took = begun.elapsed();
    assert!(took < LOOKUP_LIMIT + Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_local_name_or_an_address_asks_nobody() {
    // Nobody listens there.
    let servers = "\"nameservers\":[\"127.0.0.1:1\"]";
    for (name, expected) in [
        ("10.1.2.3", vec!["10.1.2.3:4002"]),
        ("fd00::1", vec!["[fd00::1]:4002"]),
    ] {
        let text = format!("{{\"name\":\"{name}\",{servers}}}");
        let lookup = open(&text, 4002, &|_| None).expect("valid");
        assert_eq!(lookup.lookup().await, Ok(found(&expected, 1)), "{name}");
    }
    let text = format!("{{\"name\":\"localhost\",{servers}}}");
    let local = open(&text, 4002, &|_| None).expect("valid");
    let local = local.lookup().await.expect("/etc/hosts");
    assert!(
        local.addresses.contains(&"127.0.0.1:4002".to_owned()),
        "{local:?}"
    );
}

#[tokio::test]
async fn the_variable_replaces_the_lookup() {
    let cases = [
        ("h1:1,h2:2", Ok(found(&["h1:1", "h2:2"], 2))),
        (" b:1 , a:1,b:1", Ok(found(&["a:1", "b:1"], 2))),
        ("[::1]:1", Ok(found(&["[::1]:1"], 1))),
        ("h1", Err("\"h1\" is not host:port")),
        ("h1:1,", Err("\"\" is not host:port")),
        ("h1:65536", Err("\"h1:65536\" is not host:port")),
    ];
    for (hosts, expected) in cases {
        let opened = open("", 4002, &|name| {
            (name == HOSTS_VARIABLE).then(|| hosts.to_owned())
        });
        match (opened, expected) {
            (Ok(lookup), Ok(expected)) => {
                assert_eq!(lookup.lookup().await, Ok(expected), "{hosts}")
            }
            (Err(e), Err(expected)) => assert!(e.contains(expected), "{hosts}: {e}"),
            (got, expected) => panic!("{hosts}: {got:?}, not {expected:?}"),
        }
    }
}

#[test]
fn mistakes_say_what_to_change() {
    let cases = [
        (
            "{\"nam\":\"x\"}",
            "unknown field `nam`, expected one of `name`, `port`, `nameservers`",
        ),
        ("{\"name\":7}", "name: expected a string"),
        ("{\"name\":\"h:4002\"}", "without port or URL"),
        ("{\"name\":\"http://h\"}", "without port or URL"),
        ("{\"name\":\"a..b\"}", "is not a DNS name"),
        ("{\"port\":0}", "port: expected a port number"),
        (
            "{\"nameservers\":[\"dns.example\"]}",
            "nameservers: \"dns.example\" is not an IP address",
        ),
    ];
    for (text, expected) in cases {
        let mistake = open(text, 4002, &|_| None).expect_err(text);
        assert!(mistake.contains(expected), "{text}: {mistake}");
    }
    let long = format!("{{\"service\":\"{}\"}}", "x".repeat(64));
    assert!(open_srv(&long).expect_err("too long").contains("service: "));
}
