//! Typed values of GGUF metadata.
use crate::tensor::Bytes;

/// Type of a value, with its number in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "standard names")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// Every type; the position is the number in files.
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The type with this number.
    pub fn of(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    /// Number in files.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The fewest bytes that a value takes in a file.
    pub(super) fn min_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

/// A value of the metadata. Integers are widened.
#[derive(Clone, Debug)]
pub enum Value {
    /// u8, u16, u32, u64.
    Unsigned(u64),
    /// i8, i16, i32, i64.
    Signed(i64),
    /// f32, as its shortest decimal: `1e-5`, not `0.0000099999997`. Writers store float32 what a
    /// `config.json` says in decimals.
    F32(f32),
    /// f64.
    F64(f64),
    /// Bool.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Elements of one type.
    Array(Array),
}

/// An array. Numbers stay bytes of the file until they are asked for.
#[derive(Clone, Debug)]
pub enum Array {
    /// Numbers or bools, little-endian.
    Numbers {
        /// Element type.
        kind: ValueType,
        /// All elements.
        bytes: Bytes,
    },
    /// Texts.
    Strings(Vec<String>),
    /// Arrays of arrays.
    Nested(Vec<Self>),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers { kind, bytes } => bytes.len() / kind.min_bytes(),
            Self::Strings(all) => all.len(),
            Self::Nested(all) => all.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers or bools, one after another; nothing for other arrays.
    pub fn numbers(&self) -> impl Iterator<Item = Value> {
        let numbers = match self {
            Self::Numbers { kind, bytes } => Some((*kind, &**bytes)),
            _ => None,
        };
        numbers.into_iter().flat_map(|(kind, bytes)| {
            bytes.chunks_exact(kind.min_bytes()).filter_map(move |b| scalar(kind, b))
        })
    }
}

impl Value {
    /// A number that is at least zero and whole.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(*value),
            Self::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// Any number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Unsigned(value) => Some(*value as f64),
            Self::Signed(value) => Some(*value as f64),
            Self::F32(value) => value.to_string().parse().ok(),
            Self::F64(value) => Some(*value),
            _ => None,
        }
    }

    /// The value as people read it; arrays and long texts are shortened.
    pub fn shown(&self) -> String {
        const LONGEST: usize = 80;
        match self {
            Self::Unsigned(value) => value.to_string(),
            Self::Signed(value) => value.to_string(),
            Self::F32(value) => value.to_string(),
            Self::F64(value) => value.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::String(text) if text.chars().count() > LONGEST => {
                let start: String = text.chars().take(LONGEST).collect();
                format!("{start}… ({} bytes)", text.len())
            }
            Self::String(text) => text.clone(),
            Self::Array(array) => format!("array of {}", array.len()),
        }
    }
}

impl Value {
    /// An array of 32-bit numbers; sizes beyond that do not come up.
    pub(super) fn sizes(all: impl Iterator<Item = usize>) -> Self {
        let bytes = all.flat_map(|size| (size as u32).to_le_bytes()).collect();
        Self::Array(Array::Numbers { kind: ValueType::U32, bytes: Bytes::owned(bytes) })
    }

    /// Appends type and value as a file holds them. Whole numbers have 32 bits where they fit:
    /// llama.cpp takes no others for its sizes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut put = |kind: ValueType, bytes: &[u8]| {
            out.extend(kind.id().to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Self::Unsigned(value) => match u32::try_from(*value) {
                Ok(short) => put(ValueType::U32, &short.to_le_bytes()),
                Err(_) => put(ValueType::U64, &value.to_le_bytes()),
            },
            Self::Signed(value) => match i32::try_from(*value) {
                Ok(short) => put(ValueType::I32, &short.to_le_bytes()),
                Err(_) => put(ValueType::I64, &value.to_le_bytes()),
            },
            Self::F32(value) => put(ValueType::F32, &value.to_le_bytes()),
            Self::F64(value) => put(ValueType::F64, &value.to_le_bytes()),
            Self::Bool(value) => put(ValueType::Bool, &[u8::from(*value)]),
            Self::String(text) => {
                put(ValueType::String, &[]);
                write_text(text, out);
            }
            Self::Array(array) => {
                put(ValueType::Array, &[]);
                array.write(out);
            }
        }
    }
}

impl Array {
    fn write(&self, out: &mut Vec<u8>) {
        let kind = match self {
            Self::Numbers { kind, .. } => *kind,
            Self::Strings(_) => ValueType::String,
            Self::Nested(_) => ValueType::Array,
        };
        out.extend(kind.id().to_le_bytes());
        out.extend((self.len() as u64).to_le_bytes());
        match self {
            Self::Numbers { bytes, .. } => out.extend(&**bytes),
            Self::Strings(all) => all.iter().for_each(|text| write_text(text, out)),
            Self::Nested(all) => all.iter().for_each(|array| array.write(out)),
        }
    }
}

/// A text as files hold it: its length in bytes, then the bytes.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A number or bool from exactly its bytes.
pub(super) fn scalar(kind: ValueType, bytes: &[u8]) -> Option<Value> {
    Some(match kind {
        ValueType::U8 => Value::Unsigned(u8::from_le_bytes(bytes.try_into().ok()?).into()),
        ValueType::I8 => Value::Signed(i8::from_le_bytes(bytes.try_into().ok()?).into()),
        ValueType::U16 => Value::Unsigned(u16::from_le_bytes(bytes.try_into().ok()?).into()),
        ValueType::I16 => Value::Signed(i16::from_le_bytes(bytes.try_into().ok()?).into()),
        ValueType::U32 => Value::Unsigned(u32::from_le_bytes(bytes.try_into().ok()?).into()),
        ValueType::I32 => Value::Signed(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        ValueType::U64 => Value::Unsigned(u64::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::I64 => Value::Signed(i64::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
        ValueType::Bool => match bytes {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            _ => return None,
        },
        ValueType::String | ValueType::Array => return None,
    })
}
