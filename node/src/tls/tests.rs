//! Tests of one side as a whole: which files are taken, who gets in and with which words, what a reload does.
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    config::Tls,
    metrics::{Counter, Metrics},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const LEAF_RSA: &str = include_str!("tests/fixtures/rsa2048.crt");
const KEY_PKCS1: &str = include_str!("tests/fixtures/rsa2048_pkcs1.key");
const LEAF_WEAK: &str = include_str!("tests/fixtures/rsa1024.crt");
const KEY_WEAK: &str = include_str!("tests/fixtures/rsa1024.key");
const LEAF_SEC1: &str = include_str!("tests/fixtures/sec1.crt");
const LEAF_VERSION_1: &str = include_str!("tests/fixtures/version1.crt");
const KEY_SEC1: &str = include_str!("tests/fixtures/sec1.key");

/// PEM of a certificate and its key.
type Pair = (String, String);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: Pair,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params("ca", &["localhost"]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
        Self {
            issuer: Issuer::new(params, key),
            own,
        }
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }

    fn leaf(&self, name: &str) -> Pair {
        self.sign(&params(name, &["localhost"]))
    }
}

fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = (SystemTime::now() - 2 * DAY).into();
    params.not_after = (SystemTime::now() + 30 * DAY).into();
    params
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// Settings with these files.
    fn tls(&self, (cert, key): &Pair, ca: &str) -> Tls {
        Tls {
            cert: Some(self.write("tls.crt", cert)),
            key: Some(self.write("tls.key", key)),
            ca_cert: Some(self.write("ca.crt", ca)),
            ..Tls::default()
        }
    }

    fn side(&self, pair: &Pair, ca: &str, change: impl FnOnce(&mut Tls)) -> Arc<Side> {
        let mut tls = self.tls(pair, ca);
        change(&mut tls);
        open(&tls).unwrap()
    }
}

fn open(tls: &Tls) -> Result<Arc<Side>, String> {
    Side::open(Port::Node, tls, Arc::default())
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (cert, key) = authority.leaf("a");
    let (_, other_key) = authority.leaf("b");
    let (ca, ca_key) = authority.own.clone();
    let chain = format!("{cert}{ca}");
    let s = str::to_owned;
    #[rustfmt::skip]
    let cases = [
        ("good", cert.clone(), key.clone(), ca.clone(), None),
        ("a chain", chain.clone(), key.clone(), ca.clone(), None),
        ("a bundle", cert.clone(), key.clone(), format!("{ca}\n{}", Authority::new().own.0), None),
        ("PKCS#1", s(LEAF_RSA), s(KEY_PKCS1), s(LEAF_RSA), None),
        ("SEC1 after its parameters", s(LEAF_SEC1), s(KEY_SEC1), ca.clone(), None),
        ("an authority's own", ca.clone(), ca_key.clone(), ca.clone(), None),
        ("another key", cert.clone(), other_key, ca.clone(), Some("tls.key: this key does not belong to the certificate in")),
        ("wrong order", chain, ca_key, ca.clone(), Some("tls.key: this key belongs to certificate 2")),
        ("no certificate", s("x"), key.clone(), ca.clone(), Some("-node-cert")),
        ("no key", cert.clone(), cert.clone(), ca.clone(), Some("tls.key: holds no private key in PEM form: it holds: CERTIFICATE")),
        ("no authority", cert.clone(), key.clone(), key.clone(), Some("-node-ca-cert")),
        ("a weak key", s(LEAF_WEAK), s(KEY_WEAK), ca.clone(), Some("tls.crt: its RSA key has 1024 bits; at least 2048 are needed")),
        ("version 1", s(LEAF_VERSION_1), s(KEY_SEC1), ca.clone(), Some("subjectAltName")),
        ("broken", cert.replace("MII", "AAA"), key, ca, Some("tls.crt")),
    ];
    for (name, cert, key, ca, expected) in cases {
        let opened = open(&folder.tls(&(cert, key), &ca));
        match (opened, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) => {
                assert!(error.contains(part), "{name}: {error}");
                assert!(
                    error.contains(&folder.0.path().display().to_string()),
                    "{name}: {error}"
                );
            }
            (opened, _) => panic!("{name}: {:?}", opened.map(|side| side.describe())),
        }
    }
}

/// What both sides of a handshake say, after a byte in each direction: with TLS 1.3 a client learns only then
/// that it was refused.
async fn shake(
    server: &Side,
    client: &Side,
    host: &str,
) -> (Result<(), String>, Result<(), String>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let accepting = async {
        let mut stream = server.accept(far).await.map_err(|e| explain(&e))?;
        let byte = stream.read_u8().await.map_err(|e| explain(&e))?;
        stream.write_u8(byte).await.map_err(|e| explain(&e))
    };
    let connecting = async {
        let mut stream = client
            .connect(host, near)
            .await
            .map_err(|e| e.to_string())?;
        let _ = stream.write_u8(7).await;
        stream.read_u8().await.map(drop).map_err(|e| explain(&e))
    };
    tokio::join!(accepting, connecting)
}

/// `None`: both succeed. Otherwise parts of what the server and the client say.
async fn expect(
    name: &str,
    server: &Side,
    client: &Side,
    host: &str,
    refused: Option<(&str, &str)>,
) {
    let (accepted, connected) = shake(server, client, host).await;
    match refused {
        None => assert_eq!((accepted, connected), (Ok(()), Ok(())), "{name}"),
        Some((at_server, at_client)) => {
            let error = accepted.expect_err(name);
            assert!(error.contains(at_server), "{name}, server: {error}");
            let error = connected.expect_err(name);
            assert!(error.contains(at_client), "{name}, client: {error}");
        }
    }
}

#[tokio::test]
async fn clients_that_get_in_and_those_that_do_not() {
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = authority.own.0.clone();
    let server = Folder::new();
    let server = server.side(&authority.leaf("server"), &ca, |tls| {
        tls.verify_client = true;
        tls.verify_common_name = "good".into();
    });
    let mut expired = params("good", &[]);
    expired.not_after = (SystemTime::now() - DAY).into();
    let mut future = params("good", &[]);
    future.not_before = (SystemTime::now() + DAY).into();
    let mut only_server = params("good", &[]);
    only_server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut two_names = params("other", &[]);
    two_names.distinguished_name = rcgen::DistinguishedName::new();
    two_names
        .distinguished_name
        .push(DnType::CommonName, "good ");
    let not_accepted = "it does not accept the certificate";
    let wrong_name = "client did not provide any valid certificate that matches CN \"good\"";
    #[rustfmt::skip]
    let cases = [
        ("right", authority.leaf("good"), None),
        ("another authority", other.leaf("good"), Some(("signed by no trusted authority", "does not trust the authority"))),
        ("self-signed", other.own.clone(), Some(("an authority's certificate", "the other side ended"))),
        ("expired", authority.sign(&expired), Some(("it has expired", "has expired"))),
        ("not valid yet", authority.sign(&future), Some(("it is not valid yet", "has expired"))),
        ("for servers only", authority.sign(&only_server), Some(("extended key usage", not_accepted))),
        ("another name", authority.leaf("bad"), Some((wrong_name, not_accepted))),
        ("a name that begins so", authority.sign(&two_names), Some((wrong_name, not_accepted))),
        ("the authority itself", authority.own.clone(), Some((wrong_name, not_accepted))),
    ];
    for (name, pair, refused) in cases {
        let client = Folder::new();
        let client = client.side(&pair, &ca, |_| {});
        expect(name, &server, &client, "localhost", refused).await;
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told() {
    let authority = Authority::new();
    let folder = Folder::new();
    let server = folder.side(&authority.leaf("server"), &authority.own.0, |tls| {
        tls.verify_client = true
    });
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(
            pem::certificates(authority.own.0.as_bytes())
                .unwrap()
                .remove(0),
        )
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = tokio::io::duplex(64 << 10);
    let connecting = async {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector
            .connect("localhost".try_into().unwrap(), near)
            .await
            .unwrap();
        stream.read_u8().await.map_err(|e| explain(&e))
    };
    let (accepted, connected) = tokio::join!(server.accept(far), connecting);
    let error = explain(&accepted.unwrap_err());
    assert_eq!(error, "the client sent no certificate, and one is required");
    assert!(connected.unwrap_err().contains("it requires a certificate"));
}

#[tokio::test]
async fn servers_that_are_believed_and_those_that_are_not() {
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = authority.own.0.clone();
    let mut expired = params("server", &["localhost"]);
    expired.not_after = (SystemTime::now() - DAY).into();
    let mut only_client = params("server", &["localhost"]);
    only_client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let named = |name: &'static str| move |tls: &mut Tls| tls.verify_server_name = name.into();
    type Change = Box<dyn FnOnce(&mut Tls)>;
    type Words = (&'static str, &'static str);
    type Case = (&'static str, Pair, &'static str, Change, Option<Words>);
    let plain = || Box::new(|_: &mut Tls| {}) as Change;
    let no_verify = || Box::new(|tls: &mut Tls| tls.no_verify = true) as Change;
    #[rustfmt::skip]
    let cases: Vec<Case> = vec![
        ("right", authority.leaf("server"), "localhost", plain(), None),
        ("another host", authority.leaf("server"), "127.0.0.1", plain(), Some(("does not accept", "not valid for name"))),
        ("another host, its name expected", authority.leaf("server"), "127.0.0.1", Box::new(named("localhost")), None),
        ("right host, another name expected", authority.leaf("server"), "localhost", Box::new(named("x")), Some(("does not accept", "not valid for name"))),
        ("another authority", other.leaf("server"), "localhost", plain(), Some(("does not trust", "signed by no trusted authority"))),
        ("another authority, not verified", other.leaf("server"), "localhost", no_verify(), None),
        ("another host, not verified", authority.leaf("server"), "10.0.0.1", no_verify(), None),
        ("expired", authority.sign(&expired), "localhost", plain(), Some(("has expired", "it has expired"))),
        ("for clients only", authority.sign(&only_client), "localhost", plain(), Some(("does not accept", "extended key usage"))),
        ("the trusted authority itself", authority.own.clone(), "localhost", plain(), None),
        ("the trusted authority itself, another host", authority.own.clone(), "x", plain(), Some(("does not accept", "not valid for name"))),
        ("another authority itself, not verified", other.own.clone(), "localhost", no_verify(), None),
    ];
    for (name, pair, host, change, refused) in cases {
        let (folder, own) = (Folder::new(), Folder::new());
        let server = folder.side(&pair, &ca, |_| {});
        let client = own.side(&authority.leaf("client"), &ca, change);
        expect(name, &server, &client, host, refused).await;
    }
}

#[tokio::test]
async fn who_speaks_something_else_is_told_apart() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let server = folder.side(&authority.leaf("server"), &authority.own.0, |_| {});
    let (mut near, far) = tokio::io::duplex(64 << 10);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = explain(&server.accept(far).await.unwrap_err());
    assert_eq!(error, "the other side does not speak TLS");
    let (near, far) = tokio::io::duplex(64 << 10);
    drop(near);
    let error = explain(&server.accept(far).await.unwrap_err());
    assert!(error.contains("closed the connection"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_cut() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let server = folder.side(&authority.leaf("server"), &authority.own.0, |_| {});
    let (_near, far) = tokio::io::duplex(64 << 10);
    let begun = tokio::time::Instant::now();
    let error = server.accept(far).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(begun.elapsed(), HANDSHAKE_LIMIT);
}

/// A folder as Kubernetes mounts a Secret: files are links through `..data`, which is replaced by a rename.
fn publish(folder: &Path, version: &str, (cert, key): &Pair, ca: &str) {
    let real = folder.join(version);
    fs::create_dir(&real).unwrap();
    for (name, content) in [("tls.crt", cert.as_str()), ("tls.key", key), ("ca.crt", ca)] {
        fs::write(real.join(name), content).unwrap();
        let link = folder.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    let next = folder.join("..data_tmp");
    std::os::unix::fs::symlink(version, &next).unwrap();
    fs::rename(next, folder.join("..data")).unwrap();
}

#[tokio::test]
async fn a_changed_link_is_followed_and_bundles_move_from_one_authority_to_another() {
    let (old, new) = (Authority::new(), Authority::new());
    let both = format!("{}{}", old.own.0, new.own.0);
    let folder = Folder::new();
    let path = folder.0.path();
    let tls = Tls {
        cert: Some(folder.path("tls.crt")),
        key: Some(folder.path("tls.key")),
        ca_cert: Some(folder.path("ca.crt")),
        verify_client: true,
        ..Tls::default()
    };
    let first = old.leaf("first");
    publish(path, "1", &first, &old.own.0);
    let side = open(&tls).unwrap();
    let before = side.describe();
    let stays = Folder::new();
    let stays = stays.side(&old.leaf("stays"), &both, |_| {});
    let comes = Folder::new();
    let comes = comes.side(&new.leaf("comes"), &both, |_| {});
    let unknown = Some(("signed by no trusted authority", "does not trust"));
    expect("old", &side, &stays, "localhost", None).await;
    expect("new, too early", &side, &comes, "localhost", unknown).await;

    publish(path, "2", &first, &both);
    side.look();
    assert_eq!(side.describe().trusted_sha256.len(), 2);
    assert_eq!(side.describe().leaf_sha256, before.leaf_sha256);
    expect("old, both trusted", &side, &stays, "localhost", None).await;
    expect("new, both trusted", &side, &comes, "localhost", None).await;

    publish(path, "3", &new.leaf("second"), &new.own.0);
    side.look();
    assert_ne!(side.describe().leaf_sha256, before.leaf_sha256);
    expect("old, no longer", &side, &stays, "localhost", unknown).await;
    expect("new", &side, &comes, "localhost", None).await;
}

#[tokio::test]
async fn an_open_connection_goes_on_with_what_it_began_with() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let ca = authority.own.0.clone();
    let side = folder.side(&authority.leaf("a"), &ca, |_| {});
    let (near, far) = tokio::io::duplex(64 << 10);
    let (server, client) = tokio::join!(side.accept(far), side.connect("localhost", near));
    let (mut server, mut client) = (server.unwrap(), client.unwrap());
    folder.tls(&Authority::new().leaf("b"), &Authority::new().own.0);
    side.look();
    client.write_u8(9).await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), 9);
}

#[test]
fn bad_files_are_told_and_the_old_ones_stay() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let ca = authority.own.0.clone();
    let first = authority.leaf("first");
    let metrics = Arc::new(Metrics::default());
    let side = Side::open(Port::Node, &folder.tls(&first, &ca), Arc::clone(&metrics)).unwrap();
    let count = |counter| metrics.get(counter);
    let before = side.describe();
    assert!(count(Counter::TlsNodeExpiry) > 1_700_000_000);
    side.look();
    assert_eq!(
        (side.describe(), count(Counter::TlsNodeReloads)),
        (before.clone(), 0)
    );

    // The new certificate is there, its key not yet.
    let second = authority.leaf("second");
    folder.write("tls.crt", &second.0);
    side.look();
    assert_eq!(side.describe(), before, "not reported before the next look");
    folder.write("tls.key", &second.1);
    side.look();
    let now = side.describe();
    assert_eq!(now.last_error, None);
    assert_ne!(now.leaf_sha256, before.leaf_sha256);
    assert_eq!(
        (
            count(Counter::TlsNodeReloads),
            count(Counter::TlsNodeReloadFailures)
        ),
        (1, 0)
    );

    for (name, content, expected) in [
        ("tls.key", "x", "holds no private key"),
        ("tls.key", first.1.as_str(), "does not belong"),
        ("tls.crt", "", "the file is empty"),
        ("ca.crt", "x", "-node-ca-cert"),
    ] {
        let good = fs::read_to_string(folder.path(name)).unwrap();
        let failures = count(Counter::TlsNodeReloadFailures);
        folder.write(name, content);
        (0..5).for_each(|_| side.look());
        let bad = side.describe();
        let error = bad.last_error.clone().unwrap_or_default();
        assert!(error.contains(expected), "{error}");
        assert_eq!(bad.leaf_sha256, now.leaf_sha256);
        assert_eq!(
            count(Counter::TlsNodeReloadFailures),
            failures + 1,
            "{error}"
        );
        folder.write(name, &good);
        side.look();
        assert_eq!(side.describe(), now);
    }

    fs::remove_file(folder.path("tls.key")).unwrap();
    (0..2).for_each(|_| side.look());
    let error = side.describe().last_error.unwrap_or_default();
    assert!(error.contains("tls.key: No such file"), "{error}");
    assert_eq!(count(Counter::TlsNodeReloads), 1);
}

#[test]
fn nothing_secret_is_shown() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let pair = authority.leaf("a");
    let side = folder.side(&pair, &authority.own.0, |_| {});
    let shown = format!("{side:?} {:?}", side.describe());
    let der = pem::private_key(pair.1.as_bytes()).unwrap();
    let der = der.secret_der();
    for part in der.windows(16) {
        assert!(
            !shown.contains(&format!("{part:?}").replace(['[', ']'], "")),
            "a part of the key"
        );
    }
}
