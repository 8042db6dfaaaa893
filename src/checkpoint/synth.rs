//! Random checkpoints of named shapes, for capacity and speed work.
//!
//! The shapes are this project's own: those of the MiLM models are not published. Add one: one
//! line in [`SHAPES`].
use super::{BUILTINS, Builtin, CheckpointError, OutputDir, ShardWriter, TensorPlan};
use crate::{
    linalg::Team,
    model::{ConfigError, ModelSpec, Part, TensorSpec},
    progress::{Progress, Unit},
    tensor::FloatType,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Sizes of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What `--shape` takes.
    pub name: &'static str,
    /// Decoder layers.
    pub blocks: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Hidden units of the MLP, or of each expert.
    pub inner: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// The head multiplies by the embedding.
    pub tied: bool,
    /// Experts, of which two see a token; 0 for a dense model.
    pub experts: usize,
}

const SMALL: Shape = Shape {
    name: "tiny",
    blocks: 2,
    hidden: 128,
    heads: 4,
    kv_heads: 2,
    head_dim: 32,
    inner: 256,
    vocab: 512,
    tied: false,
    experts: 0,
};
const MILM2: Shape = Shape { head_dim: 128, vocab: 65536, ..SMALL };
const B07: Shape = Shape {
    name: "milm2-0.7b",
    blocks: 24,
    hidden: 1536,
    heads: 12,
    kv_heads: 4,
    inner: 4096,
    tied: true,
    ..MILM2
};
const B2: Shape = Shape {
    name: "milm2-2b",
    blocks: 32,
    hidden: 2304,
    heads: 18,
    kv_heads: 6,
    inner: 6144,
    tied: true,
    ..MILM2
};

/// Every shape, smallest first; mixtures of experts last. `tiny` shapes are for trying out.
#[rustfmt::skip]
pub const SHAPES: &[Shape] = &[
    SMALL,
    Shape { name: "milm2-0.3b", blocks: 24, hidden: 1024, heads: 16, kv_heads: 4, head_dim: 64, inner: 2816, tied: true, ..MILM2 },
    B07,
    Shape { name: "milm2-1.3b", blocks: 26, hidden: 2048, heads: 16, kv_heads: 4, inner: 5632, tied: true, ..MILM2 },
    B2,
    Shape { name: "milm2-4b", blocks: 36, hidden: 3072, heads: 24, kv_heads: 8, inner: 8192, ..MILM2 },
    Shape { name: "milm2-6b", blocks: 40, hidden: 3584, heads: 28, kv_heads: 28, inner: 9216, ..MILM2 },
    Shape { name: "milm2-13b", blocks: 40, hidden: 5120, heads: 40, kv_heads: 40, inner: 13824, ..MILM2 },
    Shape { name: "milm2-30b", blocks: 60, hidden: 6656, heads: 52, kv_heads: 13, inner: 18432, ..MILM2 },
    Shape { name: "tiny-x4", experts: 4, ..SMALL },
    Shape { name: "milm2-0.7b-x8", experts: 8, ..B07 },
    Shape { name: "milm2-2b-x8", experts: 8, ..B2 },
];

impl Shape {
    /// The shape of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        SHAPES.iter().find(|shape| shape.name == name)
    }

    /// Its `config.json`: Llama's form, or Mixtral's.
    pub fn config(&self, dtype: FloatType) -> Value {
        let dense = self.experts == 0;
        let mut config = json!({
            "architectures": [if dense { "LlamaForCausalLM" } else { "MixtralForCausalLM" }],
            "model_type": if dense { "llama" } else { "mixtral" },
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.blocks,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied,
            "torch_dtype": dtype.config_name(),
        });
        if !dense {
            config["num_local_experts"] = json!(self.experts);
            config["num_experts_per_tok"] = json!(2);
        }
        config
    }

    /// Its architecture.
    pub fn spec(&self) -> Result<ModelSpec, ConfigError> {
        ModelSpec::from_config(&self.config(FloatType::Bf16))
    }
}

/// Values that are made at a time.
const BAND: usize = 8 << 20;
/// Values that one thread makes at a time.
const PIECE: usize = 256 << 10;

/// What a random checkpoint is made with.
#[derive(Clone, Copy)]
pub struct Synth<'a> {
    /// Sizes.
    pub shape: &'a Shape,
    /// Element type.
    pub dtype: FloatType,
    /// Same seed, same bytes.
    pub seed: u64,
    /// Largest file.
    pub shard_bytes: u64,
    /// Threads.
    pub team: &'a Team,
    /// Told of the work.
    pub progress: &'a dyn Progress,
}

impl Synth<'_> {
    /// Writes config and weights: matrices and biases normally distributed with the standard
    /// deviation `1 / √columns` (0.02 for biases), gains 1. Each value is one of 65,536 equally
    /// likely quantiles, drawn by `ChaCha8` with one stream per tensor; none lies beyond 4.4 σ.
    pub fn write(&self, spec: &ModelSpec, output: &OutputDir) -> Result<(), CheckpointError> {
        let config = format!("{:#}\n", self.shape.config(self.dtype));
        output.write("config.json", config.as_bytes())?;
        self.tokenizer(output)?;
        let mut tensors: Vec<_> = spec.tensors.iter().collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let plan = |it: &&_| {
            let tensor: &TensorSpec = it;
            let (name, shape) = (tensor.name.clone(), spec.shape(tensor));
            TensorPlan { name, dtype: self.dtype.dtype(), shape }
        };
        let plans: Vec<TensorPlan> = tensors.iter().map(plan).collect();
        self.progress.start("synth", plans.iter().map(TensorPlan::bytes).sum(), Unit::Bytes);
        let written = self.tensors(&tensors, &plans, output);
        self.progress.finish();
        written
    }

    /// The tokenizer of a carried checkpoint, the first whose tokens the vocabulary has room for.
    fn tokenizer(&self, output: &OutputDir) -> Result<(), CheckpointError> {
        let fits = |it: &&Builtin| {
            it.file("config.json").is_some_and(|bytes| {
                let config = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
                config["vocab_size"].as_u64().is_some_and(|vocab| vocab <= self.shape.vocab as u64)
            })
        };
        let Some(carried) = BUILTINS.iter().find(fits) else { return Ok(()) };
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            if let Some(bytes) = carried.file(name) {
                output.write(name, bytes)?;
            }
        }
        Ok(())
    }

    fn tensors(
        &self,
        tensors: &[&TensorSpec],
        plans: &[TensorPlan],
        output: &OutputDir,
    ) -> Result<(), CheckpointError> {
        let mut writer = ShardWriter::create(output, plans.to_vec(), self.shard_bytes);
        let quantiles = quantiles();
        for (stream, (tensor, plan)) in tensors.iter().zip(plans).enumerate() {
            let deviation = match (tensor.part, plan.shape.get(1)) {
                (Part::Bias, _) => Some(0.02),
                (Part::Weight, Some(columns)) => Some(1.0 / (*columns as f32).sqrt()),
                (Part::Weight, None) => None,
            };
            self.tensor(plan, stream as u64, &self.table(&quantiles, deviation), &mut writer)?;
        }
        writer.finish()?;
        Ok(())
    }

    /// The encoded value of each quantile; gains, without a deviation, are all 1.
    fn table(&self, quantiles: &[f32], deviation: Option<f32>) -> Vec<u8> {
        let values: Vec<f32> =
            quantiles.iter().map(|z| deviation.map_or(1.0, |deviation| z * deviation)).collect();
        let mut bytes = Vec::new();
        self.dtype.encode(&values, &mut bytes);
        bytes
    }

    fn tensor(
        &self,
        plan: &TensorPlan,
        stream: u64,
        table: &[u8],
        writer: &mut ShardWriter,
    ) -> Result<(), CheckpointError> {
        let count = plan.shape.iter().product::<usize>();
        let size = self.dtype.size();
        for start in (0..count).step_by(BAND) {
            let band = BAND.min(count - start);
            let mut pieces = vec![Vec::new(); band.div_ceil(PIECE)];
            self.team.each(pieces.iter_mut().collect(), |i, piece| {
                let (first, values) = (start + i * PIECE, PIECE.min(band - i * PIECE));
                let mut random = ChaCha8Rng::seed_from_u64(self.seed);
                random.set_stream(stream);
                // Two values to a 32-bit word of the stream.
                random.set_word_pos((first / 2) as u128);
                let mut draws = vec![0; values * 2];
                random.fill_bytes(&mut draws);
                let at = |draw: &[u8; 2]| usize::from(u16::from_le_bytes(*draw)) * size;
                let draws = draws.as_chunks::<2>().0;
                piece.reserve_exact(values * size);
                if size == 2 {
                    piece.extend(draws.iter().flat_map(|d| [table[at(d)], table[at(d) + 1]]));
                } else {
                    piece.extend(draws.iter().flat_map(|d| &table[at(d)..at(d) + size]));
                }
            });
            for piece in pieces {
                self.progress.advance(piece.len() as u64);
                writer.write(&plan.name, piece)?;
            }
        }
        Ok(())
    }
}

/// The middle of each of 65,536 equally likely parts of the normal distribution.
fn quantiles() -> Vec<f32> {
    (0..1 << 16).map(|i| normal_quantile((f64::from(i) + 0.5) / 65536.0) as f32).collect()
}

/// The inverse of the normal distribution function to about 4e-4: rational approximation 26.2.23
/// of Abramowitz and Stegun, Handbook of Mathematical Functions.
fn normal_quantile(p: f64) -> f64 {
    let tail = p.min(1.0 - p);
    let t = (-2.0 * tail.ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let z = t - above / below;
    if p < 0.5 { -z } else { z }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_normal() {
        let z = quantiles();
        let moment = |power| z.iter().map(|z| f64::from(*z).powi(power)).sum::<f64>() / 65536.0;
        // The approximation errs by 4.5e-4 at most; the missing tails take less than 1e-3.
        assert!(moment(1).abs() < 1e-3 && (moment(2) - 1.0).abs() < 2e-3);
        assert!((moment(4) - 3.0).abs() < 2e-2, "{}", moment(4));
        assert!((normal_quantile(0.975) - 1.959_964).abs() < 4.5e-4);
    }

    #[test]
    fn shapes_are_as_large_as_their_names() {
        let billions =
            |name: &str| Shape::find(name).unwrap().spec().unwrap().parameters() as f64 / 1e9;
        for shape in SHAPES.iter().filter(|it| it.experts == 0 && it.name != "tiny") {
            let named: f64 = shape.name["milm2-".len()..shape.name.len() - 1].parse().unwrap();
            let real = billions(shape.name);
            assert!((real / named - 1.0).abs() < 0.15, "{}: {real}", shape.name);
        }
        // 40·(4·3584² + 3·3584·9216 + 2·3584) + 3584 + 2·65536·3584
        assert!((billions("milm2-6b") - 6.488_878_592).abs() < 1e-6, "{}", billions("milm2-6b"));
        assert!(billions("milm2-0.7b-x8") > 3.0 && billions("milm2-2b-x8") > 10.0);
    }
}
