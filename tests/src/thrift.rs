//! Thrift's compact protocol as a tree that can be changed: enough to make footers that no available writer produces.
//! Not here: any meaning of the fields.

use anyhow::{Context, Result, bail, ensure};

/// Types on the wire.
pub const BYTE: u8 = 3;
pub const I32: u8 = 5;
pub const I64: u8 = 6;
pub const BINARY: u8 = 8;
pub const LIST: u8 = 9;
pub const STRUCT: u8 = 12;

/// A value; its type is stored by its parent.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One byte, or a boolean in a list.
    Byte(u8),
    /// A number of 16, 32 or 64 bits.
    Number(i64),
    Double([u8; 8]),
    Binary(Vec<u8>),
    /// The type of its elements, even without elements, and the elements.
    List(u8, Vec<Value>),
    /// Number, type and value of each field, in the order in which they are stored; booleans have no value besides
    /// their type.
    Struct(Vec<(i16, u8, Value)>),
}

impl Value {
    /// Reads a struct from the start of `bytes`.
    ///
    /// # Errors
    /// The bytes are not a struct.
    pub fn read(bytes: &[u8]) -> Result<Value> {
        Input(bytes).value(STRUCT)
    }

    /// The bytes of a struct.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![];
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Byte(byte) => out.push(*byte),
            Value::Number(number) => varint(out, zigzag(*number)),
            Value::Double(bytes) => out.extend(bytes),
            Value::Binary(bytes) => {
                varint(out, bytes.len() as u64);
                out.extend(bytes);
            }
            Value::List(kind, values) => {
                out.push(0xf0 | kind);
                if values.len() < 15 {
                    out.pop();
                    out.push((values.len() as u8) << 4 | kind);
                } else {
                    varint(out, values.len() as u64);
                }
                values.iter().for_each(|value| value.write(out));
            }
            Value::Struct(fields) => {
                let mut last = 0;
                for (id, kind, value) in fields {
                    match id - last {
                        delta @ 1..=15 => out.push((delta as u8) << 4 | kind),
                        _ => {
                            out.push(*kind);
                            varint(out, zigzag((*id).into()));
                        }
                    }
                    last = *id;
                    if *kind > 2 {
                        value.write(out);
                    }
                }
                out.push(0);
            }
        }
    }

    /// The fields of a struct.
    ///
    /// # Panics
    /// It is not a struct.
    pub fn fields(&mut self) -> &mut Vec<(i16, u8, Value)> {
        match self {
            Value::Struct(fields) => fields,
            other => panic!("no struct: {other:?}"),
        }
    }

    /// A field of a struct.
    ///
    /// # Panics
    /// It does not exist.
    pub fn field(&mut self, id: i16) -> &mut Value {
        let fields = self.fields();
        let at = fields.iter().position(|field| field.0 == id);
        let at = at.unwrap_or_else(|| panic!("no field {id} in {fields:?}"));
        &mut fields[at].2
    }

    /// Whether a struct has a field.
    pub fn has(&mut self, id: i16) -> bool {
        self.fields().iter().any(|field| field.0 == id)
    }

    /// Sets a field of a struct, in the order of the numbers if it is new.
    pub fn set(&mut self, id: i16, kind: u8, value: Value) {
        self.remove(id);
        let fields = self.fields();
        let at = fields.iter().position(|field| field.0 > id).unwrap_or(fields.len());
        fields.insert(at, (id, kind, value));
    }

    /// Removes a field of a struct.
    pub fn remove(&mut self, id: i16) {
        self.fields().retain(|field| field.0 != id);
    }

    /// The elements of a list.
    ///
    /// # Panics
    /// It is not a list.
    pub fn elements(&mut self) -> &mut Vec<Value> {
        match self {
            Value::List(_, values) => values,
            other => panic!("no list: {other:?}"),
        }
    }

    /// The bytes of a string.
    ///
    /// # Panics
    /// It is not a string.
    pub fn binary(&mut self) -> &mut Vec<u8> {
        match self {
            Value::Binary(bytes) => bytes,
            other => panic!("no bytes: {other:?}"),
        }
    }

    /// Calls `change` for each struct in the tree, including this one.
    pub fn each_struct(&mut self, change: &mut impl FnMut(&mut Value)) {
        match self {
            Value::List(_, values) => values.iter_mut().for_each(|value| value.each_struct(change)),
            Value::Struct(fields) => {
                fields.iter_mut().for_each(|(_, _, value)| value.each_struct(change));
                change(self);
            }
            _ => {}
        }
    }
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count)?).context("it ends too soon")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bail!("a number of more than 64 bits")
    }

    fn number(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn value(&mut self, kind: u8) -> Result<Value> {
        Ok(match kind {
            1..=3 => Value::Byte(self.byte()?),
            4..=6 => Value::Number(self.number()?),
            7 => Value::Double(self.take(8)?.try_into()?),
            BINARY => {
                let length = self.varint()?;
                Value::Binary(self.take(length)?.to_vec())
            }
            LIST => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                let values = (0..count).map(|_| self.value(head & 0x0f)).collect::<Result<_>>()?;
                Value::List(head & 0x0f, values)
            }
            STRUCT => {
                let mut fields = vec![];
                let mut id = 0i16;
                loop {
                    let head = self.byte()?;
                    if head == 0 {
                        return Ok(Value::Struct(fields));
                    }
                    id = if head >> 4 == 0 {
                        i16::try_from(self.number()?)?
                    } else {
                        id + i16::from(head >> 4)
                    };
                    let kind = head & 0x0f;
                    let value = if kind <= 2 { Value::Byte(kind) } else { self.value(kind)? };
                    fields.push((id, kind, value));
                }
            }
            other => bail!("a value of type {other}"),
        })
    }
}

/// Changes the footer of a Parquet file.
///
/// # Errors
/// It is not a Parquet file.
pub fn change_footer(file: &[u8], change: impl FnOnce(&mut Value)) -> Result<Vec<u8>> {
    let body_end = file.len().checked_sub(8).context("no Parquet file")?;
    ensure!(&file[body_end + 4..] == b"PAR1", "no Parquet file");
    let length = u32::from_le_bytes(file[body_end..body_end + 4].try_into()?) as usize;
    let start = body_end.checked_sub(length).context("no Parquet file")?;
    let mut footer = Value::read(&file[start..body_end])?;
    change(&mut footer);
    let footer = footer.bytes();
    let length = u32::try_from(footer.len())?.to_le_bytes();
    Ok([&file[..start], &footer, &length, b"PAR1"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::data_files;

    #[test]
    fn footers_that_are_not_changed_stay_as_they_are() {
        let mut files = 0;
        for name in ["case-01", "case-05"] {
            for file in data_files(&crate::golden::root().join(name).join("main_summary")).unwrap() {
                let bytes = std::fs::read(file).unwrap();
                assert_eq!(change_footer(&bytes, |_| {}).unwrap(), bytes);
                files += 1;
            }
        }
        assert!(files > 0);
    }
}
