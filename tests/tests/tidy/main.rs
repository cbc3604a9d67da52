//! House rules that neither rustfmt nor clippy checks: a head on every module, no long file, no test that is switched
//! off, no name of the development machine; which crate may use which, and no files that import each other
//! (ARCHITECTURE.md, "Code map").

mod calls;
mod crates;
mod imports;
mod modules;
mod mutations;
mod shape;
mod tree;
mod words;
