//! Prefetching of memory for lookups whose addresses are known early. Loads stall the processor as soon as its window
//! is full of waiting ones; prefetches do not.
//!
//! Not here: the tables.

/// Prefetches the element `at`, if there is one.
#[inline]
pub(crate) fn prefetch<T>(of: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(wanted) = of.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint for an address within the slice; it reads nothing.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(wanted).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (of, at);
}
