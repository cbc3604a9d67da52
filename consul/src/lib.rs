//! A thin, typed, async client of Consul's HTTP API: keys and values, sessions, blocking queries and watches, services
//! of the local agent and their health. It is independent of the programs that use it.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use consul_api_client::{Behavior, Client, Config, NewSession, WatchOptions};
//! use futures::StreamExt;
//!
//! # async fn lead() -> consul_api_client::Result<()> {
//! let consul = Client::new(&Config::new("http://127.0.0.1:8500"))?;
//! let session = NewSession {
//!     ttl: Some(Duration::from_secs(10)),
//!     lock_delay: Some(Duration::ZERO),
//!     behavior: Behavior::Release,
//!     ..NewSession::default()
//! };
//! let session = consul.sessions().create(&session).await?;
//! if consul.kv().acquire("app/leader", "me", &session).await? {
//!     println!("leader, as long as the session is renewed");
//! }
//! let mut leaders = consul.watch_key("app/leader", WatchOptions::default());
//! while let Some(change) = leaders.next().await {
//!     match change {
//!         Ok(key) => println!("led by {:?}", key.and_then(|key| key.session)),
//!         Err(error) => eprintln!("{error}; trying again"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Not here: settings from the environment, writes to the catalog, transactions, prepared queries, Connect, ACL
//! administration, and a lock with its own threads: the caller acquires, renews and releases.

mod agent;
mod client;
mod config;
mod error;
mod health;
mod kv;
mod query;
mod session;
mod tls;
mod token;
mod transport;
mod watch;

pub use agent::{Agent, Check, Probe, Service};
pub use client::Client;
pub use config::{Config, Tls};
pub use error::{Error, Result};
pub use health::{CheckState, CheckStatus, Health, Instance, Node, ServiceHealth, Which};
pub use kv::{Kv, KvPair, MAX_VALUE};
pub use query::{Consistency, Indexed, MAX_WAIT, Query};
pub use session::{Behavior, NewSession, Session, SessionId, Sessions};
pub use token::Token;
pub use watch::{Changes, WatchOptions, watch};
