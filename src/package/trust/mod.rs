//! What a package rests on: the manifest with the hash of every file, tensor and weight's values, and
//! what is made of it: checks, signatures, a bill of materials, a card.
mod card;
mod deep;
mod manifest;
mod sbom;
mod seal;
mod sign;
mod source;
mod values;
mod verify;

pub use manifest::{Exported, MANIFEST_FILE, Manifest, QuantizedTensor, SCHEMA, Source, Tool};
pub use sbom::sbom;
pub use sign::{SIGNATURE_FILE, check_signature, new_keys, sign};
pub use verify::{Problem, Verification};

pub(super) use card::{CARD_FILE, SOURCE_CARD, card};
pub(super) use deep::{decode, other_values};
pub(super) use manifest::quantized_tensors;
pub(super) use seal::{Contents, seal};
pub(super) use values::{RowHash, row_hash, values_hash, weight_hash};
pub(super) use verify::{Compared, by_manifest, hash};
