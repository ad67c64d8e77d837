//! Ways to nodes, by real handshakes with good and bad certificates.
use serde_json::json;

use operator_api::RqliteClusterSpec;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    cluster::facts::{observation::FailureKind, secrets::SecretOwner},
    metrics::Metrics,
    node_client::{Http, NodeClient as _},
};

const NAME: &str = "demo-0.demo-headless.shop.svc.cluster.local";

struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        (leaf.pem(), key.serialize_pem())
    }
}

fn secret(data: &[(&str, &str)]) -> ObservedSecret {
    let data = data.iter();
    ObservedSecret {
        uid: "s".to_owned(),
        resource_version: "1".to_owned(),
        secret_type: String::new(),
        owner: SecretOwner::Ours,
        immutable: false,
        deleting: false,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        changed_at: None,
        data: data
            .map(|(key, value)| ((*key).to_owned(), SecretBytes::new(value.as_bytes())))
            .collect(),
    }
}

fn pod(flags: &[&str]) -> Arc<Pod> {
    let pod = json!({"metadata": {"name": "demo-0", "namespace": "shop"},
        "spec": {"containers": [{"name": "rqlited", "args": flags}]}});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn cluster() -> RqliteCluster {
    let mut cluster = RqliteCluster::new("demo", RqliteClusterSpec::default());
    cluster.metadata.uid = Some("u".to_owned());
    cluster.metadata.namespace = Some("shop".to_owned());
    cluster
}

/// A server that speaks TLS with this certificate, answers each request with 401 unless it has this header,
/// and returns its address.
async fn server(leaf: &(String, String), header: String) -> String {
    let chain = certificates(Some(&SecretBytes::new(leaf.0.as_bytes())));
    let key = PrivateKeyDer::from_pem_slice(leaf.1.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..n]).into_owned();
            let code = if request.contains(&header) {
                "200 OK"
            } else {
                "401 No"
            };
            let reply = format!("HTTP/1.1 {code}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(reply.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

async fn outcome(
    leaf: &(String, String),
    secrets: &Secrets,
    accepted: &str,
) -> Option<FailureKind> {
    let header = authorization(&SecretBytes::new(accepted.as_bytes()));
    let address = server(leaf, header).await;
    let http = Http::new(Metrics::default());
    let pods = [(address.clone(), pod(&["-http-cert=/x", "-auth=/y"]))];
    http.accesses()
        .note(&cluster(), "cluster.local", &pods, secrets);
    let done = http.transfer_leader(&address, "x").await;
    done.err().map(|failure| failure.failure)
}

#[tokio::test]
async fn a_node_is_known_by_its_certificate_and_the_operator_by_its_password() {
    let (own, other) = (Authority::new(), Authority::new());
    let right = own.sign(NAME);
    let given = own.sign("db.example.com");
    let tls = |leaf: &(String, String)| secret(&[("ca.crt", &own.1), ("tls.crt", &leaf.0)]);
    let with = |tls: ObservedSecret, password: &str| -> Secrets {
        let operator = secret(&[("password", password)]);
        [
            ("demo-rqlite-http-tls".to_owned(), tls),
            ("demo-rqlite-operator".to_owned(), operator),
        ]
        .into()
    };
    let good = with(tls(&right), "pw");
    assert_eq!(outcome(&right, &good, "pw").await, None);
    assert_eq!(
        outcome(&right, &good, "other").await,
        Some(FailureKind::Unauthorized)
    );
    let strange = other.sign(NAME);
    assert_eq!(outcome(&strange, &good, "pw").await, Some(FailureKind::Tls));
    let misnamed = own.sign("demo-0.other-headless.shop.svc.cluster.local");
    assert_eq!(
        outcome(&misnamed, &good, "pw").await,
        Some(FailureKind::Tls)
    );
    // A given certificate has other names: it is the very one of the Secret.
    assert_eq!(outcome(&given, &with(tls(&given), "pw"), "pw").await, None);
    let lost = with(secret(&[]), "pw");
    assert_eq!(outcome(&right, &lost, "pw").await, Some(FailureKind::Tls));
}

#[tokio::test]
async fn a_node_that_has_not_read_the_new_password_is_shown_the_former_one() {
    let own = Authority::new();
    let right = own.sign(NAME);
    let header = authorization(&SecretBytes::new(*b"former word"));
    let address = server(&right, header).await;
    let http = Http::new(Metrics::default());
    let pods = [(address.clone(), pod(&["-http-cert=/x", "-auth=/y"]))];
    for password in ["former word", "present word"] {
        let secrets = [
            (
                "demo-rqlite-http-tls".to_owned(),
                secret(&[("ca.crt", &own.1)]),
            ),
            (
                "demo-rqlite-operator".to_owned(),
                secret(&[("password", password)]),
            ),
        ];
        let secrets = secrets.into();
        http.accesses()
            .note(&cluster(), "cluster.local", &pods, &secrets);
        http.transfer_leader(&address, "x").await.unwrap();
    }
    // An address that is no pod's any more is not shown a password.
    http.accesses()
        .note(&cluster(), "cluster.local", &[], &BTreeMap::new());
    assert!(http.accesses().get(&address).passwords.is_empty());
    let shown = format!("{:?} {:?}", http, http.accesses().get(&address));
    assert!(!shown.contains("former word"), "{shown}");
}
