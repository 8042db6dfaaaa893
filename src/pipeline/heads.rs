//! Heads that guess ahead for a model, learnt from what it says itself.
use super::{PipelineError, streams};
use crate::{
    calibrate::HiddenStates,
    checkpoint::{OutputDir, ShardWriter, TensorPlan},
    forward::{ForwardError, Head, Reference},
    linalg::{Team, largest},
    model::Tensors,
    package::{Opened, refuse_over_input},
    progress::{Progress, Unit},
    tensor::{Bytes, Dtype, RawTensor},
    train::{Accepted, Answers, Medusa, MedusaSettings, TrainError},
};
use ndarray::Array2;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// A model and how its heads learn.
#[derive(Clone, Copy)]
pub struct TrainHeads<'a> {
    /// The model, which stays as it is.
    pub opened: &'a Opened,
    /// How.
    pub settings: &'a MedusaSettings,
    /// Windows to learn from, and behind the first `learnt` those to measure on.
    pub windows: &'a [Vec<u32>],
    /// Windows to learn from.
    pub learnt: usize,
    /// What the heads are for and how they were made, for their configuration file.
    pub recipe: &'a Value,
    /// Seed of the order of the windows.
    pub seed: u64,
    /// Threads.
    pub team: &'a Team,
    /// Told of the work.
    pub progress: &'a dyn Progress,
}

/// What heads learnt.
#[derive(Clone, Debug, Serialize)]
pub struct LearntHeads {
    /// Version of this form.
    pub schema: u32,
    /// Tokens of the text, passes not counted.
    pub tokens: u64,
    /// Tokens that the heads can guess.
    pub draft_vocabulary: usize,
    /// What they get right on the windows to measure on, before they learnt.
    pub before: Accepted,
    /// The same at the end.
    pub after: Accepted,
}

/// Version of the JSON form of [`LearntHeads`].
const SCHEMA: u32 = 1;

/// Rows of logits that are in memory at a time.
const ROWS: usize = 256;

impl TrainHeads<'_> {
    /// Trains heads into a folder that vLLM reads as a `medusa` model: `config.json`, `model.safetensors`.
    pub fn write(&self, target: &Path, force: bool) -> Result<LearntHeads, PipelineError> {
        OutputDir::check(target, force)?;
        refuse_over_input(self.opened, target)?;
        let answers = self.answers()?;
        let head = self.head()?;
        let mut medusa = Medusa::new(&head, &answers, self.settings);
        drop(head);
        let before = medusa.measure(&answers, self.learnt, self.team);
        let tokens: u64 = self.windows[..self.learnt].iter().map(|it| it.len() as u64).sum();
        self.progress.start("heads", tokens * self.settings.epochs as u64, Unit::Tokens);
        let aids = (self.seed, self.team);
        let mut told = |tokens| self.progress.advance(tokens);
        medusa.learn(&answers, self.learnt, self.settings, aids, &mut told)?;
        self.progress.finish();
        let after = medusa.measure(&answers, self.learnt, self.team);
        let draft_vocabulary = medusa.tokens().len();
        let learnt = LearntHeads { schema: SCHEMA, tokens, draft_vocabulary, before, after };
        self.store(&medusa, &learnt, target, force)?;
        Ok(learnt)
    }

    /// What the model says to the windows.
    fn answers(&self) -> Result<Answers, PipelineError> {
        let model = &self.opened.model;
        let last =
            streams::last((model, &Reference), self.windows, ("read", self.team, self.progress))?;
        let head = Head::load(model, &Reference).map_err(ForwardError::from)?;
        let mut answers =
            Answers { states: HiddenStates::of_width(model.spec.hidden), best: Vec::new() };
        for window in 0..last.len() {
            let stream = last.load(window);
            answers.states.push(head.normed(stream.view(), self.team).view());
            let mut best = Vec::with_capacity(stream.nrows());
            for rows in stream.axis_chunks_iter(ndarray::Axis(0), ROWS) {
                let logits = head.logits(rows, self.team);
                best.extend(
                    logits.outer_iter().map(|row| largest(row.iter().copied()).unwrap_or(0)),
                );
            }
            answers.best.push(best);
        }
        Ok(answers)
    }

    /// The matrix of the model's own head, `[vocab, hidden]`.
    fn head(&self) -> Result<Array2<f32>, PipelineError> {
        let model = &self.opened.model;
        let missing = || TrainError::Missing { block: None, role: "head", expert: None };
        let spec = model.spec.head().ok_or_else(missing)?;
        let weight = model.weights.get(&spec.name).map_err(ForwardError::from)?;
        let shape = (model.spec.vocab, model.spec.hidden);
        Array2::from_shape_vec(shape, weight.to_f32()).map_err(|_| missing().into())
    }

    fn store(
        &self,
        medusa: &Medusa,
        learnt: &LearntHeads,
        target: &Path,
        force: bool,
    ) -> Result<(), PipelineError> {
        let mut tensors: Tensors = medusa.tensors();
        let ids: Vec<u8> =
            medusa.tokens().iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
        let shape = vec![medusa.tokens().len()];
        let map = RawTensor { dtype: Dtype::I64, shape, bytes: Bytes::owned(ids) };
        tensors.insert("token_map".to_owned(), map);
        let spec = &self.opened.model.spec;
        let config = json!({
            "architectures": ["MedusaModel"], "model_type": "medusa",
            "hidden_size": spec.hidden, "vocab_size": spec.vocab,
            "truncated_vocab_size": medusa.tokens().len(),
            "num_heads": self.settings.heads, "num_hidden_layers": 1,
            "max_paths": 64, "topk": 10,
            "medusa_fc_bias": true, "original_lm_head": false, "torch_dtype": "bfloat16",
            "milm_heads": { "made": self.recipe, "measured": learnt },
        });
        let output = OutputDir::create(target, force)?;
        let plans = tensors.iter().map(|(name, it)| TensorPlan {
            name: name.clone(),
            dtype: it.dtype,
            shape: it.shape.clone(),
        });
        let mut writer = ShardWriter::create(&output, plans.collect(), u64::MAX);
        for (name, tensor) in &tensors {
            writer.write(name, tensor.bytes.to_vec())?;
        }
        writer.finish()?;
        output.write("config.json", format!("{config:#}\n").as_bytes())?;
        Ok(output.commit()?)
    }
}
