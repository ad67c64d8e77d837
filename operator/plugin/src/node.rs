//! Client of a node's HTTP API. If the node requires neither user nor TLS, it is reached through the API
//! server's pod proxy, so that no port must be open for the user. The proxy forwards neither a password nor a
//! certificate; then a port is forwarded, also by the API server.
use std::sync::Arc;

use anyhow::{Context, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use node_contract::status::Status;
use operator_api::{RqliteCluster, names};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::{
    access::{Certificates, Demands, Login, certificates, for_nodes},
    target::Target,
};

/// The nodes of a cluster, and the credentials for them.
pub(crate) struct Nodes<'a> {
    target: &'a Target,
    domain: String,
    demands: Demands,
    login: Option<Login>,
    tls: Option<Arc<ClientConfig>>,
}

impl<'a> Nodes<'a> {
    /// Reads the credentials that the nodes require from Secrets.
    pub(crate) async fn of(
        target: &'a Target,
        cluster: &RqliteCluster,
        user: Option<&str>,
    ) -> anyhow::Result<Self> {
        let demands = Demands::of(cluster);
        let tls = match demands.tls {
            true => Some(config(&certificates(target).await?, demands.certificate)?),
            false => None,
        };
        Ok(Self {
            login: for_nodes(target, cluster, user).await?,
            domain: cluster.domain(names::USUAL_DOMAIN).to_owned(),
            target,
            demands,
            tls,
        })
    }

    /// Reads a node's `/status`.
    pub(crate) async fn status(&self, pod: &str) -> anyhow::Result<Status> {
        let text = self.send(Method::GET, pod, "/status", Vec::new()).await?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Requests a leadership transfer from the leader, and waits for it.
    pub(crate) async fn transfer_leadership(&self, leader: &str, to: &str) -> anyhow::Result<()> {
        let body = serde_json::to_vec(&serde_json::json!({"id": to}))?;
        let response = self.send(Method::POST, leader, "/leader?wait", body).await;
        response
            .map(drop)
            .with_context(|| format!("{leader} did not transfer leadership to {to}"))
    }

    async fn send(
        &self,
        method: Method,
        pod: &str,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Vec<u8>> {
        if self.demands.is_nothing() && self.login.is_none() {
            return self.proxied(method, pod, path, body).await;
        }
        let api: Api<Pod> = Api::namespaced(self.target.client.clone(), &self.target.namespace);
        let port = u16::try_from(names::HTTP_PORT)?;
        let forwarding = api.portforward(pod, &[port]).await;
        let mut forwarder = forwarding.with_context(|| format!("forwarding a port of {pod}"))?;
        let stream = forwarder.take_stream(port).context("no forwarded port")?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, pod)
            .header(header::CONNECTION, "close")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(login) = &self.login {
            let login = STANDARD.encode(format!("{}:{}", login.user, login.password));
            request = request.header(header::AUTHORIZATION, format!("Basic {login}"));
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let Some(config) = &self.tls else {
            return exchange(stream, request).await;
        };
        let name = format!(
            "{pod}.{}.{}.svc.{}",
            names::headless(&self.target.name),
            self.target.namespace,
            self.domain
        );
        let connector = TlsConnector::from(Arc::clone(config));
        let secured = connector.connect(ServerName::try_from(name)?, stream).await;
        exchange(secured.with_context(|| format!("TLS with {pod}"))?, request).await
    }

    async fn proxied(
        &self,
        method: Method,
        pod: &str,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Vec<u8>> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{pod}:{}/proxy{path}",
            self.target.namespace,
            names::HTTP_PORT
        );
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body)?;
        let text = self.target.client.request_text(request).await?;
        Ok(text.into_bytes())
    }
}

fn config(certificates: &Certificates, shows: bool) -> anyhow::Result<Arc<ClientConfig>> {
    let parse = |pem: &str| -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let all = CertificateDer::pem_slice_iter(pem.as_bytes());
        all.map(|one| one.context("a certificate")).collect()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(parse(&certificates.authorities)?);
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match shows {
        true => {
            let key = PrivateKeyDer::from_pem_slice(certificates.key.as_bytes());
            let key = key.map_err(|_| anyhow::anyhow!("the key of the certificate"))?;
            builder.with_client_auth_cert(parse(&certificates.certificate)?, key)?
        }
        false => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    driver.abort();
    if code == 401 || code == 403 {
        bail!("the node refuses the user or the password, or the user lacks the permission");
    }
    if !code.is_success() {
        let text = String::from_utf8_lossy(&body);
        bail!("the node answered {code}: {}", text.trim());
    }
    Ok(body.to_vec())
}
