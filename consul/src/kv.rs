//! Keys and values: read, write, compare-and-swap, lock.
//!
//! Not here: watches (`watch`), sessions (`session`).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;

use crate::client::{Call, Client, Op, key_path};
use crate::error::{Error, Result};
use crate::query::{Indexed, Query};
use crate::session::SessionId;

/// The maximum size of a value in bytes; servers may have another limit.
pub const MAX_VALUE: usize = 512 * 1024;

/// A key with its value and metadata.
#[derive(Clone, PartialEq, Eq)]
pub struct KvPair {
    pub key: String,
    pub value: Bytes,
    /// A number of the writer, without meaning to Consul.
    pub flags: u64,
    pub create_index: u64,
    /// For [`Kv::cas`] and [`Kv::delete_cas`].
    pub modify_index: u64,
    /// How often the key was acquired since its creation; it starts at 0 again after a session deletes the key.
    pub lock_index: u64,
    /// The session that holds the key.
    pub session: Option<SessionId>,
}

impl fmt::Debug for KvPair {
    /// Shows only the length of the value, which may be long or confidential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvPair")
            .field("key", &self.key)
            .field("bytes", &self.value.len())
            .field("flags", &self.flags)
            .field("create_index", &self.create_index)
            .field("modify_index", &self.modify_index)
            .field("lock_index", &self.lock_index)
            .field("session", &self.session)
            .finish()
    }
}

/// The key-value part of the API. Keys may hold any printable characters; each part between slashes must be
/// something other than empty, `.` or `..`.
#[derive(Clone, Copy, Debug)]
pub struct Kv<'c> {
    client: &'c Client,
    flags: u64,
}

impl Client {
    /// Keys and values.
    pub fn kv(&self) -> Kv<'_> {
        Kv::new(self)
    }
}

impl<'c> Kv<'c> {
    pub(crate) fn new(client: &'c Client) -> Self {
        Self { client, flags: 0 }
    }

    /// Sets the flags of all writes through the result; the default is 0.
    pub fn with_flags(self, flags: u64) -> Self {
        Self { flags, ..self }
    }

    /// Reads one key.
    ///
    /// # Errors
    /// See [`Error`], as for all calls here. A missing key is not an error.
    pub async fn get(&self, key: &str) -> Result<Option<KvPair>> {
        Ok(self.get_with(key, &Query::default()).await?.value)
    }

    /// Reads one key with a query, for example a blocking one. A missing key has an index too.
    ///
    /// # Errors
    /// See [`Error`]. A missing key is not an error.
    pub async fn get_with(&self, key: &str, query: &Query) -> Result<Indexed<Option<KvPair>>> {
        let op = Op::new("get key", key);
        let call = query.apply(Call::get(op, key_path(op, key)?)).or_not_found();
        let pairs = self.pairs(op, call).await?;
        Ok(Indexed { value: pairs.value.into_iter().next(), index: pairs.index })
    }

    /// Reads all keys that start with `prefix`, in the order of their bytes; an empty prefix means all keys.
    ///
    /// # Errors
    /// See [`Error`]; also if the answer exceeds the client's limit.
    pub async fn list(&self, prefix: &str) -> Result<Vec<KvPair>> {
        Ok(self.list_with(prefix, &Query::default()).await?.value)
    }

    /// [`Kv::list`] with a query, for example a blocking one.
    ///
    /// # Errors
    /// See [`Error`]; also if the answer exceeds the client's limit.
    pub async fn list_with(&self, prefix: &str, query: &Query) -> Result<Indexed<Vec<KvPair>>> {
        let op = Op::new("list keys", prefix);
        let path = if prefix.is_empty() { "/v1/kv/".to_owned() } else { key_path(op, prefix)? };
        let call = query.apply(Call::get(op, path)).query("recurse", "").or_not_found();
        self.pairs(op, call).await
    }

    /// Writes a key unconditionally.
    ///
    /// # Errors
    /// See [`Error`]; also for a value of more than [`MAX_VALUE`] bytes, as for all writes.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<()> {
        let op = Op::new("put key", key);
        match self.write(op, key, value.into(), None).await? {
            true => Ok(()),
            false => Err(op.decode("false for a write without a condition")),
        }
    }

    /// Writes a key if its `modify_index` is still `index`, or if it does not exist and `index` is 0. Returns `false` if
    /// the condition does not hold and nothing was written.
    ///
    /// # Errors
    /// See [`Error`]. After [`Error::Unreachable`] or [`Error::Timeout`] read the key before a retry: the write may have
    /// happened.
    pub async fn cas(&self, key: &str, value: impl Into<Bytes>, index: u64) -> Result<bool> {
        let condition = ("cas", index.to_string());
        self.write(Op::new("compare-and-swap key", key), key, value.into(), Some(condition)).await
    }

    /// Writes a key and locks it for `session`. Returns `false` if another session holds it and nothing was written. The
    /// holder may acquire the key again, which writes it.
    ///
    /// # Errors
    /// [`Error::InvalidSession`] if the session no longer exists.
    pub async fn acquire(&self, key: &str, value: impl Into<Bytes>, session: &SessionId) -> Result<bool> {
        let condition = ("acquire", session.to_string());
        self.write(Op::new("acquire key", key), key, value.into(), Some(condition)).await
    }

    /// Releases the lock and writes `value`. Returns `false` if `session` does not hold the key and nothing was written.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release(&self, key: &str, value: impl Into<Bytes>, session: &SessionId) -> Result<bool> {
        let condition = ("release", session.to_string());
        self.write(Op::new("release key", key), key, value.into(), Some(condition)).await
    }

    /// Removes a key; succeeds also if it does not exist.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, key: &str) -> Result<()> {
        let op = Op::new("delete key", key);
        let call = Call::new(op, Method::DELETE, key_path(op, key)?);
        self.client.call(call).await.map(|_| ())
    }

    /// Removes a key if its `modify_index` is still `index`. Returns `false` if it is not, or if `index` is 0. Returns
    /// `true` also if the key no longer exists.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_cas(&self, key: &str, index: u64) -> Result<bool> {
        let op = Op::new("compare-and-delete key", key);
        let call = Call::new(op, Method::DELETE, key_path(op, key)?).query("cas", index.to_string());
        self.client.call(call).await?.json()
    }

    async fn write(
        &self,
        op: Op<'_>,
        key: &str,
        value: Bytes,
        condition: Option<(&'static str, String)>,
    ) -> Result<bool> {
        if value.len() > MAX_VALUE {
            return Err(Error::ValueTooLarge { key: key.to_owned(), size: value.len(), limit: MAX_VALUE });
        }
        let mut call = Call::put(op, key_path(op, key)?).body(value);
        if let Some((name, argument)) = condition {
            call = call.query(name, argument);
        }
        if self.flags != 0 {
            call = call.query("flags", self.flags.to_string());
        }
        self.client.call(call).await?.json()
    }

    async fn pairs(&self, op: Op<'_>, call: Call<'_>) -> Result<Indexed<Vec<KvPair>>> {
        let answer = self.client.call(call).await?;
        if !answer.found() {
            return Ok(Indexed::of(&answer, Vec::new()));
        }
        let raw: Vec<RawPair> = answer.json()?;
        let pairs = raw.into_iter().map(|pair| pair.decode(op)).collect::<Result<_>>()?;
        Ok(Indexed::of(&answer, pairs))
    }
}

/// The JSON of a pair.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawPair {
    key: String,
    /// Base64; null for an empty value.
    value: Option<String>,
    flags: u64,
    create_index: u64,
    modify_index: u64,
    lock_index: u64,
    session: Option<SessionId>,
}

impl RawPair {
    fn decode(self, op: Op<'_>) -> Result<KvPair> {
        let value = STANDARD
            .decode(self.value.unwrap_or_default())
            .map_err(|error| op.decode(format!("the value of {:?}: {error}", self.key)))?;
        Ok(KvPair {
            key: self.key,
            value: value.into(),
            flags: self.flags,
            create_index: self.create_index,
            modify_index: self.modify_index,
            lock_index: self.lock_index,
            session: self.session,
        })
    }
}
