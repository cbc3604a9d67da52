//! Sessions, which hold keys and release them when the owner stops renewing the session.
//!
//! Not here: acquiring keys (`kv`).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::client::{Call, Client, Op, segment};
use crate::error::Result;

/// The id of a session: a UUID that Consul assigns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(String);

impl SessionId {
    /// Parses an id.
    ///
    /// # Errors
    /// The text does not have the 36 characters of a UUID.
    pub fn parse(text: &str) -> Result<Self> {
        match text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            true => Ok(Self(text.to_owned())),
            false => Err(Op::new("read session id", text).argument("it is not a UUID")),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What happens to the keys of a session that ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Behavior {
    /// They are unlocked.
    #[default]
    Release,
    /// They are deleted, so their `lock_index` starts at 0 again.
    Delete,
}

/// A session to create. The default has no TTL and Consul's own lock delay.
#[derive(Clone, Debug, Default)]
pub struct NewSession {
    /// A name for display.
    pub name: Option<String>,
    /// The session ends when it is not renewed for this long; Consul may take up to twice as long. Servers accept 10 s to
    /// 24 h by default.
    pub ttl: Option<Duration>,
    pub behavior: Behavior,
    /// How long a key cannot be acquired after its session ends without releasing it. Consul's default is 15 s; zero
    /// allows it at once.
    pub lock_delay: Option<Duration>,
    /// Checks of the agent's node that end the session when they become critical. The default is the node's own health,
    /// so that the session also ends when the agent fails. Empty: only the TTL counts.
    pub node_checks: Option<Vec<String>>,
}

/// A session of Consul.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Session {
    #[serde(rename = "ID")]
    pub id: SessionId,
    #[serde(default)]
    pub name: String,
    /// The node of the agent that created it.
    pub node: String,
    pub behavior: Behavior,
    /// As it was written, such as `15s`; empty for none.
    #[serde(default, rename = "TTL")]
    pub ttl: String,
    #[serde(default, deserialize_with = "nanoseconds")]
    pub lock_delay: Duration,
    pub create_index: u64,
    pub modify_index: u64,
}

/// The session part of the API.
#[derive(Clone, Copy, Debug)]
pub struct Sessions<'c> {
    client: &'c Client,
}

impl Client {
    /// Sessions.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions::new(self)
    }
}

impl<'c> Sessions<'c> {
    pub(crate) fn new(client: &'c Client) -> Self {
        Self { client }
    }

    /// Creates a session on the node of the agent that this client is connected to.
    ///
    /// # Errors
    /// See [`Error`](crate::Error); the server refuses an invalid TTL with status 500 or 400 and the limits.
    pub async fn create(&self, new: &NewSession) -> Result<SessionId> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a str>,
            #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
            ttl: Option<String>,
            behavior: Behavior,
            #[serde(skip_serializing_if = "Option::is_none")]
            lock_delay: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            node_checks: Option<&'a [String]>,
        }
        #[derive(Deserialize)]
        struct Made {
            #[serde(rename = "ID")]
            id: SessionId,
        }
        let op = Op::new("create session", new.name.as_deref().unwrap_or_default());
        let body = Body {
            name: new.name.as_deref(),
            ttl: new.ttl.map(span),
            behavior: new.behavior,
            lock_delay: new.lock_delay.map(span),
            node_checks: new.node_checks.as_deref(),
        };
        let call = Call::put(op, "/v1/session/create".into()).json(&body)?;
        Ok(self.client.call(call).await?.json::<Made>()?.id)
    }

    /// Restarts the TTL. Returns `None` if the session no longer exists, and so holds no keys.
    ///
    /// # Errors
    /// See [`Error`](crate::Error).
    pub async fn renew(&self, id: &SessionId) -> Result<Option<Session>> {
        let op = Op::new("renew session", id.as_str());
        let call = Call::put(op, format!("/v1/session/renew/{}", segment(op, id.as_str())?));
        let answer = self.client.call(call.or_not_found()).await?;
        if !answer.found() {
            return Ok(None);
        }
        Ok(answer.json::<Vec<Session>>()?.into_iter().next())
    }

    /// Ends a session: its keys are released or deleted, without a lock delay. Succeeds also if the session no longer
    /// exists.
    ///
    /// # Errors
    /// See [`Error`](crate::Error).
    pub async fn destroy(&self, id: &SessionId) -> Result<()> {
        let op = Op::new("destroy session", id.as_str());
        let call = Call::put(op, format!("/v1/session/destroy/{}", segment(op, id.as_str())?));
        self.client.call(call).await.map(|_| ())
    }

    /// Looks a session up; `None` if there is none.
    ///
    /// # Errors
    /// See [`Error`](crate::Error).
    pub async fn info(&self, id: &SessionId) -> Result<Option<Session>> {
        let op = Op::new("look up session", id.as_str());
        let call = Call::get(op, format!("/v1/session/info/{}", segment(op, id.as_str())?));
        let found: Option<Vec<Session>> = self.client.call(call).await?.json()?;
        Ok(found.unwrap_or_default().into_iter().next())
    }
}

fn nanoseconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    Ok(Duration::from_nanos(u64::deserialize(from)?))
}

/// A duration in Consul's format.
pub(crate) fn span(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}
