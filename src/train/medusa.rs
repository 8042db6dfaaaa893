//! Medusa heads (arXiv 2401.10774): from the stream that the head of a model sees, each guesses a token further
//! ahead.
use super::{
    Adam, Labels, NO_LABEL, Settings, Step, TrainError, clip,
    linear::Linear,
    loss,
    parameters::{Parameter, Parameters},
    regress::{batch, order},
};
use crate::{
    calibrate::HiddenStates,
    forward::each_row,
    linalg::{Team, largest},
    model::Tensors,
    number::{above, number, whole},
};
use ndarray::{Array2, ArrayView1, Axis};
use serde::{Deserialize, Serialize};

/// Settings of `heads`. Every field is a flag.
#[derive(Clone, Debug, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[group(id = "medusa")]
pub struct MedusaSettings {
    /// Heads: each guesses one token further
    #[arg(long, value_name = "N", default_value_t = HEADS, value_parser = whole::<usize>(1..=16))]
    pub heads: usize,
    /// Tokens that heads can guess: the most frequent ones of the text
    #[arg(long, value_name = "N", default_value_t = VOCABULARY, value_parser = whole::<usize>(2..=1 << 24))]
    pub draft_vocabulary: usize,
    /// Passes over the text
    #[arg(long, value_name = "N", default_value_t = EPOCHS, value_parser = whole::<usize>(1..=1000))]
    pub epochs: usize,
    /// Peak rate of learning
    #[arg(long, value_name = "RATE", default_value_t = RATE, value_parser = number::<f64>(above(0.0)))]
    pub learning_rate: f64,
    /// Windows of a step
    #[arg(long, value_name = "N", default_value_t = STEP_WINDOWS, value_parser = whole::<usize>(1..=65_536))]
    pub step_windows: usize,
}

const HEADS: usize = 3;
const VOCABULARY: usize = 8192;
const EPOCHS: usize = 4;
const RATE: f64 = 1e-3;
const STEP_WINDOWS: usize = 4;

impl Default for MedusaSettings {
    fn default() -> Self {
        Self {
            heads: HEADS,
            draft_vocabulary: VOCABULARY,
            epochs: EPOCHS,
            learning_rate: RATE,
            step_windows: STEP_WINDOWS,
        }
    }
}

/// What a model says to a text: of each window its stream as the head sees it, and the best token behind each
/// of its tokens.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The normed streams.
    pub states: HiddenStates,
    /// The best tokens.
    pub best: Vec<Vec<u32>>,
}

/// What heads get right on text that they have not learnt from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accepted {
    /// Of each head, the share of places where it guesses what the model says.
    pub right: Vec<f64>,
    /// Of each head, the share where it and all before it do: a chain is accepted so far.
    pub accepted: Vec<f64>,
    /// Tokens of a pass that offers all: the model's own, and those that are accepted.
    pub tokens_per_pass: f64,
}

/// Heads `logits = (x + SiLU(W·x + b))·Hᵀ` of a model, over its most frequent tokens.
#[derive(Clone, Debug)]
pub struct Medusa {
    heads: Vec<Parameters>,
    /// The token of each row of H, ascending.
    tokens: Vec<u32>,
}

/// The parameters of a head, in this order.
const BLOCK: Linear = Linear { weight: 0, bias: Some(1) };
const LOGITS: Linear = Linear { weight: 2, bias: None };

impl Medusa {
    /// Heads that guess what the model's own head `[vocab, hidden]` says.
    pub fn new(head: &Array2<f32>, answers: &Answers, settings: &MedusaSettings) -> Self {
        let (vocab, hidden) = head.dim();
        let mut counts = vec![0_u64; vocab];
        for id in answers.best.iter().flatten() {
            counts[*id as usize] += 1;
        }
        let mut tokens: Vec<u32> = (0..vocab as u32).collect();
        tokens.sort_by_key(|id| std::cmp::Reverse(counts[*id as usize]));
        tokens.truncate(settings.draft_vocabulary);
        tokens.sort_unstable();
        let rows: Vec<usize> = tokens.iter().map(|id| *id as usize).collect();
        let own = head.select(Axis(0), &rows);
        let heads = (0..settings.heads).map(|i| {
            let block = |part: &str| format!("blocks.{i}.layers.0.{part}");
            let list = vec![
                Parameter::new(
                    block("weight"),
                    Array2::zeros((hidden, hidden)),
                    vec![hidden, hidden],
                ),
                Parameter::new(block("bias"), Array2::zeros((1, hidden)), vec![hidden]),
                Parameter::new(format!("lm_heads.{i}.weight"), own.clone(), own.shape().to_vec()),
            ];
            Parameters { list }
        });
        Self { heads: heads.collect(), tokens }
    }

    /// The token of each row of the heads' matrices.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tensors, in bfloat16.
    pub fn tensors(&self) -> Tensors {
        self.heads.iter().flat_map(Parameters::tensors).collect()
    }

    /// Learns from the first `learnt` windows; `told` hears of the tokens of each step.
    pub fn learn(
        &mut self,
        answers: &Answers,
        learnt: usize,
        settings: &MedusaSettings,
        (seed, team): (u64, &Team),
        told: &mut dyn FnMut(u64),
    ) -> Result<(), TrainError> {
        let like = Settings { step_windows: settings.step_windows, ..Settings::default() };
        let steps = like.steps(learnt) * settings.epochs;
        let mut adams = vec![Adam::default(); self.heads.len()];
        let mut step = 0;
        for pass in 0..settings.epochs {
            for windows in order(learnt, (seed, pass)).chunks(settings.step_windows) {
                let x = batch(&answers.states, windows);
                let rate = like.rate(settings.learning_rate, step, steps);
                for (i, adam) in adams.iter_mut().enumerate() {
                    let labels = self.labels(answers, windows, i);
                    let tokens = labels.iter().filter(|it| **it != NO_LABEL).count().max(1);
                    let head = &mut self.heads[i];
                    head.clear();
                    let loss = step_head(head, &x, &labels, 1.0 / tokens as f32, team);
                    if !loss.is_finite() {
                        return Err(TrainError::Loss { step, block: None });
                    }
                    let (scale, _) = clip([&*head].into_iter(), like.gradient_clip);
                    adam.step(head, Step { rate, scale, decay: 0.0 }, team);
                }
                step += 1;
                told(x.nrows() as u64);
            }
        }
        Ok(())
    }

    /// What head `i` should guess at each token of some windows, as rows of its matrix.
    fn labels(&self, answers: &Answers, windows: &[usize], i: usize) -> Vec<u32> {
        let row = |id: &u32| self.tokens.binary_search(id).map_or(NO_LABEL, |row| row as u32);
        let of_window = |window: &usize| {
            let best = &answers.best[*window];
            let ahead = best.iter().skip(i + 1).map(row);
            ahead.chain(std::iter::repeat_n(NO_LABEL, best.len().min(i + 1))).collect::<Vec<_>>()
        };
        windows.iter().flat_map(of_window).collect()
    }

    /// What the heads get right in the windows behind the first `learnt`.
    pub fn measure(&self, answers: &Answers, learnt: usize, team: &Team) -> Accepted {
        let count = self.heads.len();
        let (mut right, mut accepted, mut places) = (vec![0_u64; count], vec![0_u64; count], 0);
        for (window, best) in answers.best.iter().enumerate().skip(learnt) {
            let x = answers.states.load(window);
            let guesses: Vec<Vec<u32>> =
                self.heads.iter().map(|it| self.guesses(it, &x, team)).collect();
            for t in 0..best.len().saturating_sub(count) {
                places += 1;
                let mut chain = true;
                for (i, guesses) in guesses.iter().enumerate() {
                    let hit = guesses[t] == best[t + i + 1];
                    chain &= hit;
                    right[i] += u64::from(hit);
                    accepted[i] += u64::from(chain);
                }
            }
        }
        let shares = |hits: Vec<u64>| -> Vec<f64> {
            hits.into_iter().map(|it| it as f64 / f64::from(places.max(1))).collect()
        };
        let (right, accepted) = (shares(right), shares(accepted));
        Accepted { tokens_per_pass: 1.0 + accepted.iter().sum::<f64>(), right, accepted }
    }

    /// The best token of a head at each row.
    fn guesses(&self, head: &Parameters, x: &Array2<f32>, team: &Team) -> Vec<u32> {
        let (_, z) = block(head, x, team);
        let logits = LOGITS.of(z.view(), head, team);
        let row = |row: ArrayView1<'_, f32>| largest(row.iter().copied()).unwrap_or(0);
        logits.outer_iter().map(|it| self.tokens[row(it) as usize]).collect()
    }
}

/// `u = W·x + b` and `x + SiLU(u)`.
fn block(head: &Parameters, x: &Array2<f32>, team: &Team) -> (Array2<f32>, Array2<f32>) {
    let u = BLOCK.of(x.view(), head, team);
    let mut z = x.clone();
    z.zip_mut_with(&u, |z, u| *z += u / (1.0 + (-u).exp()));
    (u, z)
}

/// The sum of the losses of a head; the sums of its gradients grow by those of the loss times `scale`.
fn step_head(
    head: &mut Parameters,
    x: &Array2<f32>,
    labels: &[u32],
    scale: f32,
    team: &Team,
) -> f64 {
    let (u, z) = block(head, x, team);
    let target = Labels(labels);
    let (loss, mut du) = loss::learn((LOGITS, head), z.view(), (&target, scale), team);
    each_row(du.view_mut(), team, |t, du| {
        for (du, u) in du.iter_mut().zip(u.row(t)) {
            let open = 1.0 / (1.0 + (-u).exp());
            *du *= open + u * open * (1.0 - open);
        }
    });
    let mut unused = Array2::zeros(x.dim());
    BLOCK.backward(x.view(), du.view(), unused.view_mut(), head, team);
    loss
}
