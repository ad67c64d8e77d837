//! What the API answers.
use chrono::{DateTime, Utc};
use object_store::{Attribute, AttributeValue, Attributes, ObjectMeta, Result, path::Path};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What the API says of an object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resource {
    pub(super) name: String,
    #[serde(default)]
    pub(super) size: String,
    #[serde(default)]
    pub(super) generation: String,
    pub(super) updated: Option<DateTime<Utc>>,
    #[serde(default)]
    pub(super) metadata: Map<String, Value>,
}

impl Resource {
    pub(super) fn meta(&self) -> Result<ObjectMeta> {
        Ok(ObjectMeta {
            location: Path::parse(&self.name)?,
            last_modified: self.updated.unwrap_or(DateTime::UNIX_EPOCH),
            size: self.size.parse().unwrap_or(0),
            e_tag: Some(self.generation.clone()),
            version: Some(self.generation.clone()),
        })
    }

    pub(super) fn attributes(&self) -> Attributes {
        let texts = self.metadata.iter().filter_map(|(name, value)| {
            let value = value.as_str()?.to_owned();
            Some((
                Attribute::Metadata(name.clone().into()),
                AttributeValue::from(value),
            ))
        });
        texts.collect()
    }
}

/// A page of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Page {
    pub(super) items: Vec<Resource>,
    pub(super) prefixes: Vec<String>,
    pub(super) next_page_token: Option<String>,
}
