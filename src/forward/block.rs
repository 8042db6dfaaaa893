//! One decoder block: the interpreter of its ops.
use super::{
    attention::Attend,
    grids::{PointGrids, Rounds},
    heads::{HeadNorms, Heads, Turn},
    kv_cache::{KvCache, Memory},
    linear::{Backend, Rows},
    mlp::{Experts, Gate},
    points::Point,
    projection::{Loader, Norm, Output, each_row},
    rotary::Rotary,
    scratch::{Run, Scratch, Slot, Value},
    tap::{NoTap, Tap},
};
use crate::linalg::{Team, add_assign};
use crate::model::{Block, Half, Model, Op, WeightError};
use crate::scheme::KvPrecision;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};

/// An op with its weights.
enum Layer {
    Norm(Norm),
    Heads(Heads),
    HeadNorms(HeadNorms),
    Turn(Turn),
    Attend(Attend),
    Gate(Gate),
    Experts(Experts),
    Linear(Output),
}

/// Where a block reads and writes what it knows of past tokens; only attention does.
type Place<'a> = (Memory<'a>, &'a Rotary);

impl Layer {
    /// `None` where there is nothing to do.
    fn load(loader: &Loader<'_>, sizes: &Block, op: Op) -> Result<Option<Self>, WeightError> {
        Ok(Some(match op {
            Op::Norm(role) => Self::Norm(Norm::load(loader, role)?),
            Op::Heads => Self::Heads(Heads::load(loader, sizes)?),
            Op::HeadNorms => Self::HeadNorms(HeadNorms::load(loader, sizes)?),
            Op::Turn => Self::Turn(Turn::load(loader, sizes)),
            Op::Attend { width } => Self::Attend(Attend::new(sizes, width)),
            Op::Gate(activation) => Self::Gate(Gate::load(loader, activation)?),
            Op::Experts(activation) => {
                return Ok(Experts::load(loader, &sizes.mlp, activation)?.map(Self::Experts));
            }
            Op::Linear(role) => Self::Linear(Output::load(loader, role)?),
        }))
    }

    /// What the op makes of `y`.
    fn forward(&self, y: Input<'_>, place: &mut Option<Place<'_>>, run: &mut Run<'_>) -> Value {
        const PLACE: &str = "a half that attends has a place";
        let made = match self {
            Self::Norm(norm) => norm.forward(y.view(), run),
            Self::Heads(heads) => heads.forward(y.view(), run),
            Self::HeadNorms(norms) => {
                let mut heads = y.owned(run);
                norms.forward(&mut heads, run);
                return heads;
            }
            Self::Turn(turn) => {
                let mut heads = y.owned(run);
                turn.forward(&mut heads, place.as_ref().expect(PLACE).1, run);
                return heads;
            }
            Self::Attend(attend) => attend.forward(y.view(), place.take().expect(PLACE).0, run),
            Self::Gate(gate) => gate.forward(y.view(), run),
            Self::Experts(experts) => experts.forward(y.view(), run),
            Self::Linear(linear) => linear.forward(y.view(), run),
        };
        y.keep(run);
        made
    }
}

/// What an op is given: something from outside, or what the op before made.
enum Input<'a> {
    Outer(ArrayView2<'a, f32>),
    Made(Value),
}

impl Input<'_> {
    fn view(&self) -> ArrayView2<'_, f32> {
        match self {
            Self::Outer(x) => x.view(),
            Self::Made(value) => value.view(),
        }
    }

    /// A result that can be changed in place.
    fn owned(self, run: &mut Run<'_>) -> Value {
        match self {
            Self::Outer(x) => {
                let mut value = run.scratch.value(Slot::Heads, x.nrows(), x.ncols());
                value.view_mut().assign(&x);
                value
            }
            Self::Made(value) => value,
        }
    }

    fn keep(self, run: &mut Run<'_>) {
        if let Self::Made(value) = self {
            run.scratch.keep(value);
        }
    }
}

/// The weights of a block, ready to run: `x ← x + attention(x); x ← x + mlp(x)`, where each half is
/// a list of ops.
pub struct BlockWeights {
    halves: [Vec<Layer>; 2],
    sizes: Block,
    kv_cache: KvPrecision,
    /// Static grids of activations, if there are any.
    grids: Option<PointGrids>,
}

impl BlockWeights {
    /// Takes the weights of block `block` from a model.
    pub fn load(model: &Model, block: usize, backend: &dyn Backend) -> Result<Self, WeightError> {
        let loader = Loader { model, backend, block: Some(block), expert: None };
        let sizes = &model.spec.blocks[block];
        let half = |half| -> Result<Vec<Layer>, WeightError> {
            let layers = sizes.ops(half).iter().map(|op| Layer::load(&loader, sizes, *op));
            layers.filter_map(Result::transpose).collect()
        };
        Ok(Self {
            halves: [half(Half::Attention)?, half(Half::Mlp)?],
            sizes: sizes.clone(),
            kv_cache: model.spec.kv_cache,
            grids: PointGrids::of_block(model, block),
        })
    }

    /// An empty cache for this block with room for `capacity` tokens; it grows when more come.
    pub fn cache(&self, capacity: usize) -> KvCache {
        KvCache::new(self.sizes.kv_heads, self.sizes.head_dim, capacity, self.kv_cache)
    }

    /// Runs the block over the residual stream `x`, `[tokens, hidden]`, in place.
    pub fn forward(
        &self,
        x: ArrayViewMut2<'_, f32>,
        (cache, rotary): (&mut KvCache, &Rotary),
        team: &Team,
        scratch: &mut Scratch,
    ) {
        self.go((x, Rows::Together), (Memory::One(cache), rotary), team, scratch);
    }

    /// Runs the block over tokens of several sequences, `x` `[tokens, hidden]`, in place: as
    /// [`Self::forward`] of one token after the other, bit for bit. Row `t` of `rotary` belongs to row
    /// `t` of `x`.
    pub fn step(
        &self,
        x: ArrayViewMut2<'_, f32>,
        (caches, rotary): (Vec<(&mut KvCache, usize)>, &Rotary),
        team: &Team,
        scratch: &mut Scratch,
    ) {
        self.go((x, Rows::Apart), (Memory::Each(caches), rotary), team, scratch);
    }

    fn go(
        &self,
        (mut x, rows): (ArrayViewMut2<'_, f32>, Rows),
        place: Place<'_>,
        team: &Team,
        scratch: &mut Scratch,
    ) {
        let (mut rounds, mut nothing) = (self.grids.as_ref().map(Rounds), NoTap);
        let tap: &mut dyn Tap = match &mut rounds {
            Some(rounds) => rounds,
            None => &mut nothing,
        };
        let mut run = Run { team, scratch, tap, rows };
        self.attend(x.view_mut(), place, &mut run);
        self.feed(x, &mut run);
    }

    /// The first half, `x ← x + attention(x)`, in place.
    pub fn attend(&self, x: ArrayViewMut2<'_, f32>, place: Place<'_>, run: &mut Run<'_>) {
        self.half(Half::Attention, x, Some(place), run);
    }

    /// The second half, `x ← x + mlp(x)`, in place.
    pub fn feed(&self, mut x: ArrayViewMut2<'_, f32>, run: &mut Run<'_>) {
        self.half(Half::Mlp, x.view_mut(), None, run);
        run.tap.alter((Point::Block, None), x);
    }

    /// What the first projections of a half see of the stream `x`: it normed, `[tokens, hidden]`.
    pub fn input(&self, half: Half, x: ArrayView2<'_, f32>, team: &Team) -> Array2<f32> {
        let mut seen = x.to_owned();
        if let Some(Layer::Norm(norm)) = self.layers(half).first() {
            norm.rows(x, seen.view_mut(), team);
        }
        seen
    }

    /// The input of the layer that ends a half, `[tokens, in]`, for the stream `x`; `None` of a
    /// mixture of experts, whose experts each have their own.
    pub(super) fn inner(
        &self,
        half: Half,
        x: ArrayView2<'_, f32>,
        place: Place<'_>,
        run: &mut Run<'_>,
    ) -> Option<Array2<f32>> {
        let (before, _) = self.ending(half)?;
        let inner = flow(before, x, Some(place), run);
        let rows = inner.view().to_owned();
        run.scratch.keep(inner);
        Some(rows)
    }

    /// Ends a half: adds to the stream `x` what its last layer, and the norm behind it, make of
    /// `inner`. Nothing of a mixture of experts.
    pub(super) fn finish(
        &self,
        half: Half,
        inner: ArrayView2<'_, f32>,
        x: ArrayViewMut2<'_, f32>,
        run: &mut Run<'_>,
    ) {
        if let Some((_, ending)) = self.ending(half) {
            let y = flow(ending, inner, None, run);
            add(x, y, run);
        }
    }

    fn layers(&self, half: Half) -> &[Layer] {
        match half {
            Half::Attention => &self.halves[0],
            Half::Mlp => &self.halves[1],
        }
    }

    /// The layers before the linear layer that ends a half, and those from it on.
    fn ending(&self, half: Half) -> Option<(&[Layer], &[Layer])> {
        let layers = self.layers(half);
        let last = layers.iter().rposition(|it| matches!(it, Layer::Linear(_)))?;
        Some(layers.split_at(last))
    }

    /// `x ← x + f(x)`.
    fn half(
        &self,
        half: Half,
        x: ArrayViewMut2<'_, f32>,
        place: Option<Place<'_>>,
        run: &mut Run<'_>,
    ) {
        let y = flow(self.layers(half), x.view(), place, run);
        add(x, y, run);
    }
}

/// What layers make of `x`, one after the other.
fn flow(
    layers: &[Layer],
    x: ArrayView2<'_, f32>,
    mut place: Option<Place<'_>>,
    run: &mut Run<'_>,
) -> Value {
    let outer = Input::Outer(x);
    let made = layers.iter().fold(outer, |y, layer| Input::Made(layer.forward(y, &mut place, run)));
    made.owned(run)
}

/// `x ← x + y`.
fn add(mut x: ArrayViewMut2<'_, f32>, y: Value, run: &mut Run<'_>) {
    let rows = y.view();
    each_row(x.view_mut(), run.team, |t, x| {
        add_assign(x, rows.row(t).to_slice().expect("rows are contiguous"), 1.0);
    });
    run.scratch.keep(y);
}
