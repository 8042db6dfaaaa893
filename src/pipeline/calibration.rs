//! The calibration set of a model: read from texts, or written by the model itself.
use super::PipelineError;
use crate::{
    calibrate::{CalibrationSet, Fingerprint, Generate, PROMPTS, Request, Settings},
    forward::Reference,
    linalg::Team,
    package::Opened,
    progress::{Progress, Unit},
    runtime::{Engine, GenerateSettings, SamplingSettings, generate},
    text::{Document, Tokenizer},
};

/// Tokens after the prompt that are the best ones; the rest is drawn (LLM-QAT, arXiv 2305.17888,
/// takes 3 to 5).
const GREEDY: usize = 4;

/// A model and what it is to be calibrated on.
#[derive(Clone, Copy)]
pub struct Calibration<'a> {
    /// The model.
    pub opened: &'a Opened,
    /// Which text, and how much of it.
    pub settings: &'a Settings,
    /// Of the draw, and of what the model writes.
    pub seed: u64,
    /// Threads.
    pub team: &'a Team,
    /// Told of the work.
    pub progress: &'a dyn Progress,
}

impl Calibration<'_> {
    /// The windows to calibrate on, and up to `held_out` further ones of the same text, to measure
    /// on. Windows that are longer than the model allows are refused.
    pub fn set(&self, held_out: usize) -> Result<CalibrationSet, PipelineError> {
        let settings = &self.settings.within(self.opened.model.spec.max_positions)?;
        let tokenizer = self.opened.tokenizer()?;
        if settings.self_generate {
            return self.written_by_itself(settings, tokenizer, held_out);
        }
        Ok(CalibrationSet::read(settings, tokenizer, (held_out, self.seed))?)
    }

    /// Lets the model continue the carried prompts, in float32.
    fn written_by_itself(
        &self,
        settings: &Settings,
        tokenizer: &Tokenizer,
        held_out: usize,
    ) -> Result<CalibrationSet, PipelineError> {
        let progress = self.progress;
        let mut engine = Engine::load(&self.opened.model, &Reference, self.team, progress)?;
        let windows = (settings.calibration_samples + held_out) as u64;
        progress.start("self-generate", windows * settings.tokens() as u64, Unit::Tokens);
        let mut write = |prompt: &[u32], tokens: usize, seed: u64| {
            engine.truncate(0);
            let mut ids = prompt.to_vec();
            let greedy = GREEDY.min(tokens);
            for (count, temperature) in [(greedy, 0.0), (tokens - greedy, 1.0)] {
                if count > 0 {
                    let sampling = SamplingSettings { temperature, seed, ..Default::default() };
                    let wanted = GenerateSettings {
                        max_tokens: count,
                        ignore_eos: true,
                        sampling,
                        ..Default::default()
                    };
                    let done = generate(&mut engine, tokenizer, &ids, &wanted, &mut |_| true);
                    ids.extend(done.map_err(|error| error.to_string())?.ids);
                }
            }
            progress.advance(ids.len() as u64);
            Ok(ids.split_off(prompt.len()))
        };
        let encode = |document: &Document| {
            tokenizer.encode_document(document).map_err(|error| error.to_string())
        };
        let write: Generate<'_> = &mut write;
        let set =
            CalibrationSet::generate(settings, PROMPTS, (&encode, write), (held_out, self.seed));
        let set = set?;
        progress.finish();
        Ok(set)
    }
}

/// What statistics of a model, named as `model`, over a calibration set depend on.
pub fn fingerprint(
    (model, opened): (&str, &Opened),
    set: &CalibrationSet,
    request: &Request,
    progress: &dyn Progress,
) -> Result<Fingerprint, PipelineError> {
    let (tokenizer, hash) = (opened.tokenizer_sha256()?, opened.model_sha256(progress));
    Ok(Fingerprint::new((model, &hash), tokenizer, &set.fingerprint, request))
}
