//! Tests of certificates from files and text, and of errors in them.
use super::*;

fn config(text: &str) -> Result<TlsConfig, String> {
    super::super::setting::parse(text)
}

#[test]
fn mistakes_say_what_to_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").expect("a file");
    let empty = empty.to_str().expect("UTF-8");
    let cases = [
        ("{\"ca_pem\":\"!\"}".to_owned(), "ca_pem: expected PEM encoded in base64"),
        (format!("{{\"ca_file\":\"{empty}\"}}"), "ca_file: holds no certificate"),
        (format!("{{\"ca_path\":{:?}}}", folder.path()), "ca_path: holds no certificate"),
        ("{\"ca_path\":\"/no/folder\"}".into(), "ca_path: /no/folder: "),
        ("{\"insecure_skip_verify\":true,\"cert_pem\":\"e30=\"}".into(), "must be given together"),
        ("{\"insecure_skip_verify\":true,\"key_pem\":\"e30=\"}".into(), "must be given together"),
        ("{\"insecure_skip_verify\":true,\"cert_pem\":\"e30=\",\"cert_file\":\"x\",\"key_pem\":\"e30=\"}".into(), "either cert_file or cert_pem"),
        ("{\"insecure_skip_verify\":true,\"cert_pem\":\"e30=\",\"key_pem\":\"e30=\"}".into(), "holds no certificate in PEM form"),
    ];
    for (text, expected) in cases {
        let mistake = config(&text)
            .and_then(|config| config.client())
            .expect_err(&text);
        assert!(mistake.starts_with("tls_config: "), "{mistake}");
        assert!(mistake.contains(expected), "{text}: {mistake}");
    }
}

#[test]
fn every_field_is_known_and_keys_are_not_shown() {
    let text = "{\"address\":\"a\",\"ca_file\":\"b\",\"ca_path\":\"c\",\"ca_pem\":\"d\",\"cert_file\":\"e\",\"cert_pem\":\"f\",\
        \"key_file\":\"g\",\"key_pem\":\"hunter2\",\"insecure_skip_verify\":true}";
    let config = config(text).expect("valid");
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
}

#[test]
fn nothing_to_verify_needs_no_authorities() {
    let client = config("{\"insecure_skip_verify\":true}")
        .and_then(|config| config.client())
        .expect("valid");
    assert_eq!(client.alpn_protocols, [b"http/1.1".to_vec()]);
}
