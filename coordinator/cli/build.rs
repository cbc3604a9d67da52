//! Lets the linker compress the debug information of the binary, which halves its size. Not here: what the debug
//! information contains (the profile in the workspace's manifest).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,-O2,--compress-debug-sections=zlib");
    }
}
