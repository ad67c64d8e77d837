//! Who this program is to Google.
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

use super::words::chain;
use crate::{
    endpoint::{endpoint, retries},
    error::shorten,
    json::ConfigError,
    target::Gcs,
    tls::Connector,
};

const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
/// A token is valid for an hour, and is not used in its last minutes.
const ASKED_SECS: i64 = 3600;
const RESERVE_SECS: u64 = 300;

/// Where tokens come from.
#[derive(Debug)]
pub(super) enum Login {
    /// No credentials: an emulator.
    Anonymous,
    /// A service account's key.
    Key(Arc<ServiceKey>),
    /// Google's default: `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's file, the machine's own account.
    Default(GcpCredentialProvider),
}

/// The JSON of a service account.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    client_email: String,
    #[serde(default)]
    private_key: String,
    #[serde(default)]
    token_uri: String,
}

/// A service account that can sign.
pub(super) struct ServiceKey {
    client: reqwest::Client,
    email: String,
    key: RsaKeyPair,
    token_uri: String,
    token: Mutex<Option<(String, Instant)>>,
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceKey({})", self.email)
    }
}

impl Login {
    pub(super) fn of(
        gcs: &Gcs,
        client: &reqwest::Client,
        patience: Duration,
    ) -> Result<Self, ConfigError> {
        if !gcs.credentials_path.is_empty() {
            let key = ServiceKey::read(&gcs.credentials_path, client);
            return key.map(|key| Self::Key(Arc::new(key))).map_err(|why| {
                ConfigError(format!(
                    "sub.credentials_path: {}: {why}",
                    gcs.credentials_path
                ))
            });
        }
        if !gcs.endpoint.is_empty() {
            return Ok(Self::Anonymous);
        }
        let built = GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(&gcs.bucket)
            .with_http_connector(Connector(client.clone()))
            .with_retry(retries(patience))
            .build();
        let store = built.map_err(|e| ConfigError(format!("Google's default credentials: {e}")))?;
        Ok(Self::Default(Arc::clone(store.credentials())))
    }

    /// A token to send, if there is to be one.
    pub(super) async fn token(&self) -> Result<Option<String>, String> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Key(key) => key.token().await.map(Some),
            Self::Default(provider) => {
                let credential = provider.get_credential().await;
                let credential =
                    credential.map_err(|e| format!("Google's default credentials: {e}"))?;
                Ok(Some(credential.bearer.clone()))
            }
        }
    }

    /// A token was refused: the next request asks for another.
    pub(super) async fn forget(&self) {
        if let Self::Key(key) = self {
            *key.token.lock().await = None;
        }
    }
}

impl ServiceKey {
    fn read(path: &str, client: &reqwest::Client) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        // The file is a secret: an error of serde could show it.
        let file: KeyFile = serde_json::from_str(&text)
            .map_err(|_| "expected the JSON of a service account".to_owned())?;
        if !file.kind.is_empty() && file.kind != "service_account" {
            return Err(format!(
                "its type is '{}', not service_account; without credentials_path, Google's default credentials are used, \
                 which may be of that type (GOOGLE_APPLICATION_CREDENTIALS)",
                file.kind
            ));
        }
        if file.client_email.is_empty() {
            return Err("client_email is missing".into());
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes())
            .map_err(|_| "private_key: not a PKCS #8 key in PEM".to_owned())?;
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map_err(|_| "private_key: not an RSA key that can be used".to_owned())?;
        let token_uri = match file.token_uri.as_str() {
            "" => TOKEN_URI.to_owned(),
            given => endpoint("token_uri", given).map_err(|e| e.0)?,
        };
        Ok(Self {
            client: client.clone(),
            email: file.client_email,
            key,
            token_uri,
            token: Mutex::default(),
        })
    }

    async fn token(&self) -> Result<String, String> {
        let mut held = self.token.lock().await;
        if let Some((token, until)) = &*held
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let (token, lasts) = self.ask().await?;
        let until = Instant::now() + Duration::from_secs(lasts.saturating_sub(RESERVE_SECS));
        *held = Some((token.clone(), until));
        Ok(token)
    }

    async fn ask(&self) -> Result<(String, u64), String> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
            #[serde(default)]
            expires_in: u64,
        }
        let assertion = self.assertion()?;
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
        );
        let asked = self
            .client
            .post(&self.token_uri)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form)
            .send();
        let failed = |why: &str| format!("asking {} for a token: {why}", self.token_uri);
        let response = asked.await.map_err(|e| failed(&chain(&e)))?;
        let status = response.status();
        let text = response.text().await.map_err(|e| failed(&chain(&e)))?;
        if !status.is_success() {
            return Err(failed(&format!("{status}: {}", shorten(&text))));
        }
        let granted: Granted =
            serde_json::from_str(&text).map_err(|_| failed("the answer has no access_token"))?;
        Ok((granted.access_token, granted.expires_in))
    }

    /// A signed statement who is asking.
    fn assertion(&self) -> Result<String, String> {
        let now = chrono::Utc::now().timestamp();
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_uri, "iat": now, "exp": now + ASKED_SECS,
        });
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": "RS256", "typ": "JWT"}).to_string());
        let text = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .map_err(|_| "private_key: cannot sign".to_owned())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
