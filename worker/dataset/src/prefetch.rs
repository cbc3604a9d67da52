//! Memory fetched ahead of its use, for look-ups whose places are known long before they are made: loads stop the
//! processor as soon as its window is full of waiting ones, prefetches do not.
//!
//! Not here: what is looked up.

/// Has the processor fetch what is at `at`, if there is anything, while it goes on.
#[inline]
pub(crate) fn prefetch<T>(of: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(wanted) = of.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing, of memory that is there.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(wanted).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (of, at);
}
