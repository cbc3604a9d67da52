//! For tests: integers that are encoded bit by bit, exactly as the format's text describes.
//!
//! Not here: pages that a writer makes (`written`).

/// Appends a number in seven bits per byte.
pub(crate) fn put(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_signed(value: i64, out: &mut Vec<u8>) {
    put((value << 1 ^ value >> 63) as u64, out);
}

/// Parameters of a stream in the encoding DELTA_BINARY_PACKED.
#[derive(Debug, Clone)]
pub(crate) struct DeltaShape {
    pub(crate) size: usize,
    pub(crate) miniblocks: usize,
    /// Additional bits per value.
    pub(crate) wider: u32,
    /// Whether 32-bit values are subtracted as 64-bit ones, so that differences take up to 33 bits.
    pub(crate) wide: bool,
    /// The width of miniblocks without values.
    pub(crate) garbage: u8,
    /// Whether the last miniblock is padded.
    pub(crate) padded: bool,
}

impl DeltaShape {
    /// That of most writers.
    pub(crate) const USUAL: Self =
        DeltaShape { size: 32, miniblocks: 4, wider: 0, wide: false, garbage: 0, padded: true };
}

/// Differences of values of `bits` bits (32 or 64) as DELTA_BINARY_PACKED.
pub(crate) fn delta_stream(values: &[i64], bits: u32, shape: &DeltaShape) -> Vec<u8> {
    let mut out = vec![];
    put((shape.size * shape.miniblocks) as u64, &mut out);
    put(shape.miniblocks as u64, &mut out);
    put(values.len() as u64, &mut out);
    put_signed(values.first().copied().unwrap_or(0), &mut out);
    let narrow = bits == 32 && !shape.wide;
    let differences: Vec<i64> = values
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]))
        .map(|difference| if narrow { i64::from(difference as i32) } else { difference })
        .collect();
    for block in differences.chunks(shape.size * shape.miniblocks) {
        let least = block.iter().copied().min().unwrap_or(0);
        put_signed(least, &mut out);
        let above: Vec<u64> = block
            .iter()
            .map(|&difference| difference.wrapping_sub(least) as u64)
            .map(|above| if narrow { u64::from(above as u32) } else { above })
            .collect();
        let miniblocks: Vec<&[u64]> = above.chunks(shape.size).collect();
        let width = |values: &[u64]| {
            let needed = values.iter().map(|value| 64 - value.leading_zeros()).max().unwrap_or(0);
            (needed + shape.wider).min(64)
        };
        let widths = miniblocks.iter().map(|values| width(values) as u8);
        let unneeded = std::iter::repeat(shape.garbage);
        out.extend(widths.chain(unneeded).take(shape.miniblocks));
        for values in miniblocks {
            let there = if shape.padded { shape.size } else { values.len() };
            let width = width(values) as usize;
            let mut packed = vec![0; (there * width).div_ceil(8)];
            for (at, value) in values.iter().enumerate() {
                for bit in (0..width).filter(|bit| value >> bit & 1 == 1) {
                    packed[(at * width + bit) / 8] |= 1 << ((at * width + bit) % 8);
                }
            }
            out.extend(packed);
        }
    }
    out
}

/// Appends one run of the hybrid encoding: `packed` values in groups of eight, otherwise the first value repeated.
pub(crate) fn hybrid_run(values: &[u32], width: usize, packed: bool, out: &mut Vec<u8>) {
    if !packed {
        put(values.len() as u64 * 2, out);
        out.extend(&values[0].to_le_bytes()[..width.div_ceil(8)]);
        return;
    }
    put(values.len().div_ceil(8) as u64 * 2 + 1, out);
    let start = out.len();
    out.resize(start + values.len().div_ceil(8) * width, 0);
    for (at, value) in values.iter().enumerate() {
        for bit in (0..width).filter(|bit| value >> bit & 1 == 1) {
            out[start + (at * width + bit) / 8] |= 1 << ((at * width + bit) % 8);
        }
    }
}
