//! Frames, and connections with and without TLS over real sockets.
use super::*;

#[tokio::test]
async fn messages_of_any_size_come_through() {
    for length in [
        0,
        1,
        FRAME_STEP_BYTES - 3,
        FRAME_STEP_BYTES,
        3 * FRAME_STEP_BYTES + 7,
    ] {
        let message: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let mut sent = Vec::new();
        write_frame(&mut sent, &message).await.unwrap();
        let mut reader = &sent[..];
        let read: Option<Vec<u8>> = read_frame(&mut reader, MAX_FRAME_BYTES).await.unwrap();
        assert!(read.as_deref() == Some(&message[..]), "{length}");
        assert!(reader.is_empty());
    }
}

#[tokio::test]
async fn larger_ones_than_allowed_and_half_ones_do_not() {
    let mut sent = Vec::new();
    write_frame(&mut sent, &vec![1_u8; 1000]).await.unwrap();
    let over = read_frame::<_, Vec<u8>>(&mut &sent[..], 1000).await;
    assert_eq!(over.unwrap_err().kind(), io::ErrorKind::InvalidData);
    let half = read_frame::<_, Vec<u8>>(&mut &sent[..500], MAX_FRAME_BYTES).await;
    assert_eq!(half.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

mod secured {
    //! Two nodes with certificates of an authority of their own.
    use std::path::Path;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        config::{NodeTlsStage, Tls},
        tls::{Port, Side},
    };

    const LIMIT: Duration = Duration::from_secs(20);

    pub(super) struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    impl Authority {
        pub(super) fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let pem = params.self_signed(&key).unwrap().pem();
            let issuer = Issuer::new(params, key);
            Self { issuer, pem }
        }

        /// Writes a new certificate and its key.
        pub(super) fn issue(&self, dir: &Path, names: &[&str]) {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(names).unwrap();
            let leaf = params.signed_by(&key, &self.issuer).unwrap();
            std::fs::write(dir.join("tls.crt"), leaf.pem()).unwrap();
            std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
        }
    }

    pub(super) fn trust(dir: &Path, authorities: &[&Authority]) {
        let bundle: String = authorities.iter().map(|a| a.pem.as_str()).collect();
        std::fs::write(dir.join("ca.crt"), bundle).unwrap();
    }

    /// One node's files and its way to make connections.
    pub(super) struct Node {
        pub(super) dir: tempfile::TempDir,
        pub(super) side: Arc<Side>,
        pub(super) transport: Arc<Transport>,
    }

    pub(super) fn node(authority: &Authority, stage: NodeTlsStage, change: fn(&mut Tls)) -> Node {
        let dir = tempfile::tempdir().unwrap();
        authority.issue(dir.path(), &["127.0.0.1"]);
        trust(dir.path(), &[authority]);
        let mut tls = Tls {
            cert: Some(dir.path().join("tls.crt")),
            key: Some(dir.path().join("tls.key")),
            ca_cert: Some(dir.path().join("ca.crt")),
            verify_client: true,
            ..Tls::default()
        };
        change(&mut tls);
        let side = Side::open(Port::Node, &tls, Arc::default()).unwrap();
        let transport = Arc::new(Transport::with_tls(stage, Arc::clone(&side)));
        Node {
            dir,
            side,
            transport,
        }
    }

    pub(super) fn hello() -> Hello {
        Hello {
            purpose: Purpose::Cluster,
            from: "a#1".into(),
            to: None,
            cluster: None,
            version: version::NEWEST,
        }
    }

    /// Connects `dialing` to `accepting`; both ends, or the error of each.
    pub(super) async fn connect(
        dialing: &Transport,
        accepting: &Transport,
    ) -> (
        Result<Connection, WireError>,
        Result<Connection, AcceptError>,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accept = async {
            let (stream, from) = listener.accept().await.unwrap();
            let (mut connection, _) = Connection::accept(accepting, stream, from).await?;
            connection.accepted().await?;
            Ok(connection)
        };
        let hello = hello();
        let dial = Connection::dial(dialing, &address, &hello, LIMIT);
        tokio::join!(dial, accept)
    }

    pub(super) async fn both(a: &Transport, b: &Transport) -> (Connection, Connection) {
        let (dialed, accepted) = connect(a, b).await;
        (dialed.unwrap(), accepted.unwrap())
    }
}

use secured::{Authority, both, connect, node, trust};

use crate::config::NodeTlsStage::{Accept, Require, Use};

#[tokio::test]
async fn every_pair_of_neighbouring_stages_connects() {
    let authority = Authority::new();
    let [accept, uses, require] =
        [Accept, Use, Require].map(|stage| node(&authority, stage, |_| {}).transport);
    let plain = Transport::default();
    for (a, b, encrypted) in [
        (&plain, &accept, false),
        (&*accept, &Arc::new(Transport::default()), false),
        (&*accept, &accept, false),
        (&*accept, &uses, false),
        (&*uses, &accept, true),
        (&*uses, &uses, true),
        (&*uses, &require, true),
        (&*require, &uses, true),
        (&*require, &require, true),
    ] {
        let (mut dialed, mut accepted) = both(a, b).await;
        assert_eq!(accepted.link.is_some(), encrypted);
        assert_eq!(accepted.is_verified_client(), encrypted);
        assert!(!dialed.is_verified_client());
        assert!(dialed.is_idle() && accepted.is_idle());
        dialed.send(&7_u32).await.unwrap();
        assert_eq!(accepted.receive::<u32>().await.unwrap(), Some(7));
        drop(accepted);
        assert_eq!(dialed.receive::<u32>().await.unwrap(), None, "a clean end");
        assert!(!dialed.is_idle());
    }
}

#[tokio::test]
async fn who_has_no_right_gets_nowhere_and_sees_why() {
    let (authority, other) = (Authority::new(), Authority::new());
    let require = node(&authority, Require, |_| {}).transport;
    let accept = node(&authority, Accept, |_| {}).transport;
    let outsider = node(&other, Require, |tls| tls.no_verify = true).transport;
    let misnamed = node(&authority, Require, |tls| {
        tls.verify_server_name = "b".into()
    })
    .transport;
    let named = node(&authority, Require, |tls| {
        tls.verify_common_name = "node".into()
    })
    .transport;
    let plain = Transport::default();
    for (a, b, at_the_dialing, at_the_accepting) in [
        (
            &plain,
            &*require,
            "it may require TLS (-node-cert)",
            "does not speak TLS",
        ),
        (
            &*accept,
            &*require,
            "it may require TLS (-node-cert)",
            "does not speak TLS",
        ),
        (
            &*require,
            &plain,
            "it may have no TLS (-node-cert there)",
            "this node has no -node-cert",
        ),
        (
            &*outsider,
            &*require,
            "TLS: the other side ended the handshake: it does not trust the authority",
            "signed by no trusted authority",
        ),
        (&*require, &*outsider, "signed by no trusted authority", ""),
        (&*misnamed, &*require, "not valid for name", ""),
        (
            &*require,
            &*named,
            "it does not accept the certificate",
            "that matches CN \"node\"",
        ),
    ] {
        let (dialed, accepted) = connect(a, b).await;
        let dialed = dialed.unwrap_err();
        assert!(dialed.nothing_sent());
        let dialed = dialed.to_string();
        assert!(dialed.contains(at_the_dialing), "{dialed}");
        let accepted = match accepted.unwrap_err() {
            AcceptError::Tls(e) => crate::tls::explain(&e),
            other => other.to_string(),
        };
        assert!(accepted.contains(at_the_accepting), "{accepted}");
    }
}

/// What the other side sent before the move, and what TLS had decrypted but not handed out, is still there.
#[test]
fn a_connection_moves_to_another_runtime_with_every_byte() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (one, two) = (runtime(), runtime());
    let authority = Authority::new();
    for stage in [Accept, Require] {
        let transport = node(&authority, stage, |_| {}).transport;
        let (mut dialed, mut accepted) = one.block_on(async {
            let (mut dialed, accepted) = both(&transport, &transport).await;
            dialed.send(&vec![5_u8; 10_000]).await.unwrap();
            dialed.send(&6_u8).await.unwrap();
            (dialed, accepted)
        });
        if stage == Require {
            // TLS decrypts whole records: the rest of this one stays in its buffers.
            accepted = one.block_on(async {
                let reader = accepted.reader.into_inner();
                let mut stream = reader.unsplit(accepted.writer.into_inner());
                let mut first = [0; 3];
                stream.read_exact(&mut first).await.unwrap();
                assert_eq!(first[..2], 10_002_u32.to_le_bytes()[..2]);
                Connection::new(stream, String::new())
            });
        }
        let mut accepted = two.block_on(async { accepted.moved_here() }).unwrap();
        two.block_on(async {
            if stage == Require {
                let mut rest = [0; 10_003];
                accepted.reader.read_exact(&mut rest).await.unwrap();
                assert_eq!(rest[3..], [5; 10_000]);
            } else {
                let first = accepted.receive::<Vec<u8>>().await.unwrap();
                assert_eq!(first, Some(vec![5; 10_000]));
            }
            assert_eq!(accepted.receive::<u8>().await.unwrap(), Some(6));
            accepted.send(&"answer".to_owned()).await.unwrap();
        });
        let answer = one.block_on(dialed.receive::<String>()).unwrap();
        assert_eq!(answer.as_deref(), Some("answer"));
    }
}

#[tokio::test]
async fn a_withdrawn_authority_loses_its_connections_and_no_other() {
    let (old, new) = (Authority::new(), Authority::new());
    let (a, b) = (node(&old, Require, |_| {}), node(&old, Require, |_| {}));
    let watching = tokio::spawn(Arc::clone(&b.transport).watch(Default::default()));
    tokio::task::yield_now().await;
    let (mut dialed, before) = both(&a.transport, &b.transport).await;
    for node in [&a, &b] {
        trust(node.dir.path(), &[&old, &new]);
        node.side.look();
    }
    for node in [&a, &b] {
        new.issue(node.dir.path(), &["127.0.0.1"]);
        node.side.look();
    }
    let (_other, after) = both(&a.transport, &b.transport).await;
    tokio::task::yield_now().await;
    assert!(!is_retired(before.link.as_ref()), "both are trusted");
    trust(b.dir.path(), &[&new]);
    b.side.look();
    timeout(HELLO_TIMEOUT, withdrawn(before.link.as_ref()))
        .await
        .unwrap();
    assert!(!is_retired(after.link.as_ref()));
    assert!(dialed.is_idle(), "the other node trusts both still");
    // A request in progress is answered.
    let mut before = before;
    before.send(&1_u8).await.unwrap();
    assert_eq!(dialed.receive::<u8>().await.unwrap(), Some(1));
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_is_cut() {
    let (old, new) = (Authority::new(), Authority::new());
    let (a, b) = (node(&old, Require, |_| {}), node(&old, Require, |_| {}));
    let watching = tokio::spawn(Arc::clone(&b.transport).watch(Default::default()));
    tokio::task::yield_now().await;
    let (_dialed, mut before) = both(&a.transport, &b.transport).await;
    trust(b.dir.path(), &[&new]);
    b.side.look();
    let begun = tokio::time::Instant::now();
    let error = before.receive::<u8>().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    assert!(begun.elapsed() >= crate::transport::GRACE);
    assert!(before.send(&1_u8).await.is_err());
    watching.abort();
}
