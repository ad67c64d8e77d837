//! HTTPS with `--ca-cert`: a self-signed certificate that is its own authority, as `openssl req -x509` makes
//! it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{ROWS, rqlite};

fn certificate(key: &KeyPair, file: &Path) -> rcgen::Certificate {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let made = params.self_signed(key).unwrap();
    std::fs::write(file, made.pem()).unwrap();
    made
}

/// Replies to every request with the same rows.
fn serve(certificate: &rcgen::Certificate, key: &KeyPair) -> String {
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            // Who refuses the certificate sends no request.
            if request(&mut stream).is_ok() {
                let length = ROWS.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{ROWS}"
                );
                let _ = stream.flush();
            }
        }
    });
    port
}

/// Reads a request, whose body is an array.
fn request(stream: &mut impl Read) -> std::io::Result<()> {
    let mut last = [0];
    while last != *b"]" {
        stream.read_exact(&mut last)?;
    }
    Ok(())
}

#[test]
fn a_self_signed_certificate_is_its_own_authority() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (dir.path().join("own.pem"), dir.path().join("other.pem"));
    let key = KeyPair::generate().unwrap();
    let port = serve(&certificate(&key, &own), &key);
    // The same subject and key, but another certificate.
    certificate(&key, &other);
    for (host, file, says) in [
        ("localhost", &own, ""),
        (
            "127.0.0.1",
            &own,
            "the server's certificate is for another name",
        ),
        ("localhost", &other, "CaUsedAsEndEntity"),
    ] {
        let file = file.to_str().unwrap();
        let args = [
            "-s", "https", "-H", host, "-p", &port, "-c", file, "-e", "SELECT 1",
        ];
        let ran = rqlite(&args, &[], "");
        assert_eq!(ran.code == 0, says.is_empty(), "{host}: {}", ran.err);
        assert!(ran.err.contains(says), "{host}: {}", ran.err);
        assert_eq!(
            ran.out.contains("fiona"),
            says.is_empty(),
            "{host}: {}",
            ran.out
        );
    }
}
