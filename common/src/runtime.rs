//! Runs a future from a thread that is not part of a runtime.
//!
//! Not here: the runtimes themselves, which each process builds for its needs.

use std::pin::{Pin, pin};

use tokio::runtime::Runtime;

/// Runs `future` on `runtime` to its end, in the current thread. Unlike [`Runtime::block_on`], it polls the future
/// through a pointer. Otherwise the compiler generates the code of the whole future once for each kind of runtime.
pub fn block_on<T>(runtime: &Runtime, future: impl Future<Output = T>) -> T {
    let future: Pin<&mut dyn Future<Output = T>> = pin!(future);
    runtime.block_on(future)
}
