//! The bytes of a GGUF file, version 3: the header as a whole, then tensors one after another.
use super::{
    parse::{DEFAULT_ALIGNMENT, MAGIC},
    value::{Value, write_text},
};
use crate::scheme::ggml::BlockFormat;

/// Version that is written.
const VERSION: u32 = 3;

/// Where tensors begin in files that are written: at multiples of this.
pub(in crate::package) const ALIGNMENT: usize = DEFAULT_ALIGNMENT as usize;

/// Metadata in the order of the file.
pub(super) type Pairs = Vec<(String, Value)>;

/// A tensor as the header lists it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Name in the file; ggml takes up to 63 bytes.
    pub(super) name: String,
    /// Shape, outermost axis first.
    pub(super) shape: Vec<usize>,
    /// Block format.
    pub(super) format: &'static dyn BlockFormat,
}

impl Entry {
    /// Bytes of its blocks, without padding.
    pub(super) fn bytes(&self) -> u64 {
        self.format.bytes(self.shape.iter().product()).unwrap_or(0) as u64
    }
}

/// Bytes between the end of something and the next multiple of the alignment.
pub(super) fn padding(length: u64) -> Vec<u8> {
    vec![0; (length.next_multiple_of(DEFAULT_ALIGNMENT) - length) as usize]
}

/// Everything before the first tensor. Tensors follow in this order, each padded to the
/// alignment: llama.cpp wants every offset to be the sum of what lies before.
pub(super) fn header(pairs: &Pairs, tensors: &[Entry]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        write_text(key, &mut out);
        value.write(&mut out);
    }
    let mut offset = 0_u64;
    for tensor in tensors {
        write_text(&tensor.name, &mut out);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        out.extend(tensor.shape.iter().rev().flat_map(|d| (*d as u64).to_le_bytes()));
        out.extend(tensor.format.id().to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset = (offset + tensor.bytes()).next_multiple_of(DEFAULT_ALIGNMENT);
    }
    out.extend(padding(out.len() as u64));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scheme::ggml::float_format, tensor::FloatType};

    /// By hand, after the format's description: a key, two tensors of 10 and 4 bytes.
    #[test]
    fn a_header_is_what_the_format_says() {
        let pairs = vec![("a.b".to_owned(), Value::Unsigned(7))];
        let entry = |name: &str, shape: &[usize], float| Entry {
            name: name.into(),
            shape: shape.into(),
            format: float_format(float),
        };
        let tensors = [entry("x", &[1, 5], FloatType::F16), entry("yz", &[1], FloatType::F32)];
        let mut want = b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
        want.extend(b"\x03\0\0\0\0\0\0\0a.b\x04\0\0\0\x07\0\0\0");
        want.extend(b"\x01\0\0\0\0\0\0\0x\x02\0\0\0");
        want.extend(b"\x05\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0");
        want.extend(b"\x02\0\0\0\0\0\0\0yz\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0");
        want.extend(b"\x20\0\0\0\0\0\0\0");
        want.resize(want.len().next_multiple_of(32), 0);
        assert_eq!(header(&pairs, &tensors), want);
        assert_eq!((padding(0).len(), padding(1).len(), padding(32).len()), (0, 31, 0));
    }
}
