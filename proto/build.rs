//! Compiles the .proto files with a compiler written in Rust, so that the build needs no `protoc`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let names = ["task", "control", "jobs", "journal", "shuffle"];
    let own = names.map(|name| format!("proto/tally/v1/{name}.proto"));
    // KEDA's interface, with which its operator asks a coordinator for the desired number of workers.
    let paths = own.into_iter().chain(["proto/externalscaler/externalscaler.proto".into()]);
    let files = protox::compile(paths, ["proto"])?;
    // For the reflection service.
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(descriptors, prost::Message::encode_to_vec(&files))?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
