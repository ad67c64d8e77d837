//! What a failed dial says to people: which side most likely lacks TLS.
use std::io;

use crate::tls;

/// How a node dials another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialed {
    /// Without TLS.
    Plain,
    /// With TLS.
    Tls,
}

/// Adds to an error between connecting and the response to the hello what is most likely wrong. With TLS 1.3,
/// a refusal of this node's certificate arrives only in place of the response.
pub fn while_dialing(dialed: Dialed, error: io::Error) -> io::Error {
    let closed = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    );
    let of_tls = error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>());
    let text = match dialed {
        Dialed::Plain if closed => {
            "the other side closed during the handshake: it may require TLS (-node-cert)".to_owned()
        }
        Dialed::Tls if closed => {
            "the other side closed during the TLS handshake: it may have no TLS (-node-cert there)"
                .to_owned()
        }
        _ if of_tls => format!("TLS: {}", tls::explain(&error)),
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, Error};

    use super::*;

    #[test]
    fn words_for_each_failure() {
        let refused = Error::AlertReceived(AlertDescription::CertificateRequired);
        let refused = io::Error::new(io::ErrorKind::InvalidData, refused);
        #[rustfmt::skip]
        let cases = [
            (Dialed::Plain, io::ErrorKind::UnexpectedEof.into(), "closed during the handshake: it may require TLS (-node-cert)"),
            (Dialed::Plain, io::ErrorKind::ConnectionReset.into(), "it may require TLS (-node-cert)"),
            (Dialed::Tls, io::ErrorKind::UnexpectedEof.into(), "it may have no TLS (-node-cert there)"),
            (Dialed::Tls, refused, "it requires a certificate"),
        ];
        for (dialed, error, expected) in cases {
            let text = while_dialing(dialed, error).to_string();
            assert!(text.contains(expected), "{text}");
        }
        let other = while_dialing(Dialed::Tls, io::ErrorKind::ConnectionRefused.into());
        assert_eq!(other.kind(), io::ErrorKind::ConnectionRefused);
        assert!(!other.to_string().contains("TLS"), "{other}");
    }
}
