//! Failed handshakes in words.
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Why a handshake failed, for people.
pub fn explain(error: &io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(error) => of_tls(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the other side closed the connection during the handshake".into()
        }
        None => error.to_string(),
    }
}

fn of_tls(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => of_certificate(why),
        Error::NoCertificatesPresented => {
            "the client sent no certificate, and one is required".into()
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the other side does not speak TLS".into()
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // TLS 1.1 has no such extension.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => "the other side does not speak TLS 1.2 or 1.3".into(),
        Error::NoApplicationProtocol => {
            "the client offers none of this port's protocols (ALPN)".into()
        }
        Error::AlertReceived(alert) => of_alert(*alert),
        other => other.to_string(),
    }
}

fn of_certificate(why: &CertificateError) -> String {
    let why = match why {
        CertificateError::UnknownIssuer => "it is signed by no trusted authority".into(),
        CertificateError::BadSignature => {
            "it is signed by no trusted authority; a trusted one has the same name, but another key"
                .into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("it has expired ({})", Error::from(why.clone()))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("it is not valid yet ({})", Error::from(why.clone()))
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its extended key usage lacks serverAuth or clientAuth, whichever is needed here".into()
        }
        CertificateError::Other(reason) if reason.0.to_string().starts_with("client ") => {
            return reason.0.to_string();
        }
        // Reasons of this program's own verifiers are sentences.
        CertificateError::Other(reason) if reason.0.to_string().contains(' ') => {
            reason.0.to_string()
        }
        CertificateError::Other(reason) if reason.0.to_string() == "CaUsedAsEndEntity" => {
            "it is an authority's certificate, not a node's; trust exactly this one, or have it sign another"
                .into()
        }
        _ => Error::from(why.clone()).to_string(),
    };
    format!("the certificate of the other side is refused: {why}")
}

fn of_alert(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::UnknownCA => "it does not trust the authority of the certificate",
        AlertDescription::DecryptError => {
            "it does not trust the authority of the certificate, but one of the same name"
        }
        AlertDescription::CertificateRequired => "it requires a certificate",
        AlertDescription::CertificateExpired => {
            "the certificate has expired, or is not valid yet, by its clock"
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => "it does not accept the certificate",
        AlertDescription::ProtocolVersion => "it speaks other versions of TLS only",
        AlertDescription::HandshakeFailure => "there is no common cipher suite or key type",
        AlertDescription::NoApplicationProtocol => "it speaks other protocols (ALPN)",
        _ => return format!("the other side ended the handshake: {alert:?}"),
    };
    format!("the other side ended the handshake: {why} ({alert:?})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_reasons_are_sentences() {
        let cases = [
            (
                Error::from(CertificateError::UnknownIssuer),
                "signed by no trusted authority",
            ),
            (Error::from(CertificateError::Expired), "it has expired"),
            (Error::NoCertificatesPresented, "sent no certificate"),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "does not speak TLS",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "it requires a certificate",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled),
                "does not speak TLS 1.2 or 1.3",
            ),
        ];
        for (error, expected) in cases {
            let text = explain(&io::Error::new(io::ErrorKind::InvalidData, error));
            assert!(text.contains(expected), "{text}");
        }
        let closed = explain(&io::ErrorKind::UnexpectedEof.into());
        assert!(closed.contains("closed the connection"), "{closed}");
    }
}
