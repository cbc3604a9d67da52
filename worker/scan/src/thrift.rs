//! Thrift's compact protocol, as far as page headers and footers of Parquet files use it. All input is untrusted: no
//! length is used without a check.
//!
//! Not here: the meaning of fields (`page_header`, `metadata`, `schema`).

/// Why bytes cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ThriftError {
    /// The bytes end too soon.
    Short,
    Malformed(&'static str),
}

use ThriftError::{Malformed, Short};

impl ThriftError {
    /// The reason, for messages.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Short => "it ends too soon",
            Malformed(what) => what,
        }
    }
}

/// Maximum nesting of unknown structures.
const MAX_DEPTH: u32 = 16;

/// Wire types.
pub(crate) const I32: u8 = 5;
pub(crate) const I64: u8 = 6;
pub(crate) const BINARY: u8 = 8;
pub(crate) const LIST: u8 = 9;
pub(crate) const STRUCT: u8 = 12;

/// A cursor over the bytes.
#[derive(Clone)]
pub(crate) struct ThriftReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A field's number and wire type.
pub(crate) struct FieldHeader {
    pub(crate) id: i16,
    pub(crate) kind: u8,
}

impl<'a> ThriftReader<'a> {
    /// All of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        ThriftReader { bytes, at: 0 }
    }

    /// Number of bytes that were read.
    pub(crate) fn read(&self) -> usize {
        self.at
    }

    /// The bytes that were not read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Result<u8, ThriftError> {
        let byte = *self.bytes.get(self.at).ok_or(Short)?;
        self.at += 1;
        Ok(byte)
    }

    /// An unsigned integer.
    pub(crate) fn varint(&mut self) -> Result<u64, ThriftError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("an integer has more than 64 bits"))
    }

    /// A signed integer.
    pub(crate) fn zigzag(&mut self) -> Result<i64, ThriftError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A signed integer of 32 bits.
    pub(crate) fn int(&mut self) -> Result<i32, ThriftError> {
        i32::try_from(self.zigzag()?).map_err(|_| Malformed("an integer is out of range"))
    }

    /// A non-negative integer of 32 bits.
    pub(crate) fn size(&mut self) -> Result<usize, ThriftError> {
        usize::try_from(self.int()?).map_err(|_| Malformed("a size is negative"))
    }

    /// Bytes, or the bytes of a string.
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], ThriftError> {
        let length = self.varint()?;
        let from = self.at;
        self.advance(length)?;
        self.bytes.get(from..self.at).ok_or(Short)
    }

    /// The header of a list with this element type: the number of elements. The element type of an empty list is not
    /// checked, because some writers store any value.
    pub(crate) fn list(&mut self, element: u8) -> Result<u64, ThriftError> {
        let byte = self.byte()?;
        let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
        if count > 0 && byte & 0x0f != element {
            return Err(Malformed("a list has the wrong element type"));
        }
        Ok(count)
    }

    /// The header of a struct's next field; `last` is the number of the previous field. `None` at the end of the
    /// struct.
    pub(crate) fn field(&mut self, last: &mut i16) -> Result<Option<FieldHeader>, ThriftError> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let id = match byte >> 4 {
            0 => i16::try_from(self.zigzag()?).map_err(|_| Malformed("a field number is out of range"))?,
            delta => last.checked_add(i16::from(delta)).ok_or(Malformed("a field number is out of range"))?,
        };
        *last = id;
        Ok(Some(FieldHeader { id, kind: byte & 0x0f }))
    }

    /// Skips a number of bytes.
    pub(crate) fn advance(&mut self, bytes: u64) -> Result<(), ThriftError> {
        let left = (self.bytes.len() - self.at) as u64;
        if bytes > left {
            return Err(Short);
        }
        self.at += bytes as usize;
        Ok(())
    }

    /// Skips a value of this type. `depth` is its nesting.
    pub(crate) fn skip(&mut self, kind: u8, depth: u32) -> Result<(), ThriftError> {
        if depth > MAX_DEPTH {
            return Err(Malformed("structures nest too deep"));
        }
        match kind {
            1 | 2 => Ok(()),
            3 => self.advance(1),
            4..=6 => self.varint().map(drop),
            7 => self.advance(8),
            8 => {
                let length = self.varint()?;
                self.advance(length)
            }
            // Lists and sets. The element type of an empty one may be any number.
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                (0..count).try_for_each(|_| self.skip_element(byte & 0x0f, depth + 1))
            }
            // Maps. Empty maps do not state their types.
            11 => {
                let count = self.varint()?;
                let types = if count > 0 { self.byte()? } else { 0 };
                (0..count).try_for_each(|_| {
                    self.skip_element(types >> 4, depth + 1)?;
                    self.skip_element(types & 0x0f, depth + 1)
                })
            }
            12 => {
                let mut last = 0;
                while let Some(field) = self.field(&mut last)? {
                    self.skip(field.kind, depth + 1)?;
                }
                Ok(())
            }
            // A UUID.
            13 => self.advance(16),
            _ => Err(Malformed("a field has an unknown type")),
        }
    }

    /// Skips an element of a list, a set or a map, where a boolean takes one byte.
    fn skip_element(&mut self, kind: u8, depth: u32) -> Result<(), ThriftError> {
        self.skip(if matches!(kind, 1 | 2) { 3 } else { kind }, depth)
    }

    /// Calls `take` for each field of a struct. It returns whether it read the value; other fields are skipped.
    pub(crate) fn each_field(
        &mut self,
        mut take: impl FnMut(&mut Self, &FieldHeader) -> Result<bool, ThriftError>,
    ) -> Result<(), ThriftError> {
        let mut last = 0;
        while let Some(field) = self.field(&mut last)? {
            if !take(self, &field)? {
                self.skip(field.kind, 0)?;
            }
        }
        Ok(())
    }
}
