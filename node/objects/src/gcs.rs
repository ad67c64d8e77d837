//! Google Cloud Storage by its JSON API, as rqlite's clients use it. `object_store` uses the XML API, for
//! which emulators support neither streaming uploads nor conditional writes.
mod login;
mod request;
mod resource;
mod upload;
mod words;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{
    Attribute, Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, path::Path,
};
use reqwest::{Method, header::RANGE};
use serde_json::{Map, Value, json};

use self::{
    login::Login,
    request::Api,
    resource::Resource,
    upload::Resumable,
    words::{chain, failure},
};
use crate::{endpoint::endpoint, json::ConfigError, target::Gcs, tls::client};

const GOOGLE: &str = "https://storage.googleapis.com";

/// The store, and its description for people.
pub(crate) fn open(
    gcs: &Gcs,
    patience: Duration,
) -> Result<(Arc<dyn ObjectStore>, String), ConfigError> {
    let client = client(&gcs.ca_file)?;
    let login = Login::of(gcs, &client, patience)?;
    let base = match gcs.endpoint.as_str() {
        "" => GOOGLE.to_owned(),
        // Google's own form of an endpoint ends with the API's path.
        given => endpoint("sub.endpoint", given)?
            .trim_end_matches("/storage/v1")
            .to_owned(),
    };
    let place = match gcs.endpoint.is_empty() {
        true => format!("gs://{} at Google", gcs.bucket),
        false => format!("gs://{} at {base}", gcs.bucket),
    };
    let api = Api::new(client, base, gcs.bucket.clone(), login, patience);
    Ok((Arc::new(Google { api: Arc::new(api) }), place))
}

#[derive(Debug)]
struct Google {
    api: Arc<Api>,
}

impl fmt::Display for Google {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Google Cloud Storage")
    }
}

/// The JSON metadata that an upload begins with.
fn description(location: &Path, attributes: &Attributes) -> Value {
    let texts = attributes.iter().filter_map(|(key, value)| match key {
        Attribute::Metadata(name) => Some((name.to_string(), Value::from(value.to_string()))),
        _ => None,
    });
    let metadata: Map<String, Value> = texts.collect();
    json!({
        "name": location.as_ref(), "contentType": "application/octet-stream", "metadata": metadata,
    })
}

/// The two parts of a small upload, as `multipart/related`.
fn related(boundary: &str, description: &Value, payload: &PutPayload) -> Bytes {
    let mut body = format!(
        "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{description}\r\n\
         --{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    for bytes in payload {
        body.extend_from_slice(bytes);
    }
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    body.into()
}

#[async_trait]
impl ObjectStore for Google {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let created = matches!(opts.mode, PutMode::Create);
        let condition = match opts.mode {
            PutMode::Overwrite => None,
            PutMode::Create => Some("0".to_owned()),
            PutMode::Update(seen) => Some(seen.version.or(seen.e_tag).unwrap_or_default()),
        };
        // Random, so that no content can contain it on purpose.
        let boundary = format!("{:032x}", rand::random::<u128>());
        let body = related(
            &boundary,
            &description(location, &opts.attributes),
            &payload,
        );
        let mut url = self.api.upload_url(location)?;
        url.query_pairs_mut().append_pair("uploadType", "multipart");
        if let Some(generation) = &condition {
            url.query_pairs_mut()
                .append_pair("ifGenerationMatch", generation);
        }
        let content_type = format!("multipart/related; boundary={boundary}");
        let sent = self.api.send(location, |client| {
            client
                .request(Method::POST, url.clone())
                .header("Content-Type", &content_type)
                .body(body.clone())
        });
        match sent.await {
            Ok(response) => {
                let stored: Resource = request::json(response, location).await?;
                Ok(PutResult {
                    e_tag: Some(stored.generation.clone()),
                    version: Some(stored.generation),
                    extensions: Default::default(),
                })
            }
            Err(Error::Precondition { path, source }) if created => {
                Err(Error::AlreadyExists { path, source })
            }
            Err(e) => Err(e),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let about = description(location, &opts.attributes);
        let begun = Resumable::begin(Arc::clone(&self.api), location.clone(), &about).await?;
        Ok(Box::new(begun))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let url = self.api.object_url(location)?;
        let look = self.api.send(location, |client| client.get(url.clone()));
        let resource: Resource = request::json(look.await?, location).await?;
        let meta = resource.meta()?;
        options.check_preconditions(&meta)?;
        let whole = 0..meta.size;
        let range = match &options.range {
            None => whole.clone(),
            Some(range) => range.as_range(meta.size).map_err(|e| Error::Generic {
                store: "GCS",
                source: Box::new(e),
            })?,
        };
        let attributes = resource.attributes();
        let payload = if options.head || range.is_empty() {
            futures_util::stream::empty().boxed()
        } else {
            let mut media = url.clone();
            media
                .query_pairs_mut()
                .append_pair("alt", "media")
                .append_pair("ifGenerationMatch", &resource.generation);
            let asked = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
            let is_part = range != whole;
            let sent = self.api.send(location, |client| {
                let get = client.get(media.clone());
                match is_part {
                    true => get.header(RANGE, &asked),
                    false => get,
                }
            });
            let body = sent.await?.bytes_stream();
            let path = location.to_string();
            body.map_err(move |e| failure(&path, &chain(&e), None))
                .boxed()
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload),
            meta,
            range,
            attributes,
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let api = Arc::clone(&self.api);
        let deleted = locations.then(move |location| {
            let api = Arc::clone(&api);
            async move {
                let location = location?;
                let url = api.object_url(&location)?;
                api.send(&location, |client| client.delete(url.clone()))
                    .await?;
                Ok(location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.pages(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let after = offset.clone();
        // The API's offset is inclusive.
        let found = self.pages(prefix, Some(offset.to_string()));
        let later = found.try_filter(move |meta| std::future::ready(meta.location > after));
        later.boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut result = ListResult {
            common_prefixes: Vec::new(),
            objects: Vec::new(),
            extensions: Default::default(),
        };
        let mut token = None;
        loop {
            let page = self
                .api
                .page(prefix, None, Some("/"), token.as_deref())
                .await?;
            for folder in &page.prefixes {
                let folder = Path::parse(folder.trim_end_matches('/'))?;
                result.common_prefixes.push(folder);
            }
            for item in &page.items {
                result.objects.push(item.meta()?);
            }
            token = page.next_page_token;
            if token.is_none() {
                return Ok(result);
            }
        }
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented {
            operation: "copy".to_owned(),
            implementer: self.to_string(),
        })
    }
}

impl Google {
    /// All objects below a prefix, page by page.
    fn pages(
        &self,
        prefix: Option<&Path>,
        start: Option<String>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (api, prefix) = (Arc::clone(&self.api), prefix.cloned());
        // The token of the next page; `None` at the end.
        let first = Some(None::<String>);
        let pages = futures_util::stream::try_unfold(first, move |token| {
            let (api, prefix, start) = (Arc::clone(&api), prefix.clone(), start.clone());
            async move {
                let Some(token) = token else {
                    return Ok::<_, Error>(None);
                };
                let page = api
                    .page(prefix.as_ref(), start.as_deref(), None, token.as_deref())
                    .await?;
                // Google's console creates a folder as an object whose name ends with a slash.
                let files = page.items.iter().filter(|item| !item.name.ends_with('/'));
                let metas: Vec<Result<ObjectMeta>> = files.map(Resource::meta).collect();
                let next = page.next_page_token.map(Some);
                Ok(Some((futures_util::stream::iter(metas), next)))
            }
        });
        pages.try_flatten().boxed()
    }
}

#[cfg(test)]
mod tests {
    use object_store::GetRange;

    use super::*;

    #[test]
    fn the_two_parts_of_an_upload_are_told_apart() {
        let payload = PutPayload::from_static(b"data");
        let body = related("b", &json!({"name": "n"}), &payload);
        let text = String::from_utf8_lossy(&body);
        assert_eq!(text.matches("--b\r\n").count(), 2);
        assert!(text.contains("{\"name\":\"n\"}\r\n--b") && text.ends_with("data\r\n--b--\r\n"));
        assert!(GetRange::Offset(5).as_range(5).is_err());
    }
}
