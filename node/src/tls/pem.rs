//! PEM files: certificates and private keys, with errors that name the file and say what to change.
use std::{fs::File, io::Read as _, path::PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Largest file that is read. Bundles of a whole system's authorities have about 250 KiB.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A PEM file and what it is for, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The flag or field that names the file, such as `-http-cert`.
    pub flag: String,
    /// The file.
    pub path: PathBuf,
}

impl Source {
    /// A file that a flag names.
    pub fn new(flag: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            flag: flag.into(),
            path: path.into(),
        }
    }

    /// Reads the whole file, through symbolic links.
    ///
    /// # Errors
    /// It cannot be read, is no regular file, or is far too large.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        let failed = |why: &dyn std::fmt::Display| self.error(why);
        let about = std::fs::metadata(&self.path).map_err(|e| failed(&e))?;
        // A pipe can be read only once, and opening it may wait forever.
        if !about.is_file() {
            return Err(failed(&"is not a regular file"));
        }
        let mut content = Vec::new();
        File::open(&self.path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content))
            .map_err(|e| failed(&e))?;
        if content.len() as u64 > MAX_FILE_BYTES {
            return Err(failed(&"is larger than 4 MiB, so it is no PEM file"));
        }
        Ok(content)
    }

    /// `-http-cert /file: why`.
    pub(super) fn error(&self, why: &dyn std::fmt::Display) -> String {
        format!("{} {}: {why}", self.flag, self.path.display())
    }
}

/// All certificates of a PEM text, at least one.
///
/// # Errors
/// What the text holds instead.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("a certificate is not in PEM form: {e}"))?;
    if found.is_empty() {
        return Err(instead_of("certificate", pem));
    }
    Ok(found)
}

/// The private key of a PEM text: PKCS#8, PKCS#1 (RSA) or SEC1 (EC).
///
/// # Errors
/// What the text holds instead.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    if is_encrypted(pem) {
        return Err(
            "the private key is encrypted with a passphrase, which nobody could enter; \
             write it without one (openssl pkey -in KEY -out KEY)"
                .into(),
        );
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| instead_of("private key", pem))
}

fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn instead_of(what: &str, content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let why = if content.is_empty() {
        "the file is empty".to_owned()
    } else if content.starts_with(&[0x30, 0x82]) {
        "it is in DER form; convert it (openssl x509 -inform der, or openssl pkey -inform der)"
            .into()
    } else {
        let kinds = text.lines().filter_map(|line| {
            let begun = line.trim().strip_prefix("-----BEGIN ")?;
            begun.strip_suffix("-----")
        });
        match kinds.collect::<Vec<_>>().as_slice() {
            [] => "it holds nothing in PEM form (-----BEGIN …)".into(),
            found => format!("it holds: {}", found.join(", ")),
        }
    };
    format!("holds no {what} in PEM form: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let cases: [(&[u8], &str); 5] = [
            (b"", "holds no certificate in PEM form: the file is empty"),
            (b"hello", "it holds nothing in PEM form"),
            (b"\x30\x82\x01\x02", "it is in DER form"),
            (key.as_bytes(), "it holds: PRIVATE KEY"),
            (
                b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
                "not in PEM form",
            ),
        ];
        for (content, expected) in cases {
            let error = certificates(content).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        let error = private_key(encrypted.as_bytes()).expect_err("encrypted");
        assert!(error.contains("passphrase"), "{error}");
        let error = private_key(b"hello").expect_err("no key");
        assert!(error.contains("holds no private key"), "{error}");
    }

    #[test]
    fn only_files_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Source::new("-x", folder.path())
            .read()
            .expect_err("a folder");
        assert!(
            error.starts_with("-x /") && error.ends_with("is not a regular file"),
            "{error}"
        );
        let error = Source::new("-x", "/no/file").read().expect_err("no file");
        assert_eq!(error, "-x /no/file: No such file or directory (os error 2)");
    }
}
