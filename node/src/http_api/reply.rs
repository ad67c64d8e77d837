//! Replies and their headers. The headers that all replies share are built once and copied.
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hyper::{
    HeaderMap, Method, StatusCode,
    body::{Body, Frame, SizeHint},
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, CONNECTION, CONTENT_TYPE,
        HeaderName, HeaderValue, InvalidHeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use node_api::{Reply, Shape, pretty_json, write_reply};

use super::{
    error::Failure,
    route::{Content, Endpoint},
};

/// A reply as hyper sends it.
pub(super) type Response = hyper::Response<ReplyBody>;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(super) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const VERSION: HeaderName = HeaderName::from_static("x-rqlite-version");
const SERVED_BY: HeaderName = HeaderName::from_static("x-rqlite-served-by");
/// Initial capacity of a JSON reply: enough for the reply to a single write.
const REPLY_BYTES: usize = 256;

/// Chunks of a streamed reply. An error closes the connection, so that a client never takes a part of the
/// reply for all of it.
type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, std::io::Error>> + Send>>;

/// The body of a reply.
pub(super) enum ReplyBody {
    /// Complete; `None` if it is empty or has been sent.
    Whole(Option<Bytes>),
    /// In chunks.
    Chunks(Chunks),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Chunks(chunks) => chunks
                .as_mut()
                .poll_next(context)
                .map(|next| next.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Chunks(_) => SizeHint::default(),
        }
    }
}

impl ReplyBody {
    /// Keeps `held` until the reply has been produced. A complete body already has been, so `held` is dropped
    /// at once.
    pub(super) fn until_sent(self, held: impl Send + Unpin + 'static) -> Self {
        match self {
            Self::Whole(bytes) => Self::Whole(bytes),
            Self::Chunks(chunks) => Self::Chunks(Box::pin(chunks.inspect(move |_| {
                let _held = &held;
            }))),
        }
    }
}

impl From<Vec<u8>> for ReplyBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(if bytes.is_empty() {
            None
        } else {
            Some(Bytes::from(bytes))
        })
    }
}

/// Builds replies.
#[derive(Debug)]
pub(super) struct Replies {
    /// Headers of every reply.
    base: HeaderMap,
    /// The same, with the content type of JSON.
    json: HeaderMap,
    /// The same, with this node as the one that served the request.
    json_local: HeaderMap,
    /// This node's advertised HTTP address.
    api_addr: String,
}

impl Replies {
    /// # Errors
    /// A setting contains characters that are not allowed in a header.
    pub(super) fn new(
        allow_origin: Option<&str>,
        api_addr: &str,
        auth_enabled: bool,
    ) -> Result<Self, InvalidHeaderValue> {
        let mut base = HeaderMap::with_capacity(12);
        base.insert(VERSION, HeaderValue::from_static(crate::VERSION));
        base.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("OPTIONS, GET, POST"),
        );
        if auth_enabled {
            base.insert(
                ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("Content-Type, Authorization"),
            );
            base.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
            base.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"rqlite\""),
            );
        } else {
            base.insert(
                ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("Content-Type"),
            );
        }
        if let Some(origin) = allow_origin.filter(|origin| !origin.is_empty()) {
            base.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_str(origin)?);
        }
        let mut json = base.clone();
        json.insert(CONTENT_TYPE, JSON);
        let mut json_local = json.clone();
        json_local.insert(SERVED_BY, HeaderValue::from_str(api_addr)?);
        Ok(Self {
            base,
            json,
            json_local,
            api_addr: api_addr.to_owned(),
        })
    }

    fn with_headers(status: StatusCode, headers: HeaderMap, body: ReplyBody) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    /// A reply without a body.
    pub(super) fn empty(&self, status: StatusCode) -> Response {
        Self::with_headers(status, self.base.clone(), ReplyBody::Whole(None))
    }

    /// A reply with content of this type and status 200.
    pub(super) fn content(
        &self,
        content_type: HeaderValue,
        body: impl Into<ReplyBody>,
    ) -> Response {
        let mut response = Self::with_headers(StatusCode::OK, self.base.clone(), body.into());
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }

    /// A reply with this JSON.
    pub(super) fn json(&self, json: Vec<u8>) -> Response {
        Self::with_headers(StatusCode::OK, self.json.clone(), json.into())
    }

    /// A reply with this JSON, indented if `pretty`.
    pub(super) fn json_maybe_pretty(&self, compact: Vec<u8>, pretty: bool) -> Response {
        self.json(if pretty {
            pretty_json(&compact)
        } else {
            compact
        })
    }

    /// A reply with results of statements. `served_by` comes from the store; `None` leaves the header out.
    pub(super) fn results(
        &self,
        reply: &Reply,
        shape: &Shape,
        served_by: Option<&str>,
    ) -> Response {
        let mut json = Vec::with_capacity(REPLY_BYTES);
        write_reply(&mut json, reply, shape);
        match served_by {
            Some(addr) if addr == self.api_addr => {
                Self::with_headers(StatusCode::OK, self.json_local.clone(), json.into())
            }
            Some(addr) => self.served_by(self.json(json), addr),
            None => self.json(json),
        }
    }

    /// Adds the header that names the serving node. An address with characters that are not allowed in a
    /// header is left out.
    pub(super) fn served_by(&self, mut response: Response, addr: &str) -> Response {
        if let Ok(addr) = HeaderValue::from_str(addr) {
            response.headers_mut().insert(SERVED_BY, addr);
        }
        response
    }

    /// A redirect. Only a GET gets the page for browsers that do not follow redirects.
    pub(super) fn redirect(&self, status: StatusCode, location: &str, method: &Method) -> Response {
        let mut response = self.empty(status);
        let Ok(value) = HeaderValue::from_str(location) else {
            return self.failure(
                &Failure::Machine("the leader's address cannot be a location".to_owned()),
                Content::Text,
            );
        };
        response.headers_mut().insert(LOCATION, value);
        if matches!(*method, Method::GET | Method::HEAD) {
            response.headers_mut().insert(CONTENT_TYPE, HTML);
        }
        if *method == Method::GET {
            let reason = status.canonical_reason().unwrap_or_default();
            let page = format!("<a href=\"{}\">{reason}</a>.\n\n", escape_html(location));
            *response.body_mut() = page.into_bytes().into();
        }
        response
    }

    /// The reply to a failed request: a text with one newline at the end, or an empty body with the
    /// endpoint's content type.
    pub(super) fn failure(&self, failure: &Failure, content: Content) -> Response {
        let (status, text) = failure.status_and_text();
        let mut response = self.empty(status);
        let headers = response.headers_mut();
        if failure.is_temporary() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if failure.leaves_body() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(mut text) = text {
            text.push('\n');
            headers.insert(CONTENT_TYPE, TEXT);
            headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
            *response.body_mut() = text.into_bytes().into();
        } else if !matches!(failure, Failure::NotFound) {
            match content {
                Content::Json => headers.insert(CONTENT_TYPE, JSON),
                Content::Text => headers.insert(CONTENT_TYPE, TEXT),
                Content::Later => None,
            };
        }
        response
    }
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

/// The shape of the reply according to the query string.
pub(super) fn shape(params: &node_api::QueryParams, endpoint: Endpoint) -> Shape {
    Shape {
        associative: params.associative,
        blob_array: params.blob_array,
        pretty: params.pretty,
        timings: params.timings,
        errors_with_rows: endpoint == Endpoint::Query,
    }
}

/// hyper's services may fail; this one never does.
pub(super) type HttpResult = Result<Response, Infallible>;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(response: &Response, name: &str) -> Option<String> {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn what_every_reply_carries() {
        let open = Replies::new(None, "h:4001", false)
            .unwrap()
            .empty(StatusCode::OK);
        assert_eq!(
            header(&open, "X-RQLITE-VERSION").as_deref(),
            Some(crate::VERSION)
        );
        assert_eq!(
            header(&open, "Access-Control-Allow-Methods").as_deref(),
            Some("OPTIONS, GET, POST")
        );
        assert_eq!(
            header(&open, "Access-Control-Allow-Headers").as_deref(),
            Some("Content-Type")
        );
        assert_eq!(open.headers().len(), 3);
        let closed = Replies::new(Some("https://o"), "h:4001", true)
            .unwrap()
            .failure(&Failure::Denied, Content::Json);
        assert_eq!(
            header(&closed, "Access-Control-Allow-Headers").as_deref(),
            Some("Content-Type, Authorization")
        );
        assert_eq!(
            header(&closed, "Access-Control-Allow-Credentials").as_deref(),
            Some("true")
        );
        assert_eq!(
            header(&closed, "Access-Control-Allow-Origin").as_deref(),
            Some("https://o")
        );
        assert_eq!(
            header(&closed, "WWW-Authenticate").as_deref(),
            Some("Basic realm=\"rqlite\"")
        );
        assert_eq!(
            header(&closed, "Content-Type").as_deref(),
            Some("application/json; charset=utf-8")
        );
        assert!(Replies::new(Some("a\nb"), "h:4001", true).is_err());
    }

    #[test]
    fn texts_end_with_a_newline() {
        let replies = Replies::new(None, "h:4001", false).unwrap();
        let response = replies.failure(&Failure::QueueTimeout, Content::Json);
        assert_eq!(
            header(&response, "Content-Type").as_deref(),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(
            header(&response, "X-Content-Type-Options").as_deref(),
            Some("nosniff")
        );
        assert!(
            matches!(response.body(), ReplyBody::Whole(Some(text)) if text.as_ref() == b"queue wait timeout\n")
        );
    }

    #[test]
    fn results_say_who_served() {
        let replies = Replies::new(None, "h:4001", false).unwrap();
        let reply = Reply::default();
        for served_by in [Some("h:4001"), Some("leader:4002"), None] {
            let response = replies.results(&reply, &Shape::default(), served_by);
            assert_eq!(
                header(&response, "X-RQLITE-SERVED-BY").as_deref(),
                served_by
            );
            assert!(
                matches!(response.body(), ReplyBody::Whole(Some(json)) if json.as_ref() == br#"{"results":[]}"#)
            );
        }
    }

    #[test]
    fn redirects() {
        let replies = Replies::new(None, "h:4001", false).unwrap();
        let post = replies.redirect(
            StatusCode::MOVED_PERMANENTLY,
            "http://l:4001/db/execute?a&b",
            &Method::POST,
        );
        assert_eq!(
            header(&post, "Location").as_deref(),
            Some("http://l:4001/db/execute?a&b")
        );
        assert!(post.body().is_end_stream());
        let get = replies.redirect(StatusCode::FOUND, "/x?a&b", &Method::GET);
        assert!(
            matches!(get.body(), ReplyBody::Whole(Some(page)) if page.as_ref() == b"<a href=\"/x?a&amp;b\">Found</a>.\n\n")
        );
        assert_eq!(
            replies
                .redirect(StatusCode::FOUND, "a\nb", &Method::GET)
                .status(),
            500
        );
    }
}
