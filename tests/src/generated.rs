//! Days made by `tally generate`, with the totals that it says they must give. Not here: the generator.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::golden::DATE;
use crate::process::Tally;

/// What `DIR.totals.json` holds.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Totals {
    pub rows: u64,
    /// The sum of the column `count` over all output rows.
    pub sum_of_count: u64,
    pub n_clients: u64,
    pub n_custom_theme_clients: u64,
}

/// A generated day of the golden date.
pub struct Generated {
    /// Holds `addons/v2` and `main_summary/v3`.
    pub root: PathBuf,
    pub totals: Totals,
}

impl Generated {
    /// Runs `tally generate FLAGS` into `folder/day`.
    pub fn new(folder: &Path, flags: &[&str]) -> Result<Self> {
        let root = folder.join("day");
        let generate = Tally::new("generate").args(flags).args(["--date", DATE, "--output"]).args([&root]);
        generate.run()?.expect_code(0)?;
        let path = folder.join("day.totals.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let totals = serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
        Ok(Self { root, totals })
    }
}
