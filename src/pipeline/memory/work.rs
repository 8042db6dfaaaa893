//! The moments of a quantization in some coordinates.
use super::{
    BF16, F32, F64, Footprint,
    live::{Live, Peak},
};
use crate::{
    eval,
    model::{Expert, Mlp, ModelSpec, Part, Role},
    pipeline::{
        sensitivity,
        trial::{TRIAL_BLOCKS, TRIAL_WINDOWS},
    },
    quantize::{Candidates, CodeChoice, Effort, RoundingTarget, STAGES},
    transform::{self, Transform},
};

/// Tokens of windows.
fn tokens(windows: &[usize]) -> u64 {
    windows.iter().map(|it| *it as u64).sum()
}

/// A tensor that is rotated: it in float64, and two transposes where its rows turn; then in float32,
/// twice.
fn turning(weights: u64, copies: u64) -> Live {
    Live::piece(weights * F64) * copies + Live::piece(weights * F32) * 2
}

/// The work in some coordinates.
pub(super) struct Work<'a> {
    of: &'a Footprint<'a>,
    spec: ModelSpec,
    turned: bool,
}

impl<'a> Work<'a> {
    pub(super) fn new(of: &'a Footprint<'a>, basis: &transform::Settings) -> Self {
        let spec = Transform::planned(basis, &of.model.spec);
        Self { of, spec, turned: !basis.is_identity() }
    }

    /// The residual stream of a model, a window a piece.
    fn stream(&self, windows: &[usize]) -> Live {
        let window = |tokens: &usize| Live::piece(BF16 * *tokens as u64 * self.spec.hidden as u64);
        windows.iter().map(window).sum()
    }

    /// The turned form of the tensors of a block, or of those outside of blocks.
    fn turned(&self, block: Option<usize>) -> Live {
        if self.turned { self.of.weights(block, F32) } else { Live::default() }
    }

    /// Everything outside of blocks: pages of the source, its turned form, its codes.
    fn ends(&self) -> Live {
        self.of.source(None) + self.turned(None) + self.of.codes(None)
    }

    /// Making them: turned in bands, then rounded.
    fn made(&self, peak: &mut Peak) {
        let (largest, ends) = (self.of.largest(None), self.ends());
        if self.turned {
            let band = largest.min((transform::BAND * self.spec.hidden) as u64);
            peak.pass(self.of.source(None) + self.turned(None) + turning(band, 1));
        }
        let rounding = Live::piece(largest * F32) + Live::piece(largest) * 2;
        peak.pass(ends + rounding);
    }

    /// A trial on the first blocks.
    pub(super) fn tried(&self, peak: &mut Peak) {
        self.made(peak);
        let windows = self.of.windows;
        let few = windows.len().div_ceil(2).min(TRIAL_WINDOWS) * 2;
        self.rounded(TRIAL_BLOCKS, &windows[..few.min(windows.len())], peak);
    }

    /// The whole work.
    pub(super) fn worked(&self, peak: &mut Peak) {
        let held = self.ends();
        // Codes of blocks: in files of the journal, or in memory.
        let mut codes = Live::pages(self.of.plan.bytes());
        if self.of.settings.has_budget() {
            self.sensitivity(peak);
        }
        self.made(peak);
        match self.of.settings.rounding() {
            CodeChoice::Adaptive => {
                let all = [self.of.windows, self.of.held_out].concat();
                self.rounded(self.spec.blocks.len(), &all, peak);
                if !self.of.held_out.is_empty() {
                    for heads in self.heads(eval::ROWS, 2) {
                        peak.pass(held + codes + self.stream(&all) * 2 + heads);
                    }
                }
            }
            CodeChoice::Nearest => {
                self.nearest(peak);
                codes = self.codes();
            }
        }
        if self.of.settings.preset == Effort::VendorStandard {
            self.ranges(peak);
        }
        peak.pass(held + codes + Live::piece(self.of.largest(None)) * 2);
    }

    /// The codes of all blocks.
    fn codes(&self) -> Live {
        (0..self.spec.blocks.len()).map(|b| self.of.codes(Some(b))).sum()
    }

    /// A block before it is changed: its source, its turned form.
    fn block(&self, block: usize) -> Live {
        self.of.source(Some(block)) + self.turned(Some(block))
    }

    /// A block in float32, and a tensor while it is put there.
    fn float(&self, block: usize) -> Live {
        self.of.weights(Some(block), F32) + Live::piece(self.of.largest(Some(block)) * F32)
    }

    /// What running a block takes besides weights: its buffers, a window's streams, its keys and
    /// values, the scores of a tile on each thread.
    fn window(&self, block: usize, windows: &[usize]) -> Live {
        let longest = windows.iter().max().copied().unwrap_or(0) as u64;
        let sizes = &self.spec.blocks[block];
        let (hidden, mixed) = (self.spec.hidden as u64, (sizes.heads * sizes.head_dim) as u64);
        let keys = 2 * (sizes.kv_heads * sizes.head_dim) as u64;
        let inner = match sizes.mlp {
            Mlp::Dense { width } => width,
            Mlp::Experts { width, shared, .. } => width.max(shared.unwrap_or(0)),
        };
        let matrix = |columns: u64| Live::piece(F32 * longest * columns);
        matrix(hidden) * 7
            + matrix(mixed) * 2
            + matrix(keys) * 2
            + matrix(inner as u64) * 3
            + matrix(64) * self.of.threads as u64
    }

    /// Rounding the first `count` blocks on both streams.
    fn rounded(&self, count: usize, windows: &[usize], peak: &mut Peak) {
        let stream = self.stream(windows);
        let common = self.ends() + stream * 2;
        for block in 0..count.min(self.spec.blocks.len()) {
            self.stages(block, windows, common, peak);
            // Streams are written to the journal in one piece each.
            let codes = self.of.codes(Some(block));
            let journal = Live::piece(stream.bytes()) * 2;
            peak.pass(common + self.block(block) + codes + journal);
        }
    }

    /// The stages of rounding a block.
    fn stages(&self, block: usize, windows: &[usize], common: Live, peak: &mut Peak) {
        let (of, settings) = (self.of, self.of.settings);
        let outputs = settings.target != RoundingTarget::Weights;
        let routed = matches!(self.spec.blocks[block].mlp, Mlp::Experts { .. });
        let all: u64 = of.tensors(Some(block)).map(|(_, it)| it.elements()).sum();
        let source: u64 = of.tensors(Some(block)).map(|(_, it)| it.source_bytes).sum();
        // Weights that are not rounded yet are multiplied as they are stored, or in float32.
        let plain = if self.turned || source >= all * F32 { F32 } else { 0 };
        let common = common + self.block(block) + self.float(block);
        let mut rounded = 0;
        for stage in STAGES {
            let layers: Vec<Layer> = of
                .tensors(Some(block))
                .filter(|(it, _)| it.part == Part::Weight && stage.roles.contains(&it.role))
                .map(|(it, planned)| Layer {
                    role: it.role,
                    expert: it.expert,
                    out: planned.shape[0] as u64,
                    columns: planned.shape[1] as u64,
                })
                .collect();
            let mixture = routed && matches!(stage.roles, [Role::Gate | Role::Down, ..]);
            let fits = outputs && !mixture;
            let inputs = layers.iter().filter(|it| it.role == stage.roles[0]);
            let sums = inputs.map(|Layer { columns, .. }| {
                let targets = if stage.writes() { self.spec.hidden as u64 } else { *columns };
                let cross = if fits { F32 * columns * targets } else { 0 };
                Live::piece(F32 * columns * columns) + Live::piece(cross)
            });
            let columns = layers.iter().map(|it| it.columns).max().unwrap_or(0);
            let inner = |tokens: &usize| Live::piece(BF16 * *tokens as u64 * columns);
            let inners: Live = if stage.writes() && !mixture {
                windows.iter().map(inner).sum()
            } else {
                Live::default()
            };
            let held = |rounded: u64| Live::small(rounded + plain * all.saturating_sub(rounded));
            let live = common + held(rounded) + sums.sum() + inners;
            let scratch = self.window(block, windows);
            peak.pass(live + scratch + solution(&layers, mixture, fits));
            let before = held(rounded);
            rounded += layers.iter().map(Layer::weights).sum::<u64>();
            if stage.writes() {
                // The block as it was is there until the stream has passed the rounded one.
                peak.pass(common + before + held(rounded) + inners + scratch);
            }
        }
    }

    /// Measuring logits: a head in float32 while it is unpacked, then heads and some rows of the
    /// logits of so many models.
    fn heads(&self, rows: usize, models: u64) -> [Live; 2] {
        let head = (self.spec.vocab * self.spec.hidden) as u64;
        let float = Live::piece(F32 * head);
        let logits = Live::piece(F32 * (rows * self.spec.vocab) as u64) * models;
        let codes = Live::piece(head) * (models - 1);
        [float * 2, float + codes + (codes.or(logits))]
    }

    /// Rounding every block to nearest: codes stay in memory, a block is turned and then rounded.
    fn nearest(&self, peak: &mut Peak) {
        let mut codes = self.ends();
        for block in 0..self.spec.blocks.len() {
            let largest = self.of.largest(Some(block));
            let before = codes + self.block(block);
            if self.turned {
                peak.pass(before + turning(largest, 3));
            }
            peak.pass(before + Live::piece(largest * F32) + Live::piece(largest) * 2);
            codes = codes + self.of.codes(Some(block));
        }
    }

    /// The ranges of all activations: one stream, one block in float32, the head.
    fn ranges(&self, peak: &mut Peak) {
        let windows = self.of.windows;
        let held = self.ends() + self.codes() + self.stream(windows);
        for block in 0..self.spec.blocks.len() {
            let run = self.float(block) + self.window(block, windows);
            peak.pass(held + self.of.source(Some(block)) + run);
        }
        for heads in self.heads(eval::ROWS, 1) {
            peak.pass(held + heads);
        }
    }

    /// The losses that a budget is spread by: the streams of changed models, a block and the one
    /// that is changed, the sums of its inputs, the errors of a piece on each thread; then heads
    /// and logits.
    fn sensitivity(&self, peak: &mut Peak) {
        let windows = &self.of.windows[..self.of.windows.len().min(sensitivity::WINDOWS)];
        let stream = F32 * tokens(windows) * self.spec.hidden as u64;
        let units = match Candidates::of(self.of.model, self.of.settings) {
            Ok(Some(candidates)) => candidates.units.len() as u64,
            _ => 0,
        };
        let group = (sensitivity::STREAM_BYTES as u64 / stream.max(1)).max(1);
        let piece = Live::piece(stream / windows.len().max(1) as u64) * windows.len() as u64;
        let held = self.of.source(None) + self.turned(None) + piece * (1 + units.min(group));
        for block in 0..self.spec.blocks.len() {
            let largest = self.of.largest(Some(block));
            let inputs = self.of.tensors(Some(block)).filter(|(it, _)| {
                it.part == Part::Weight
                    && matches!(it.role, Role::Q | Role::O | Role::Gate | Role::Down)
            });
            let sums = inputs.map(|(_, it)| Live::piece(F32 * (it.shape[1] as u64).pow(2)));
            let part = largest.min(sensitivity::PIECE as u64);
            let errors = Live::piece(part * F32) * 4 + Live::piece(part);
            let errors = sums.sum::<Live>() + errors * self.of.threads as u64;
            let changed = self.float(block) + self.window(block, windows);
            peak.pass(held + self.block(block) + self.float(block) + changed.or(errors));
        }
        // The embedding and the head may be changed, each in a model of its own.
        let head = Live::piece(F32 * (self.spec.vocab * self.spec.hidden) as u64);
        let [unpacked, measured] = self.heads(sensitivity::ROWS, 2);
        peak.pass(held + head * 2 + unpacked.or(measured));
    }
}

/// A linear layer `[out, columns]`.
struct Layer {
    role: Role,
    expert: Option<Expert>,
    out: u64,
    columns: u64,
}

impl Layer {
    fn weights(&self) -> u64 {
        self.out * self.columns
    }
}

/// Solving for the layers of a stage, all or one expert's.
fn solution(layers: &[Layer], mixture: bool, fits: bool) -> Live {
    if !mixture {
        return solved(&layers.iter().collect::<Vec<_>>(), fits);
    }
    let experts = layers.iter().map(|it| it.expert);
    let experts = experts.map(|expert| {
        solved(&layers.iter().filter(|it| it.expert == expert).collect::<Vec<_>>(), fits)
    });
    experts.fold(Live::default(), Live::or)
}

/// Float weights and targets; the ridge; the factors of the damped `H`; the errors of a rounded
/// weight.
fn solved(layers: &[&Layer], fits: bool) -> Live {
    let columns = layers.iter().map(|it| it.columns).max().unwrap_or(0);
    let all: u64 = layers.iter().map(|it| it.weights()).sum();
    let largest = layers.iter().map(|it| it.weights()).max().unwrap_or(0);
    let square = |bytes: u64| Live::piece(columns * columns * bytes);
    let (weights, wide) = (Live::piece(all * F32), Live::piece(all * F64));
    let ridge = square(F64) * 2 + wide;
    let ridge = weights * 3 + ridge.or(square(F64) + wide + weights);
    let factors = square(F64) * 3 + square(F32);
    let errors = square(F32) * 3 + Live::piece(largest * F32) * 3 + Live::piece(largest);
    let rounding = weights * 2 + factors.or(errors);
    if fits { ridge.or(rounding) } else { rounding }
}
