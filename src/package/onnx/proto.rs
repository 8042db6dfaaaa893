//! The messages of an ONNX file that are written and read: fields by their numbers in the public
//! `onnx.proto` (IR versions 8 and 10); what is not listed is skipped when read.
use prost::Message;

/// The whole file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelProto {
    #[prost(int64, optional, tag = "1")]
    pub(super) ir_version: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(super) producer_name: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) producer_version: Option<String>,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub(super) metadata_props: Vec<Pair>,
}

/// Operators of a domain in a version.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct OperatorSet {
    #[prost(string, optional, tag = "1")]
    pub(super) domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    pub(super) version: Option<i64>,
}

/// A key with its value.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Pair {
    #[prost(string, optional, tag = "1")]
    pub(super) key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) value: Option<String>,
}

/// Nodes in the order of computing, tensors, ends.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<NodeProto>,
    #[prost(string, optional, tag = "2")]
    pub(super) name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfo>,
}

/// An operation.
#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) name: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) op_type: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<AttributeProto>,
    #[prost(string, optional, tag = "7")]
    pub(super) domain: Option<String>,
}

/// A setting of an operation.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AttributeProto {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(float, optional, tag = "2")]
    pub(super) f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub(super) i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(super) ints: Vec<i64>,
    #[prost(int32, optional, tag = "20")]
    pub(super) kind: Option<i32>,
}

impl AttributeProto {
    /// One number.
    pub(super) fn int(name: &str, value: i64) -> Self {
        let (name, i) = (Some(name.to_owned()), Some(value));
        Self { name, i, kind: Some(2), ..Self::default() }
    }

    /// Several numbers.
    pub(super) fn ints(name: &str, values: &[i64]) -> Self {
        let (name, ints) = (Some(name.to_owned()), values.to_vec());
        Self { name, ints, kind: Some(7), ..Self::default() }
    }

    /// One number with a fraction.
    pub(super) fn float(name: &str, value: f32) -> Self {
        let (name, f) = (Some(name.to_owned()), Some(value));
        Self { name, f, kind: Some(1), ..Self::default() }
    }
}

/// A stored tensor: its bytes, or where they are.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    pub(super) data_type: Option<i32>,
    #[prost(string, optional, tag = "8")]
    pub(super) name: Option<String>,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub(super) raw_data: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "13")]
    pub(super) external_data: Vec<Pair>,
    #[prost(int32, optional, tag = "14")]
    pub(super) data_location: Option<i32>,
}

/// `TensorProto.DataLocation`: the bytes are in another file.
pub(super) const EXTERNAL: i32 = 1;

/// An input or output of the graph.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub(super) kind: Option<TypeProto>,
}

/// The type of a value: always a tensor.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor: Option<TensorType>,
}

/// Element type and shape.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct TensorType {
    #[prost(int32, optional, tag = "1")]
    pub(super) element: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<ShapeProto>,
}

/// Axes.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) dim: Vec<Dim>,
}

/// A length, or a name for one that is not known.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Dim {
    #[prost(int64, optional, tag = "1")]
    pub(super) value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(super) name: Option<String>,
}

/// Element types, with the numbers of `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataType {
    Float = 1,
    Uint8 = 2,
    Int8 = 3,
    Uint16 = 4,
    Int32 = 6,
    Int64 = 7,
    Bool = 9,
    Float16 = 10,
    Bfloat16 = 16,
    Int4 = 22,
}

impl DataType {
    const ALL: [Self; 10] = [
        Self::Float,
        Self::Uint8,
        Self::Int8,
        Self::Uint16,
        Self::Int32,
        Self::Int64,
        Self::Bool,
        Self::Float16,
        Self::Bfloat16,
        Self::Int4,
    ];

    /// The number in files.
    pub(super) fn id(self) -> i32 {
        self as i32
    }

    /// The type of a number.
    pub(super) fn of(id: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.id() == id)
    }

    /// The type of codes of so many bits.
    pub(super) fn of_codes(bits: u32) -> Self {
        if bits == 4 { Self::Int4 } else { Self::Int8 }
    }

    /// Bits of an element.
    fn bits(self) -> usize {
        match self {
            Self::Float | Self::Int32 => 32,
            Self::Uint8 | Self::Int8 | Self::Bool => 8,
            Self::Uint16 | Self::Float16 | Self::Bfloat16 => 16,
            Self::Int64 => 64,
            Self::Int4 => 4,
        }
    }

    /// Bytes of a tensor; `None` when they cannot be counted. int4 codes go two to a byte over the
    /// whole tensor.
    pub(super) fn bytes(self, shape: &[usize]) -> Option<usize> {
        let count = shape.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim))?;
        Some(count.checked_mul(self.bits())?.div_ceil(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, after the encoding's description: field numbers, wire types, lengths.
    #[test]
    fn bytes_of_a_node_and_a_tensor() {
        let node = NodeProto {
            input: vec!["a".into(), "b".into()],
            output: vec!["c".into()],
            name: None,
            op_type: Some("Add".into()),
            attribute: vec![AttributeProto::int("k", 0)],
            domain: None,
        };
        let want = b"\x0a\x01a\x0a\x01b\x12\x01c\x22\x03Add\x2a\x08\x0a\x01k\x18\x00\xa0\x01\x02";
        assert_eq!(node.encode_to_vec(), want);
        let tensor = TensorProto {
            dims: vec![2, 3],
            data_type: Some(DataType::Int8.id()),
            name: Some("w".into()),
            ..TensorProto::default()
        };
        assert_eq!(tensor.encode_to_vec(), b"\x08\x02\x08\x03\x10\x03\x42\x01w");
        // Readers may pack repeated numbers.
        let packed = b"\x0a\x02\x02\x03\x10\x03\x42\x01w";
        assert_eq!(TensorProto::decode(packed.as_slice()).unwrap(), tensor);
    }

    #[test]
    fn bytes_of_tensors_are_counted_or_refused() {
        assert_eq!(DataType::Int4.bytes(&[3, 3]), Some(5));
        assert_eq!(DataType::Float.bytes(&[]), Some(4));
        assert_eq!(DataType::Float.bytes(&[usize::MAX, 2]), None);
        assert_eq!(DataType::Int64.bytes(&[usize::MAX]), None);
        assert!(DataType::ALL.iter().all(|it| DataType::of(it.id()) == Some(*it)));
    }
}
