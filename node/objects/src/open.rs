//! Opens the store of a target.
use std::{sync::Arc, time::Duration};

use object_store::{
    ObjectStore,
    aws::{AmazonS3Builder, S3ConditionalPut},
    azure::MicrosoftAzureBuilder,
    local::LocalFileSystem,
};

use crate::{
    endpoint::{endpoint, is_address, retries},
    json::ConfigError,
    store::Store,
    target::{Azure, Folder, S3, Target},
    tls::{Connector, client},
};

impl Target {
    /// The store whose names begin below this target's path: for a target that is a prefix.
    ///
    /// # Errors
    /// A file that the target names cannot be used, or there is no such folder ([`Self::make_folder`]). No
    /// request is sent.
    pub fn open(&self) -> Result<Store, ConfigError> {
        self.open_at(self.path().trim_matches('/'))
    }

    /// The store of the folder above this target's object, and the object's name in it.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn open_object(&self) -> Result<(Store, String), ConfigError> {
        let (folder, name) = self.folder_and_name();
        Ok((self.open_at(folder)?, name.to_owned()))
    }

    /// Creates the folder of a target of type `file`: for a first write. Neither [`Self::open`] nor a write
    /// to the store does it: a folder that vanishes is an unmounted file system more often than not, and what
    /// is written into a new one is lost when it is mounted again.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn make_folder(&self) -> Result<(), ConfigError> {
        match self {
            Self::File(local) => {
                let made = std::fs::create_dir_all(&local.dir);
                made.map_err(|e| of_folder(local, &e.to_string()))
            }
            Self::S3(_) | Self::Gcs(_) | Self::Azure(_) => Ok(()),
        }
    }

    /// Whether this target is a folder that does not exist.
    pub fn lacks_folder(&self) -> bool {
        match self {
            Self::File(local) => std::fs::metadata(&local.dir)
                .is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound),
            Self::S3(_) | Self::Gcs(_) | Self::Azure(_) => false,
        }
    }

    fn open_at(&self, folder: &str) -> Result<Store, ConfigError> {
        let patience = Store::PATIENCE;
        let (backend, place): (Arc<dyn ObjectStore>, String) = match self {
            Self::S3(s3) => (open_s3(s3, patience)?, place_of_s3(s3)),
            Self::Gcs(gcs) => crate::gcs::open(gcs, patience)?,
            Self::Azure(azure) => (open_azure(azure, patience)?, place_of_azure(azure)),
            Self::File(local) => return open_folder(local, folder),
        };
        Store::new(backend, folder, place, true)
    }
}

fn open_s3(s3: &S3, patience: Duration) -> Result<Arc<dyn ObjectStore>, ConfigError> {
    let mut builder = if s3.access_key_id.is_empty() {
        AmazonS3Builder::from_env()
    } else {
        let given = AmazonS3Builder::new()
            .with_access_key_id(&s3.access_key_id)
            .with_secret_access_key(s3.secret_access_key.reveal());
        match s3.session_token.is_empty() {
            true => given,
            false => given.with_token(s3.session_token.reveal()),
        }
    };
    if !s3.region.is_empty() {
        builder = builder.with_region(&s3.region);
    }
    let virtual_hosted = !s3.force_path_style && !s3.bucket.contains('.');
    builder = builder
        .with_bucket_name(&s3.bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_http_connector(Connector(client(&s3.ca_file)?))
        .with_retry(retries(patience));
    if s3.endpoint.is_empty() {
        builder = builder.with_virtual_hosted_style_request(virtual_hosted);
    } else {
        let endpoint = endpoint("sub.endpoint", &s3.endpoint)?;
        let in_host = virtual_hosted && !is_address(&endpoint);
        let url = match in_host {
            false => endpoint,
            true => endpoint.replacen("://", &format!("://{}.", s3.bucket), 1),
        };
        builder = builder
            .with_allow_http(url.starts_with("http://"))
            .with_endpoint(url)
            .with_virtual_hosted_style_request(in_host);
    }
    let store = builder
        .build()
        .map_err(|e| ConfigError(format!("sub: {e}")))?;
    Ok(Arc::new(store))
}

fn place_of_s3(s3: &S3) -> String {
    let endpoint = match s3.endpoint.as_str() {
        "" => "Amazon S3",
        endpoint => endpoint,
    };
    format!("s3://{} at {endpoint}", s3.bucket)
}

fn open_azure(azure: &Azure, patience: Duration) -> Result<Arc<dyn ObjectStore>, ConfigError> {
    let mut builder = match (azure.access_key.is_empty(), azure.sas_token.is_empty()) {
        (true, true) => MicrosoftAzureBuilder::from_env(),
        (false, _) => MicrosoftAzureBuilder::new().with_access_key(azure.access_key.reveal()),
        (true, false) => MicrosoftAzureBuilder::new().with_config(
            object_store::azure::AzureConfigKey::SasKey,
            azure.sas_token.reveal().trim_start_matches('?'),
        ),
    };
    if !azure.endpoint.is_empty() {
        let endpoint = endpoint("sub.endpoint", &azure.endpoint)?;
        builder = builder
            .with_allow_http(endpoint.starts_with("http://"))
            .with_endpoint(endpoint);
    }
    let built = builder
        .with_account(&azure.account)
        .with_container_name(&azure.container)
        .with_http_connector(Connector(client(&azure.ca_file)?))
        .with_retry(retries(patience))
        .build();
    let store = built.map_err(|_| {
        // The library's text may show the key.
        ConfigError(
            "sub: access_key is not base64, or the account, sas_token or endpoint is not valid"
                .into(),
        )
    })?;
    Ok(Arc::new(store))
}

fn place_of_azure(azure: &Azure) -> String {
    let endpoint = match azure.endpoint.as_str() {
        "" => "Azure",
        endpoint => endpoint,
    };
    format!(
        "azure://{}/{} at {endpoint}",
        azure.account, azure.container
    )
}

fn open_folder(local: &Folder, folder: &str) -> Result<Store, ConfigError> {
    let place = format!("folder {}", local.dir.display());
    let is_dir = std::fs::metadata(&local.dir).map(|found| found.is_dir());
    if !is_dir.map_err(|e| of_folder(local, &e.to_string()))? {
        return Err(of_folder(local, "this is not a folder"));
    }
    let backend = LocalFileSystem::new_with_prefix(&local.dir)
        .map_err(|e| of_folder(local, &e.to_string()))?
        .with_fsync(true);
    let store = Store::new(Arc::new(backend), folder, place, false)?;
    Ok(store.in_folder(&local.dir))
}

fn of_folder(local: &Folder, why: &str) -> ConfigError {
    ConfigError(format!("sub.dir: {}: {why}", local.dir.display()))
}
