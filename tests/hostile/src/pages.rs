//! Locates the pages of a column chunk by their headers. Not here: the contents of pages.

use std::ops::Range;

/// Reads Thrift's compact protocol as far as page headers use it.
struct ThriftReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl ThriftReader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Skips a value of this type. Returns the value of an integer.
    fn value(&mut self, kind: u8) -> Option<i64> {
        match kind {
            1 | 2 => {}
            3 => self.at += 1,
            4..=6 => {
                let value = self.varint()?;
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            7 => self.at += 8,
            8 => self.at += self.varint()? as usize,
            9 | 10 => {
                let head = self.byte()?;
                let size = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                for _ in 0..size {
                    self.value(head & 15)?;
                }
            }
            12 => while self.field(&mut 0)?.is_some() {},
            _ => return None,
        }
        Some(0)
    }

    /// The next field: its number and value; `None` at the end of the struct.
    fn field(&mut self, id: &mut i64) -> Option<Option<(i64, i64)>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        *id = match head >> 4 {
            0 => self.value(4)?,
            more => *id + i64::from(more),
        };
        Some(Some((*id, self.value(head & 15)?)))
    }
}

/// The field of a page header that has the number of bytes after it.
const COMPRESSED_SIZE: i64 = 3;

/// The bodies of the pages in `file[chunk]`, without their headers; `None` if the chunk does not consist of pages.
pub fn bodies(file: &[u8], chunk: Range<usize>) -> Option<Vec<Range<usize>>> {
    let mut input = ThriftReader { bytes: file.get(..chunk.end)?, at: chunk.start };
    let mut bodies = vec![];
    while input.at < chunk.end {
        let (mut id, mut size) = (0, None);
        while let Some((field, value)) = input.field(&mut id)? {
            if field == COMPRESSED_SIZE {
                size = usize::try_from(value).ok();
            }
        }
        let end = input.at.checked_add(size?)?;
        bodies.push(input.at..end);
        input.at = end;
    }
    (input.at == chunk.end).then_some(bodies)
}
