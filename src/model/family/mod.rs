//! Model families as data. Add one: one file here and one line in [`FAMILIES`].
use super::{
    config::{Config, ConfigError, unfit},
    kv_cache::read_kv_cache,
    ops::{Activation, Op},
    role::Role,
    rope::{Rope, RopeScaling},
    space::{Axis, Expert, Space},
    spec::{Block, Mlp, ModelSpec, Part, TensorSpec},
    transformed::{TRANSFORM_KEY, Transformed},
};
use crate::{
    linalg::Hadamard,
    tensor::{FloatType, round_to},
};
use serde_json::Value;

mod complete;
mod extra;
mod gemma3;
mod joined;
mod llama;
mod mimo;
mod mistral;
mod mixtral;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod resize;
mod rules;
mod window;

pub use complete::complete;
pub use extra::{NextLayer, NextLayerError, without_extra_layers};
use rules::{Defaults, ExpertRule, ExtraLayers, LocalRope, Switch};
use window::WindowRule;

pub use joined::Joined;

/// The matrix of a head that is not tied.
pub const HEAD: &str = "lm_head.weight";

/// What sets a family apart.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Short name, e.g. `llama`.
    pub name: &'static str,
    /// `architectures[0]` in `config.json`.
    pub architecture: &'static str,
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// What keys of `config.json` mean that are absent.
    defaults: Defaults,
    /// Biases of the query, key and value projections.
    qkv_bias: Switch,
    /// Bias of the output projection of attention.
    o_bias: Switch,
    /// Biases of the MLP.
    mlp_bias: Switch,
    /// What the first half of a block computes.
    attention: &'static [Op],
    /// What the second half computes, where it is no mixture of experts.
    mlp: &'static [Op],
    /// Names of the norms over the residual stream inside a block.
    norms: &'static [(Role, &'static str)],
    /// Key of the activation that opens gates.
    activation_key: &'static str,
    /// Key of the width whose root attention scores are divided by, and its default; `None`: that of a head.
    score_width: Option<(&'static str, usize)>,
    /// Added to stored norm gains.
    gain_offset: f32,
    /// Rows of the embedding are multiplied by the root of the hidden size.
    scales_embedding: bool,
    /// Blocks that see a window turn by a base of their own.
    local_rope: Option<LocalRope>,
    /// Keys of what is not followed.
    refused: &'static [&'static str],
    /// Which blocks see a window only; `None` where `sliding_window` is ignored.
    window: Option<WindowRule>,
    /// Names and rules of a mixture of experts.
    experts: Option<ExpertRule>,
    /// Layers for multi-token prediction, which the main path does not use.
    extra_layers: Option<ExtraLayers>,
}

/// Every family.
pub const FAMILIES: &[Family] = &[
    llama::FAMILY,
    mistral::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    mimo::FAMILY,
    mixtral::FAMILY,
    qwen2_moe::FAMILY,
    qwen3_moe::FAMILY,
    gemma3::FAMILY,
];

/// Bounds on what a `config.json` from a stranger may make this program list.
const MAX_BLOCKS: usize = 1024;
const MAX_EXPERTS: usize = 1024;

/// Key of the width of a shared expert.
const SHARED_WIDTH: &str = "shared_expert_intermediate_size";

/// Names of the supported architectures.
pub fn supported() -> Vec<&'static str> {
    FAMILIES.iter().map(|f| f.architecture).collect()
}

impl ModelSpec {
    /// The architecture that a `config.json` describes.
    pub fn from_config(config: &Value) -> Result<Self, ConfigError> {
        let (family, config) = complete(config)?;
        family.spec(Config(&config))
    }
}

/// The number of blocks.
fn blocks(config: Config<'_>) -> Result<usize, ConfigError> {
    let key = "num_hidden_layers";
    match config.size(key)? {
        layers if layers > MAX_BLOCKS => {
            Err(unfit(key, format!("at most {MAX_BLOCKS}"), &layers.into()))
        }
        layers => Ok(layers),
    }
}

impl Family {
    fn spec(&self, config: Config<'_>) -> Result<ModelSpec, ConfigError> {
        let layers = blocks(config)?;
        let sizes: Vec<Block> =
            (0..layers).map(|b| self.block(config, b)).collect::<Result<_, _>>()?;
        let rope = Rope::parse(config, sizes[0].head_dim)?;
        if let Some(kept) = &rope.kept {
            let found: Vec<usize> = kept.pairs.iter().map(Vec::len).collect();
            let expected: Vec<usize> = sizes.iter().map(|b| b.kv_heads).collect();
            if found != expected {
                let expected = format!("one list per key/value head of each block: {expected:?}");
                return Err(unfit("pairs", expected, &found.into()));
            }
        }
        let mut spec = ModelSpec::empty(self.name, sizes, rope);
        spec.hidden = config.size("hidden_size")?;
        spec.vocab = config.size("vocab_size")?;
        spec.tied = config.flag("tie_word_embeddings", false)?;
        spec.norm_eps = config.number("rms_norm_eps", 1e-6)? as f32;
        spec.gain_offset = self.gain_offset;
        if self.scales_embedding {
            spec.embed_scale = embed_scale(config, spec.hidden);
        }
        if let Some((key, theta)) = self.local_rope {
            let (theta, scaling) = (config.number(key, theta)?, RopeScaling::Default);
            let max_positions = spec.rope.max_positions;
            spec.local_rope = Some(Rope { theta, max_positions, scaling, kept: None });
        }
        spec.max_positions = spec.rope.max_positions;
        spec.transformed = Transformed::read(config)?;
        spec.kv_cache = read_kv_cache(config)?;
        check_online(&spec)?;
        let tensors = self.tensors(config, &spec)?;
        Ok(spec.with_tensors(tensors))
    }

    fn block(&self, config: Config<'_>, b: usize) -> Result<Block, ConfigError> {
        let heads = config.block_size("num_attention_heads", b)?;
        let kv_heads =
            config.block_size_or("num_key_value_heads", b, Some(heads))?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {heads}");
            return Err(unfit("num_key_value_heads", expected, &kv_heads.into()));
        }
        if config.get("num_attention_heads").is_some_and(Value::is_array) {
            config.size("head_dim")?; // heads of all blocks have one width: it must be said
        }
        let even = config.size("hidden_size")? / heads;
        let head_dim = config.size_or("head_dim", Some(even.max(1)))?.unwrap_or(even);
        if !head_dim.is_multiple_of(2) {
            return Err(unfit("head_dim", "an even number", &head_dim.into()));
        }
        let mlp = self.mlp(config, b)?;
        let ops = [self.attend(config)?, self.feed_forward(&mlp)];
        let window = self.window.map_or(Ok(None), |rule| rule.read(config, b))?;
        Ok(Block { heads, kv_heads, head_dim, window, mlp, ops })
    }

    fn mlp(&self, config: Config<'_>, b: usize) -> Result<Mlp, ConfigError> {
        let dense = || Ok(Mlp::Dense { width: config.block_size("intermediate_size", b)? });
        let Some(rule) = self.experts else { return dense() };
        if !rule.is_sparse(config, b)? {
            return dense();
        }
        let count = config.size(rule.count)?;
        if count > MAX_EXPERTS {
            return Err(unfit(rule.count, format!("at most {MAX_EXPERTS}"), &count.into()));
        }
        let per_token = config.size("num_experts_per_tok")?;
        if per_token > count {
            let expected = format!("at most the {count} experts");
            return Err(unfit("num_experts_per_tok", expected, &per_token.into()));
        }
        let shared = match rule.shared {
            Some(_) => Some(config.block_size(SHARED_WIDTH, b)?),
            None => None,
        };
        let (width, normalize) = (config.block_size(rule.width, b)?, rule.normalize.read(config)?);
        Ok(Mlp::Experts { count, per_token, width, shared, normalize })
    }

    /// The first half's ops.
    fn attend(&self, config: Config<'_>) -> Result<Vec<Op>, ConfigError> {
        let width = self.score_width.map(|(key, width)| config.size_or(key, Some(width)));
        let width = width.transpose()?.flatten();
        let scaled = |op: &Op| match op {
            Op::Attend { .. } => Op::Attend { width },
            op => *op,
        };
        Ok(self.attention.iter().map(scaled).collect())
    }

    /// The second half's ops: experts gate and go down each for themselves.
    fn feed_forward(&self, mlp: &Mlp) -> Vec<Op> {
        let mixed = |op: &Op| match op {
            Op::Gate(activation) => Some(Op::Experts(*activation)),
            Op::Linear(Role::Down) => None,
            op => Some(*op),
        };
        match mlp {
            Mlp::Dense { .. } => self.mlp.to_vec(),
            Mlp::Experts { .. } => self.mlp.iter().filter_map(mixed).collect(),
        }
    }

    /// Tensors in the order in which they are needed.
    fn tensors(
        &self,
        config: Config<'_>,
        spec: &ModelSpec,
    ) -> Result<Vec<TensorSpec>, ConfigError> {
        let [qkv, o, mlp] =
            [self.qkv_bias.read(config)?, self.o_bias.read(config)?, self.mlp_bias.read(config)?];
        let residual = Axis::of(Space::Residual);
        let vocab = Axis::of(Space::Vocab);
        let mut list = List::default();
        list.linear("model.embed_tokens", Role::Embed, vocab, residual, false);
        for (b, block) in spec.blocks.iter().enumerate() {
            list.block = Some(b);
            let all = |space| Axis { space, repeat: block.kv_repeat() };
            let (qk, v) = (Space::AttnQk(b), Space::AttnV(b));
            let at = |name: &str| format!("model.layers.{b}.{name}");
            for op in block.ops.iter().flatten() {
                match *op {
                    Op::Norm(role) => {
                        let name = self.norms.iter().find(|(known, _)| *known == role);
                        list.gain(&at(name.map_or(role.name(), |it| it.1)), role, residual);
                    }
                    Op::Heads => {
                        list.linear(&at("self_attn.q_proj"), Role::Q, all(qk), residual, qkv);
                        list.linear(&at("self_attn.k_proj"), Role::K, Axis::of(qk), residual, qkv);
                        list.linear(&at("self_attn.v_proj"), Role::V, Axis::of(v), residual, qkv);
                    }
                    Op::HeadNorms => {
                        let head = Axis::of(Space::QkHead(b));
                        list.gain(&at("self_attn.q_norm"), Role::QNorm, head);
                        list.gain(&at("self_attn.k_norm"), Role::KNorm, head);
                    }
                    Op::Linear(Role::O) => {
                        list.linear(&at("self_attn.o_proj"), Role::O, residual, all(v), o);
                    }
                    Op::Gate(_) => {
                        let names = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"].map(at);
                        list.gated(names.each_ref().map(String::as_str), mlp);
                    }
                    Op::Experts(_) => list.experts(self.experts.as_ref(), b, &block.mlp),
                    // What they need is that of the op before, or nothing.
                    Op::Turn | Op::Attend { .. } | Op::Linear(_) => {}
                }
            }
        }
        list.block = None;
        list.gain("model.norm", Role::FinalNorm, residual);
        if spec.has_head_correction() {
            list.linear("model.norm.correction", Role::HeadInput, residual, residual, false);
        }
        if !spec.tied {
            list.linear("lm_head", Role::Head, vocab, residual, false);
        }
        Ok(list.tensors)
    }
}

/// `√hidden` in the checkpoint's float format, as transformers rounds it.
fn embed_scale(config: Config<'_>, hidden: usize) -> f32 {
    let name = config.get("dtype").or_else(|| config.get("torch_dtype")).and_then(Value::as_str);
    let float =
        [FloatType::Bf16, FloatType::F16].into_iter().find(|it| name == Some(it.config_name()));
    round_to(float.unwrap_or(FloatType::F32), (hidden as f64).sqrt() as f32)
}

/// Online rotations have an order that can be made.
fn check_online(spec: &ModelSpec) -> Result<(), ConfigError> {
    let Some(transformed) = &spec.transformed else { return Ok(()) };
    for block in &spec.blocks {
        let widths = match &block.mlp {
            Mlp::Dense { width } => vec![*width],
            Mlp::Experts { width, shared, .. } => vec![*width, shared.unwrap_or(*width)],
        };
        let down = widths.into_iter().filter(|_| transformed.down_input);
        let keys = transformed.keys.then_some(block.head_dim);
        if let Some(width) = down.chain(keys).find(|width| !Hadamard::exists(*width)) {
            return Err(unfit(TRANSFORM_KEY, "widths of Hadamard matrices", &width.into()));
        }
    }
    Ok(())
}

/// Tensors in the making.
#[derive(Default)]
struct List {
    tensors: Vec<TensorSpec>,
    block: Option<usize>,
    expert: Option<Expert>,
}

impl List {
    fn push(&mut self, name: String, role: Role, part: Part, output: Axis, input: Option<Axis>) {
        let reads = match role {
            Role::Q | Role::K | Role::V => Some(Role::AttnNorm),
            Role::Gate | Role::Up | Role::Router | Role::SharedGate => Some(Role::MlpNorm),
            Role::Head => Some(Role::FinalNorm),
            _ => None,
        };
        let (block, expert) = (self.block, self.expert);
        self.tensors.push(TensorSpec { name, role, part, block, expert, output, input, reads });
    }

    fn linear(&mut self, module: &str, role: Role, output: Axis, input: Axis, bias: bool) {
        self.push(format!("{module}.weight"), role, Part::Weight, output, Some(input));
        if bias {
            self.push(format!("{module}.bias"), role, Part::Bias, output, None);
        }
    }

    fn gain(&mut self, module: &str, role: Role, output: Axis) {
        self.push(format!("{module}.weight"), role, Part::Weight, output, None);
    }

    fn gated(&mut self, [gate, up, down]: [&str; 3], bias: bool) {
        let residual = Axis::of(Space::Residual);
        let hidden = Axis::of(Space::Mlp(self.block.unwrap_or(0), self.expert));
        self.linear(gate, Role::Gate, hidden, residual, bias);
        self.linear(up, Role::Up, hidden, residual, bias);
        self.linear(down, Role::Down, residual, hidden, bias);
    }

    fn experts(&mut self, rule: Option<&ExpertRule>, b: usize, mlp: &Mlp) {
        let (Some(rule), Mlp::Experts { count, shared, .. }) = (rule, mlp) else { return };
        let residual = Axis::of(Space::Residual);
        let at = |name: &str| format!("model.layers.{b}.{name}");
        self.linear(&at(rule.router), Role::Router, Axis::of(Space::Experts(b)), residual, false);
        for e in 0..*count {
            self.expert = Some(Expert::Routed(e));
            let name = |form: &str| at(&form.replace("{}", &e.to_string()));
            self.gated([&name(rule.gate), &name(rule.up), &name(rule.down)], false);
        }
        if let (Some(_), Some((module, gate))) = (shared, rule.shared) {
            self.expert = Some(Expert::Shared);
            let name = |leaf: &str| at(&format!("{module}.{leaf}"));
            self.gated([&name("gate_proj"), &name("up_proj"), &name("down_proj")], false);
            self.expert = None;
            self.linear(&at(gate), Role::SharedGate, Axis::of(Space::One), residual, false);
        }
        self.expert = None;
    }
}
