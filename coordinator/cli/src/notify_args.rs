//! The options of `tally coordinator` that name receivers of notices: a webhook, and a collector of OpenLineage's events.
//!
//! Not here: what they receive (`tally_coordinator::notify`).

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tally_common::environment;
use tally_common::receiver::{Receiver, ReceiverOptions};
use tally_coordinator::notify::delivery::{Content, RETRY, Sink, Sinks};
use tally_coordinator::notify::lineage::Context;

use crate::Stop;

/// The options of receivers.
#[derive(Debug, Args)]
pub struct NotifyArgs {
    /// Webhook that receives each job's JSON when the job has ended: https://HOST/PATH or http://HOST:PORT/PATH [default:
    /// none]
    #[arg(long, help_heading = "Notifications", value_name = "URL")]
    notify_url: Option<String>,
    /// File with the bearer token for the webhook; read before each request
    #[arg(long, help_heading = "Notifications", value_name = "FILE", requires = "notify_url")]
    notify_token_file: Option<PathBuf>,
    /// Collector that receives OpenLineage's run events of jobs; /api/v1/lineage is added to a URL without a path
    /// [default: none]
    #[arg(long, help_heading = "Notifications", value_name = "URL")]
    openlineage_url: Option<String>,
    /// File with the bearer token for the collector; read before each request
    #[arg(long, help_heading = "Notifications", value_name = "FILE", requires = "openlineage_url")]
    openlineage_token_file: Option<PathBuf>,
    /// Namespace of this cluster's jobs in OpenLineage
    #[arg(long, help_heading = "Notifications", value_name = "NAME", default_value = "tally")]
    openlineage_namespace: String,
    /// Certificate authorities for the webhook and the collector, as PEM [default: those of the system]
    #[arg(long, help_heading = "Notifications", value_name = "FILE")]
    notify_ca_file: Option<PathBuf>,
}

/// The path of OpenLineage's API.
const LINEAGE: &str = "/api/v1/lineage";

impl NotifyArgs {
    /// The receivers. Reads files, and opens no connection.
    ///
    /// # Errors
    /// [`Stop::Usage`] names the option, and has no secrets.
    pub(crate) fn sinks(&self) -> Result<Sinks, Stop> {
        let mut sinks = Sinks::default();
        if let Some(url) = self.notify_url.clone() {
            let options = ReceiverOptions {
                option: "--notify-url",
                url,
                default_path: "/",
                token_file: self.notify_token_file.clone(),
                ca_file: self.notify_ca_file.clone(),
            };
            sinks.0.push(sink(Content::Webhook, &options)?);
        }
        if let Some(url) = self.openlineage_url.clone() {
            let options = ReceiverOptions {
                option: "--openlineage-url",
                url,
                default_path: LINEAGE,
                token_file: self.openlineage_token_file.clone(),
                ca_file: self.notify_ca_file.clone(),
            };
            let (namespace, account) = (self.openlineage_namespace.clone(), storage_account());
            sinks.0.push(sink(Content::OpenLineage(Context { namespace, account }), &options)?);
        }
        Ok(sinks)
    }
}

fn sink(content: Content, options: &ReceiverOptions) -> Result<Arc<Sink>, Stop> {
    let receiver = Receiver::open(options).map_err(|e| Stop::Usage(e.to_string()))?;
    Ok(Arc::new(Sink { content, receiver, retry: RETRY }))
}

/// The account of `az://` URLs.
fn storage_account() -> Option<String> {
    environment::text("AZURE_STORAGE_ACCOUNT_NAME").map(|account| account.trim().to_owned())
}
