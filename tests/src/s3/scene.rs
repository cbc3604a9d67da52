//! A scene for publishes: a store with a golden case's day, a proxy before it, and jobs that replace the output's day.

use std::net::SocketAddr;

use anyhow::Result;

use super::client::Client;
use super::proxy::{Fault, Proxy};
use super::server::{ADMIN, DATA, Kind, OUT, Server};
use super::{job, output_url, put_case, reach, read_output};
use crate::golden::{Case, DATE};
use crate::output::Place;
use crate::process::Tally;
use crate::table;

/// The case of the day.
pub const CASE: &str = "case-05";
/// Several part files.
const FILES: [&str; 2] = ["--target-file-size", "2KB"];

/// The scene.
pub struct Scene {
    pub server: Server,
    /// The environment with which jobs reach the store.
    pub proxy: Proxy,
    /// A client of the outputs' bucket.
    pub out: Client,
    pub case: Case,
    pub place: Place,
}

impl Scene {
    /// A scene in SeaweedFS.
    pub fn new() -> Result<Self> {
        Self::of(Kind::Seaweed)
    }

    /// A scene in that store.
    pub fn of(kind: Kind) -> Result<Self> {
        let server = Server::start(kind)?;
        let case = put_case(&server.client(DATA)?, CASE)?;
        let (out, proxy) = (server.client(OUT)?, Proxy::before(server.address())?);
        Ok(Scene { server, proxy, out, case, place: Place::new()? })
    }

    /// A job that replaces the day.
    pub fn job(&self) -> Tally {
        job(self.proxy.address(), ADMIN, CASE, &self.place.spill()).args(FILES)
    }

    /// `tally days` of the one day.
    pub fn days(&self) -> Tally {
        let url = |table: &str| format!("s3://{DATA}/{CASE}/{table}");
        let days = Tally::new("days").args([
            "--addons",
            &url("addons/v2"),
            "--main-summary",
            &url("main_summary/v3"),
        ]);
        let days = days.args(["--output", &output_url(), "--from", DATE, "--to", DATE]);
        reach(days.args(["--output-format", "json"]), self.server.address(), ADMIN)
    }

    /// `tally gc` against the store at that address; it ignores younger files.
    pub fn gc_at(&self, endpoint: SocketAddr, older_than: &str) -> Tally {
        let gc = Tally::new("gc").args(["--output", &output_url(), "--older-than", older_than]);
        reach(gc, endpoint, ADMIN)
    }

    /// The output of `tally gc` over all days, which must succeed.
    pub fn gc(&self, flags: &[&str]) -> Result<String> {
        Ok(self.gc_at(self.server.address(), "1ms").args(flags).run()?.expect_code(0)?.stdout)
    }

    /// Checks that the output has the case's rows and nothing else.
    pub fn check_day(&self) -> Result<()> {
        table::compare(&read_output(&self.out)?, &self.case.expected_rows()?)
    }

    /// Kills a job while a request is held.
    pub fn kill_at(&self, method: &str, part: &str, skip: usize, fault: Fault) -> Result<()> {
        self.proxy.break_next(method, part, skip, 1, fault);
        let running = self.job().spawn()?;
        self.proxy.wait_held(1)?;
        // Dropping it kills it.
        drop(running);
        self.proxy.heal();
        Ok(())
    }
}
