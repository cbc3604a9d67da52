//! A client of a store for tests: uploads days, downloads objects, and lists open uploads.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::path::Path as Key;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::Runtime;

/// The region that all tests sign for.
pub const REGION: &str = "us-east-1";

/// Objects put at a time.
const CONCURRENT: usize = 8;

/// An access key and its secret.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    pub id: &'static str,
    pub secret: &'static str,
}

impl Keys {
    /// The environment that a program needs to reach a store with these keys.
    pub fn environment(self, endpoint: SocketAddr) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{endpoint}")),
            ("AWS_REGION", REGION.into()),
            ("AWS_ACCESS_KEY_ID", self.id.into()),
            ("AWS_SECRET_ACCESS_KEY", self.secret.into()),
        ]
    }
}

/// Bytes of an object.
#[derive(Clone, Debug)]
pub struct Range {
    pub key: String,
    pub bytes: std::ops::Range<u64>,
}

/// A client of one bucket.
#[derive(Debug)]
pub struct Client {
    store: Arc<dyn ObjectStore>,
    /// For requests that `store` has no call for.
    s3: Option<Arc<AmazonS3>>,
    runtime: Runtime,
}

impl Client {
    /// A client of a bucket at that address.
    pub fn new(address: SocketAddr, bucket: &str, keys: Keys) -> Result<Self> {
        // The client uses the process's TLS provider, and needs one even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = AmazonS3Builder::new()
            .with_endpoint(format!("http://{address}"))
            .with_region(REGION)
            .with_bucket_name(bucket)
            .with_access_key_id(keys.id)
            .with_secret_access_key(keys.secret)
            .with_retry(RetryConfig { max_retries: 2, ..RetryConfig::default() })
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .build()?;
        let store = Arc::new(store);
        Ok(Self { store: store.clone(), s3: Some(store), runtime: runtime()? })
    }

    /// A client of a container of Azure.
    pub fn azure(endpoint: &str, account: &str, key: &str, container: &str) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = MicrosoftAzureBuilder::new()
            .with_endpoint(endpoint.into())
            .with_account(account)
            .with_access_key(key)
            .with_container_name(container)
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .build()?;
        Ok(Self { store: Arc::new(store), s3: None, runtime: runtime()? })
    }

    /// Makes the bucket, unless it is there.
    pub fn make_bucket(&self) -> Result<()> {
        let answer = self.signed("PUT", "", &[])?;
        ensure!(["HTTP/1.1 200", "HTTP/1.1 409"].iter().any(|line| answer.starts_with(line)), "{answer}");
        Ok(())
    }

    /// Puts an object.
    pub fn put(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        self.runtime.block_on(self.store.put(&Key::parse(key)?, bytes.into()))?;
        Ok(())
    }

    /// Puts the same bytes under all keys.
    pub fn put_all(&self, keys: Vec<String>, bytes: &[u8]) -> Result<()> {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        let put = keys.into_iter().map(|key| {
            let (store, bytes) = (Arc::clone(&self.store), bytes.clone());
            async move { Ok::<_, anyhow::Error>(store.put(&Key::parse(&key)?, bytes.into()).await.map(drop)?) }
        });
        self.runtime.block_on(futures::stream::iter(put).buffer_unordered(CONCURRENT).try_collect())
    }

    /// Gets an object.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        let key = Key::parse(key)?;
        let got = self.runtime.block_on(async { self.store.get(&key).await?.bytes().await });
        Ok(got.with_context(|| format!("getting {key}"))?.into())
    }

    /// Gets ranges, so many at a time, and drops the data; returns the number of bytes received.
    pub fn get_ranges(&self, ranges: &[Range], concurrent: usize) -> Result<u64> {
        let get = |range: Range| {
            let store = Arc::clone(&self.store);
            async move {
                let bytes = store.get_range(&Key::parse(&range.key)?, range.bytes).await?;
                Ok::<_, anyhow::Error>(bytes.len() as u64)
            }
        };
        let got = futures::stream::iter(ranges.to_vec()).map(get).buffer_unordered(concurrent);
        self.runtime.block_on(got.try_fold(0, |sum, bytes| async move { Ok(sum + bytes) }))
    }

    /// Removes an object.
    pub fn remove(&self, key: &str) -> Result<()> {
        Ok(self.runtime.block_on(self.store.delete(&Key::parse(key)?))?)
    }

    /// Keys of all objects under a folder, sorted.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        let folder = Key::parse(folder)?;
        let listed = self.store.list((!folder.as_ref().is_empty()).then_some(&folder));
        let listed: Vec<_> = self.runtime.block_on(listed.try_collect())?;
        let mut keys: Vec<String> = listed.into_iter().map(|object| object.location.to_string()).collect();
        keys.sort();
        Ok(keys)
    }

    /// Puts all files below `root` under `folder`.
    pub fn put_tree(&self, root: &Path, folder: &str) -> Result<()> {
        let mut folders = vec![root.to_path_buf()];
        while let Some(current) = folders.pop() {
            for entry in std::fs::read_dir(&current)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let below = path.strip_prefix(root)?.to_string_lossy().into_owned();
                    self.put(&format!("{folder}/{below}"), std::fs::read(&path)?)?;
                }
            }
        }
        Ok(())
    }

    /// Fetches all objects under `folder` into `root`.
    pub fn get_tree(&self, folder: &str, root: &Path) -> Result<()> {
        for key in self.list(folder)? {
            let below = key.strip_prefix(folder).unwrap_or(&key).trim_start_matches('/').to_string();
            let path = root.join(below);
            std::fs::create_dir_all(path.parent().context("a key without a folder")?)?;
            std::fs::write(path, self.get(&key)?)?;
        }
        Ok(())
    }

    /// The number of open multipart uploads in the bucket; 0 for Azure, which has none.
    pub fn open_uploads(&self) -> Result<usize> {
        if self.s3.is_none() {
            return Ok(0);
        }
        let answer = self.signed("GET", "", &[("uploads", "")])?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(answer.matches("<UploadId>").count())
    }

    /// One signed request without a body, on a connection of its own.
    fn signed(&self, method: &str, key: &str, query: &[(&str, &str)]) -> Result<String> {
        let options = SignedUrlOptions::default().with_query(query.iter().copied());
        let key = Key::parse(key)?;
        let s3 = self.s3.as_ref().context("only S3 has such requests")?;
        let signed = s3.signed_url_opts(method.parse()?, &key, Duration::from_secs(60), &options);
        let url = self.runtime.block_on(signed)?;
        let host = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(80));
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let mut stream = std::net::TcpStream::connect(&host)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
