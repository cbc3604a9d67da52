//! Thrift's compact protocol, as far as page headers and footers of Parquet files use it. All input is foreign: nothing
//! here trusts a length.
//!
//! Not here: what the fields mean (`page_header`, `metadata`, `schema`).

/// Why there is nothing in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ThriftError {
    /// The bytes end too soon.
    Short,
    Malformed(&'static str),
}

use ThriftError::{Malformed, Short};

impl ThriftError {
    /// The reason, for people.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Short => "it ends too soon",
            Malformed(what) => what,
        }
    }
}

/// How deep unknown structures may nest.
const MAX_DEPTH: u32 = 16;

/// Types on the wire.
pub(super) const I32: u8 = 5;
pub(super) const I64: u8 = 6;
pub(super) const BINARY: u8 = 8;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCT: u8 = 12;

/// Bytes that are read from the front.
#[derive(Clone)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A field's number and wire type.
pub(super) struct FieldHeader {
    pub(super) id: i16,
    pub(super) kind: u8,
}

impl<'a> Input<'a> {
    /// All of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Input { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) fn read(&self) -> usize {
        self.at
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, ThriftError> {
        let byte = *self.bytes.get(self.at).ok_or(Short)?;
        self.at += 1;
        Ok(byte)
    }

    /// A number without a sign.
    pub(super) fn varint(&mut self) -> Result<u64, ThriftError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number of more than 64 bits"))
    }

    /// A number with a sign.
    pub(super) fn zigzag(&mut self) -> Result<i64, ThriftError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number of 32 bits.
    pub(super) fn int(&mut self) -> Result<i32, ThriftError> {
        i32::try_from(self.zigzag()?).map_err(|_| Malformed("a number out of range"))
    }

    /// A number of 32 bits that is no less than 0.
    pub(super) fn size(&mut self) -> Result<usize, ThriftError> {
        usize::try_from(self.int()?).map_err(|_| Malformed("a negative size"))
    }

    /// Bytes, or a text's.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], ThriftError> {
        let length = self.varint()?;
        let from = self.at;
        self.advance(length)?;
        self.bytes.get(from..self.at).ok_or(Short)
    }

    /// The head of a list of such elements: how many there are. What type a list without elements says they are does not
    /// matter: writers put what they like there.
    pub(super) fn list(&mut self, element: u8) -> Result<u64, ThriftError> {
        let byte = self.byte()?;
        let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
        if count > 0 && byte & 0x0f != element {
            return Err(Malformed("a list of another type than it must have"));
        }
        Ok(count)
    }

    /// The head of a struct's next field, after the one of number `last`; none at its end.
    pub(super) fn field(&mut self, last: &mut i16) -> Result<Option<FieldHeader>, ThriftError> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let id = match byte >> 4 {
            0 => i16::try_from(self.zigzag()?).map_err(|_| Malformed("a field number out of range"))?,
            delta => last.checked_add(i16::from(delta)).ok_or(Malformed("a field number out of range"))?,
        };
        *last = id;
        Ok(Some(FieldHeader { id, kind: byte & 0x0f }))
    }

    /// Passes so many bytes.
    pub(super) fn advance(&mut self, bytes: u64) -> Result<(), ThriftError> {
        let left = (self.bytes.len() - self.at) as u64;
        if bytes > left {
            return Err(Short);
        }
        self.at += bytes as usize;
        Ok(())
    }

    /// Passes a value of that type, `depth` structures deep.
    pub(super) fn skip(&mut self, kind: u8, depth: u32) -> Result<(), ThriftError> {
        if depth > MAX_DEPTH {
            return Err(Malformed("structures nested too deep"));
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
            // Lists and sets. What the elements are says nothing where there is none, and may be any number.
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                (0..count).try_for_each(|_| self.skip_element(byte & 0x0f, depth + 1))
            }
            // Maps, which tell their types only where they have elements.
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
            _ => Err(Malformed("a field of unknown type")),
        }
    }

    /// Passes an element of a list, a set or a map. A boolean takes a byte there.
    fn skip_element(&mut self, kind: u8, depth: u32) -> Result<(), ThriftError> {
        self.skip(if matches!(kind, 1 | 2) { 3 } else { kind }, depth)
    }

    /// Offers each field of a struct to `take`, which says whether it read the value; else it is passed.
    pub(super) fn each_field(
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
