//! Writes the valid inputs of every fuzz target into the directories of its corpus: `write_seeds FOLDER`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| std::io::Error::other("usage: write_seeds FOLDER"))?;
    for target in tally_hostile::TARGETS {
        let corpus = folder.join(target.name);
        std::fs::create_dir_all(&corpus)?;
        for (at, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{at}")), seed)?;
        }
    }
    Ok(())
}
