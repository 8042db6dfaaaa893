//! Heads for Medusa decoding, in a folder of their own: vLLM's layout, or that of Medusa's authors.
//!
//! vLLM: `blocks.{i}.layers.{j}.weight` and `.bias`, `lm_heads.{i}.weight`, and perhaps `token_map`, the ids
//! that the rows of truncated heads stand for. The authors': `{i}.{j}.linear.weight` and `.bias`, behind
//! the layers of a head `{i}.{L}.weight`. How many heads there are is what the tensors say: published
//! configs are wrong about it.
use crate::{
    checkpoint::{CheckpointError, Folder, INDEX_FILE, WEIGHTS_FILE, parse_safetensors},
    tensor::{Dtype, RawTensor},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// The weights of the authors' layout.
const OFFICIAL_FILE: &str = "medusa_lm_head.safetensors";
/// The same as a program of Python's, which is not read.
const PICKLED: [&str; 2] = ["medusa_lm_head.pt", "pytorch_model.bin"];
/// Heads, and layers of one, at most.
const MOST: usize = 64;

/// Heads that guess tokens behind the next one.
#[derive(Clone, Debug)]
pub struct MedusaHeads {
    /// Head `i` guesses the token `i + 2` places behind that whose state it sees.
    pub heads: Vec<MedusaHead>,
    /// The ids that the rows of matrices of so many rows stand for, fewer than all; all others stand for
    /// themselves.
    pub token_map: Option<Vec<u32>>,
}

/// A head: `x ← x + silu(W·x + b)` for each layer, then a matrix of the vocabulary.
#[derive(Clone, Debug)]
pub struct MedusaHead {
    /// Weights `[hidden, hidden]` and biases `[hidden]`.
    pub layers: Vec<(RawTensor, Option<RawTensor>)>,
    /// The matrix `[rows, hidden]`; `None`: that of the model's own head.
    pub matrix: Option<RawTensor>,
}

/// Heads that cannot be used with a model.
#[derive(Debug, thiserror::Error)]
pub enum MedusaError {
    /// The folder cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Weights as a pickle.
    #[error(
        "`{folder}`: `{file}` is a Python pickle, which is not read\n\
         hint: save its state dict with safetensors as {OFFICIAL_FILE}"
    )]
    Pickle {
        /// The folder.
        folder: String,
        /// The file.
        file: &'static str,
    },
    /// Not a tensor of heads, or of too many.
    #[error(
        "`{folder}`: tensor `{name}` belongs to no Medusa head\n\
         hint: expected `blocks.I.layers.J.weight` and `lm_heads.I.weight`, as vLLM reads them, or \
         `I.J.linear.weight` and `I.J.weight`, I and J below {MOST}"
    )]
    Unknown {
        /// The folder.
        folder: String,
        /// The tensor.
        name: String,
    },
    /// A tensor that the others ask for.
    #[error("`{folder}`: tensor `{name}` is missing\nhint: {hint}")]
    Missing {
        /// The folder.
        folder: String,
        /// The tensor.
        name: String,
        /// What to do.
        hint: &'static str,
    },
    /// A tensor of another shape or type than the model asks for.
    #[error(
        "`{folder}`: tensor `{name}`: expected {expected}, found {found}\n\
         hint: heads belong to the model that they were trained on; give those of this one"
    )]
    Unfit {
        /// The folder.
        folder: String,
        /// The tensor.
        name: String,
        /// What the model asks for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A key of `config.json` that the model contradicts.
    #[error(
        "`{folder}`: config.json: `{key}`: expected {expected}, as the model has it, found {found}\n\
         hint: heads belong to the model that they were trained on; give those of this one"
    )]
    Config {
        /// The folder.
        folder: String,
        /// The key.
        key: &'static str,
        /// Of the model.
        expected: usize,
        /// Of the heads.
        found: Value,
    },
}

const WHOLE: &str = "fetch the folder again; every head has its layers, from 0 on, and a matrix";
const NO_BIAS: &str = "config.json says `medusa_fc_bias`: set it to false if layers have none";
const NO_MATRIX: &str = "if the heads share the matrix of the model's own, say \
                         `\"original_lm_head\": true` in their config.json";

impl MedusaHeads {
    /// Reads the heads of a folder, for a model of a hidden size and a vocabulary.
    pub fn open(name: &str, sizes: (usize, usize)) -> Result<Self, MedusaError> {
        let folder = Folder::open(name)?;
        let config = folder.json("config.json")?.unwrap_or(Value::Null);
        let tensors = canonical(&folder, stored(&folder)?)?;
        let found = Found { folder: name, config, tensors, sizes };
        found.check_config()?;
        found.heads()
    }
}

/// The tensors of a folder.
fn stored(folder: &Folder) -> Result<BTreeMap<String, RawTensor>, MedusaError> {
    let names = folder.list()?;
    let has = |file: &&str| names.iter().any(|name| name == file);
    if ![WEIGHTS_FILE, INDEX_FILE].iter().any(&has) {
        if let Some(bytes) = folder.read(OFFICIAL_FILE)? {
            folder.refuse_pointer(OFFICIAL_FILE, &bytes)?;
            return Ok(parse_safetensors(&bytes).map_err(|source| CheckpointError::Header {
                file: folder.file_name(OFFICIAL_FILE),
                source: source.into(),
            })?);
        }
        if let Some(file) = PICKLED.into_iter().find(|file| has(file)) {
            return Err(MedusaError::Pickle { folder: folder.name().to_owned(), file });
        }
    }
    Ok(folder.tensors()?.raw)
}

/// Where a tensor belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Weight(usize, usize),
    Bias(usize, usize),
    Matrix(usize),
    /// Behind so many layers.
    Behind(usize, usize),
    Shared,
    TokenMap,
}

impl Place {
    fn of(name: &str) -> Option<Self> {
        let number = |text: &str| text.parse().ok().filter(|it| *it < MOST);
        let parts: Vec<&str> = name.trim_start_matches("medusa_heads.").split('.').collect();
        Some(match parts.as_slice() {
            ["blocks", i, "layers", j, "weight"] | [i, j, "linear", "weight"] => {
                Self::Weight(number(i)?, number(j)?)
            }
            ["blocks", i, "layers", j, "bias"] | [i, j, "linear", "bias"] => {
                Self::Bias(number(i)?, number(j)?)
            }
            ["lm_heads", i, "weight"] => Self::Matrix(number(i)?),
            [i, j, "weight"] => Self::Behind(number(i)?, number(j)?),
            ["lm_head", "weight"] => Self::Shared,
            ["token_map"] => Self::TokenMap,
            _ => return None,
        })
    }

    /// The name that vLLM has for it.
    fn name(self) -> String {
        match self {
            Self::Weight(i, j) => format!("blocks.{i}.layers.{j}.weight"),
            Self::Bias(i, j) => format!("blocks.{i}.layers.{j}.bias"),
            Self::Matrix(i) => format!("lm_heads.{i}.weight"),
            Self::Behind(i, j) => format!("{i}.{j}.weight"),
            Self::Shared => "lm_head.weight".to_owned(),
            Self::TokenMap => "token_map".to_owned(),
        }
    }
}

/// Tensors by their places, with the names that they have in the file.
type Placed = BTreeMap<Place, (String, RawTensor)>;

fn canonical(folder: &Folder, tensors: BTreeMap<String, RawTensor>) -> Result<Placed, MedusaError> {
    let mut placed = Placed::new();
    for (name, tensor) in tensors {
        let unknown = |name| MedusaError::Unknown { folder: folder.name().to_owned(), name };
        let Some(place) = Place::of(&name) else { return Err(unknown(name)) };
        if let Some((other, _)) = placed.insert(place, (name, tensor)) {
            return Err(unknown(other));
        }
    }
    // The authors' matrix lies behind the layers of its head.
    let behind: Vec<Place> =
        placed.keys().copied().filter(|it| matches!(it, Place::Behind(..))).collect();
    for place in behind {
        let Place::Behind(i, j) = place else { continue };
        let last = j == 0 || placed.contains_key(&Place::Weight(i, j - 1));
        let (name, tensor) = placed.remove(&place).expect("it was listed");
        if !last || placed.contains_key(&Place::Weight(i, j)) {
            return Err(MedusaError::Unknown { folder: folder.name().to_owned(), name });
        }
        placed.insert(Place::Matrix(i), (name, tensor));
    }
    Ok(placed)
}

/// What a folder holds.
struct Found<'a> {
    folder: &'a str,
    config: Value,
    tensors: Placed,
    /// Of the model: hidden size, vocabulary.
    sizes: (usize, usize),
}

impl Found<'_> {
    fn says(&self, key: &str) -> bool {
        self.config.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    fn check_config(&self) -> Result<(), MedusaError> {
        for (key, expected) in [("hidden_size", self.sizes.0), ("vocab_size", self.sizes.1)] {
            match self.config.get(key) {
                Some(found) if found.as_u64() != Some(expected as u64) => {
                    let (folder, found) = (self.folder.to_owned(), found.clone());
                    return Err(MedusaError::Config { folder, key, expected, found });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn heads(&self) -> Result<MedusaHeads, MedusaError> {
        let (hidden, vocab) = self.sizes;
        let token_map = self.token_map()?;
        let rows = token_map.as_ref().map_or(vocab, Vec::len);
        // How many heads there are, and layers of each.
        let (mut count, mut depth) = (1, 1);
        for place in self.tensors.keys() {
            match place {
                Place::Weight(i, j) | Place::Bias(i, j) => {
                    (count, depth) = (count.max(i + 1), depth.max(j + 1));
                }
                Place::Matrix(i) => count = count.max(i + 1),
                Place::Behind(..) | Place::Shared | Place::TokenMap => {}
            }
        }
        let shared = self.says("original_lm_head");
        let head = |i| {
            let layers = (0..depth).map(|j| self.layer(i, j)).collect::<Result<_, _>>()?;
            Ok(MedusaHead { layers, matrix: self.matrix((i, shared), (rows, vocab), hidden)? })
        };
        let heads: Vec<MedusaHead> = (0..count).map(head).collect::<Result<_, MedusaError>>()?;
        Ok(MedusaHeads { heads, token_map })
    }

    fn layer(&self, i: usize, j: usize) -> Result<(RawTensor, Option<RawTensor>), MedusaError> {
        let (hidden, _) = self.sizes;
        let weight = self.get(Place::Weight(i, j), &[&[hidden, hidden]])?;
        let bias = self.get(Place::Bias(i, j), &[&[hidden]])?;
        if bias.is_none() && self.says("medusa_fc_bias") {
            return Err(self.missing(Place::Bias(i, j), NO_BIAS));
        }
        Ok((weight.ok_or_else(|| self.missing(Place::Weight(i, j), WHOLE))?, bias))
    }

    /// The matrix of a head, its own or the one for all.
    fn matrix(
        &self,
        (i, shared): (usize, bool),
        (rows, vocab): (usize, usize),
        hidden: usize,
    ) -> Result<Option<RawTensor>, MedusaError> {
        let shapes = [[rows, hidden], [vocab, hidden]];
        let shapes = shapes.each_ref().map(<[usize; 2]>::as_slice);
        let places = [Place::Matrix(i), Place::Shared, Place::Matrix(0)];
        let places = if shared { &places[..] } else { &places[..1] };
        for place in places {
            if let Some(matrix) = self.get(*place, &shapes)? {
                return Ok(Some(matrix));
            }
        }
        if shared { Ok(None) } else { Err(self.missing(Place::Matrix(i), NO_MATRIX)) }
    }

    /// A float tensor of one of some shapes, if it is there.
    fn get(&self, place: Place, shapes: &[&[usize]]) -> Result<Option<RawTensor>, MedusaError> {
        let Some((name, tensor)) = self.tensors.get(&place) else { return Ok(None) };
        if tensor.float_type().is_none() {
            let found = format!("{:?}", tensor.dtype);
            return Err(self.unfit(name, "F32, F16 or BF16".to_owned(), found));
        }
        if shapes.contains(&tensor.shape.as_slice()) {
            return Ok(Some(tensor.clone()));
        }
        Err(self.unfit(name, format!("the shape {:?}", shapes[0]), format!("{:?}", tensor.shape)))
    }

    /// The ids of truncated matrices: each below the vocabulary, none twice.
    fn token_map(&self) -> Result<Option<Vec<u32>>, MedusaError> {
        let Some((name, tensor)) = self.tensors.get(&Place::TokenMap) else { return Ok(None) };
        let ids: Vec<i64> = match tensor.dtype {
            Dtype::I64 => {
                tensor.bytes.as_chunks::<8>().0.iter().map(|it| i64::from_le_bytes(*it)).collect()
            }
            Dtype::I32 => {
                let ids = tensor.bytes.as_chunks::<4>().0.iter();
                ids.map(|it| i32::from_le_bytes(*it).into()).collect()
            }
            _ => {
                let found = format!("{:?}", tensor.dtype);
                return Err(self.unfit(name, "I64 or I32".to_owned(), found));
            }
        };
        let mut seen = vec![false; self.sizes.1];
        for id in &ids {
            let place = usize::try_from(*id).ok().and_then(|id| seen.get_mut(id));
            if place.is_none_or(|seen| std::mem::replace(seen, true)) {
                let expected = format!("ids below {}, each once", self.sizes.1);
                return Err(self.unfit(name, expected, id.to_string()));
            }
        }
        let ids = ids.into_iter().map(|id| id as u32).collect::<Vec<_>>();
        Ok(Some(ids).filter(|ids| ids.len() < self.sizes.1))
    }

    fn missing(&self, place: Place, hint: &'static str) -> MedusaError {
        MedusaError::Missing { folder: self.folder.to_owned(), name: place.name(), hint }
    }

    fn unfit(&self, name: &str, expected: String, found: String) -> MedusaError {
        MedusaError::Unfit {
            folder: self.folder.to_owned(),
            name: name.to_owned(),
            expected,
            found,
        }
    }
}
