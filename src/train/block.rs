//! One decoder block that can learn: the interpreter of its ops, forward and back.
use super::{
    TrainError,
    attention::Attend,
    experts::Experts,
    gate::Gate,
    heads::{Heads, Turn},
    linear::Linear,
    norm::{HeadNorms, Norm},
    parameters::{Learns, Loader, Parameters},
    run::Run,
};
use crate::{
    forward::Rotary,
    linalg::Team,
    model::{Half, Model, ModelSpec, Op, Tensors},
};
use ndarray::Array2;

/// An op with its parameters.
#[derive(Clone, Debug)]
enum Layer {
    Norm(Norm),
    Heads(Heads),
    HeadNorms(HeadNorms),
    Turn(Turn),
    Attend(Attend),
    Gate(Gate),
    Experts(Experts),
    Linear(Linear),
}

/// What an op needs on the way back.
#[derive(Debug)]
enum Kept {
    Nothing,
    Input(Array2<f32>),
    /// The input, and what the op made of it on its way.
    Gate(Array2<f32>, Array2<f32>),
}

impl Layer {
    fn load(loader: &mut Loader<'_>, op: Op) -> Result<Self, TrainError> {
        let spec = &loader.model.spec;
        let block = loader.block.unwrap_or_default();
        let sizes = &spec.blocks[block];
        Ok(match op {
            Op::Norm(role) => Self::Norm(Norm::load(loader, role)?),
            Op::Heads => Self::Heads(Heads::load(loader)?),
            Op::HeadNorms => Self::HeadNorms(HeadNorms::load(loader, sizes)?),
            Op::Turn => Self::Turn(Turn { sizes: sizes.clone() }),
            Op::Attend { width } => {
                Self::Attend(Attend { sizes: sizes.clone(), scale: sizes.score_scale(width) })
            }
            Op::Gate(activation) => Self::Gate(Gate::load(loader, activation)?),
            Op::Experts(activation) => {
                let experts = Experts::load(loader, &sizes.mlp, activation)?;
                let missing =
                    || TrainError::Missing { block: Some(block), role: "router", expert: None };
                Self::Experts(experts.ok_or_else(missing)?)
            }
            Op::Linear(role) => Self::Linear(loader.linear(role)?),
        })
    }

    fn forward(&self, x: Array2<f32>, p: &Parameters, run: &Run<'_>) -> (Array2<f32>, Kept) {
        let y = match self {
            Self::Norm(norm) => norm.forward(&x, p, run.team),
            Self::Heads(heads) => heads.forward(&x, p, run.team),
            Self::HeadNorms(norms) => norms.forward(&x, p, run.team),
            Self::Turn(turn) => return (turn.turn(x, false, run), Kept::Nothing),
            Self::Attend(attend) => attend.forward(&x, run),
            Self::Experts(experts) => experts.forward(x.view(), p, run.team),
            Self::Linear(linear) => linear.of(x.view(), p, run.team),
            Self::Gate(gate) => {
                let (both, y) = gate.forward(x.view(), p, run.team);
                return (y, Kept::Gate(x, both));
            }
        };
        (y, Kept::Input(x))
    }

    fn backward(
        &self,
        kept: Kept,
        dy: Array2<f32>,
        p: &mut Parameters,
        run: &Run<'_>,
    ) -> Array2<f32> {
        match (self, kept) {
            (Self::Norm(norm), Kept::Input(x)) => norm.backward(&x, dy, p, run.team),
            (Self::Heads(heads), Kept::Input(x)) => heads.backward(&x, &dy, p, run.team),
            (Self::HeadNorms(norms), Kept::Input(x)) => norms.backward(&x, dy, p, run.team),
            (Self::Turn(turn), _) => turn.turn(dy, true, run),
            (Self::Attend(attend), Kept::Input(qkv)) => attend.backward(&qkv, &dy, run),
            (Self::Gate(gate), Kept::Gate(x, both)) => {
                gate.backward((x.view(), both), &dy, p, run.team)
            }
            (Self::Experts(experts), Kept::Input(x)) => {
                experts.backward(x.view(), &dy, p, run.team)
            }
            (Self::Linear(linear), Kept::Input(x)) => {
                let mut dx = Array2::zeros(x.dim());
                linear.backward(x.view(), dy.view(), dx.view_mut(), p, run.team);
                dx
            }
            _ => unreachable!("each op is given back what it kept"),
        }
    }
}

/// A block with its parameters: `x ← x + attention(x); x ← x + mlp(x)`.
#[derive(Clone, Debug)]
pub struct Block {
    halves: [Vec<Layer>; 2],
    /// Its tensors.
    pub parameters: Parameters,
    window: usize,
    rotary: Rotary,
}

/// What a block needs on the way back.
#[derive(Debug)]
pub struct Tape([Vec<Kept>; 2]);

impl Block {
    /// Block `block` of a model, over windows of `window` tokens.
    pub fn load(
        model: &Model,
        block: usize,
        window: usize,
        learns: Learns,
    ) -> Result<Self, TrainError> {
        check(&model.spec)?;
        let mut parameters = Parameters::default();
        let mut half = |half| -> Result<Vec<Layer>, TrainError> {
            let parameters = &mut parameters;
            let mut loader = Loader { model, block: Some(block), expert: None, learns, parameters };
            let ops = model.spec.blocks[block].ops(half).iter();
            ops.map(|op| Layer::load(&mut loader, *op)).collect()
        };
        let halves = [half(Half::Attention)?, half(Half::Mlp)?];
        model.release(block);
        let rotary = Rotary::new(&model.spec, block, 0..window, window);
        Ok(Self { halves, parameters, window, rotary })
    }

    /// Carries streams `[windows · window, hidden]` through the block.
    pub fn forward(&self, x: Array2<f32>, team: &Team) -> (Array2<f32>, Tape) {
        let run = Run { team, window: self.window, rotary: &self.rotary };
        let mut x = x;
        let tape = [0, 1].map(|half| {
            let (mut y, mut kept) = (x.clone(), Vec::new());
            for layer in &self.halves[half] {
                let (made, keeps) = layer.forward(y, &self.parameters, &run);
                y = made;
                kept.push(keeps);
            }
            x += &y;
            kept
        });
        (x, Tape(tape))
    }

    /// Of the gradient of a loss by the streams behind the block the one by those before it; the sums of
    /// the parameters' gradients grow.
    pub fn backward(&mut self, tape: Tape, dx: Array2<f32>, team: &Team) -> Array2<f32> {
        let run = Run { team, window: self.window, rotary: &self.rotary };
        let mut dx = dx;
        for (layers, kept) in self.halves.iter().zip(tape.0).rev() {
            let mut dy = dx.clone();
            for (layer, kept) in layers.iter().zip(kept).rev() {
                dy = layer.backward(kept, dy, &mut self.parameters, &run);
            }
            dx += &dy;
        }
        dx
    }

    /// The tensors that learn, as a checkpoint holds them.
    pub fn tensors(&self) -> Tensors {
        self.parameters.tensors()
    }
}

/// Refuses models with parts that have no way back.
pub fn check(spec: &ModelSpec) -> Result<(), TrainError> {
    if spec.transformed.as_ref().is_some_and(|it| it.keys || it.down_input) {
        return Err(TrainError::Rotated);
    }
    Ok(())
}
