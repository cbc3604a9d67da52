//! Objects by their exact keys, including those that are not paths: the client strips a trailing slash, and rejects two
//! in a row.

use anyhow::{Result, ensure};

use super::server::{ADMIN, Server};
use crate::python::script_command;

/// Puts empty objects.
pub fn put(server: &Server, bucket: &str, keys: &[String]) -> Result<()> {
    run(server, bucket, "put", keys).map(drop)
}

/// Removes objects.
pub fn remove(server: &Server, bucket: &str, keys: &[String]) -> Result<()> {
    run(server, bucket, "remove", keys).map(drop)
}

/// The keys that begin with `prefix`, sorted.
pub fn list(server: &Server, bucket: &str, prefix: &str) -> Result<Vec<String>> {
    let listed = run(server, bucket, "list", &[prefix.to_string()])?;
    let mut keys: Vec<String> = listed.lines().map(str::to_string).collect();
    keys.sort();
    Ok(keys)
}

fn run(server: &Server, bucket: &str, what: &str, keys: &[String]) -> Result<String> {
    let mut script = script_command("raw_keys.py")?;
    script.args([&format!("http://{}", server.address()), bucket, what]).args(keys);
    let done = script.envs(ADMIN.environment(server.address())).output()?;
    ensure!(done.status.success(), "raw_keys.py {what}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
