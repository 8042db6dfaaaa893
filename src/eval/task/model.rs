//! Answers of a model that is run.
use super::{
    Answered, Answerer, Request, Response, TaskError,
    encode::{Encoder, Question},
    tree::{Pack, families, packs},
};
use crate::{
    linalg::Team,
    runtime::{
        Counts, Engine, GenerateSettings, Generated, Job, KV_BUDGET, Offers, SamplingSettings,
        generate_all, generate_all_with, width,
    },
    text::Tokenizer,
};
use ndarray::Array2;

/// Runs a model. Log-likelihoods: contexts that begin alike are read once, and several questions
/// are run together. Texts: the most likely token each time, several texts at once.
pub struct ModelAnswerer<'a> {
    engine: Engine<'a>,
    tokenizer: &'a Tokenizer,
    team: &'a Team,
    window: usize,
    /// Prompts of texts are messages of a user.
    chat: bool,
    /// Texts that are written at once.
    batch: Option<usize>,
    /// Who offers tokens to texts.
    offers: Option<Offers<'a>>,
}

/// Receives the answer to a request by its place.
type Done<'a> = dyn FnMut(usize, Answered) -> Result<(), TaskError> + 'a;

impl<'a> ModelAnswerer<'a> {
    /// With `chat`, prompts of texts go through the model's chat template.
    pub fn new(engine: Engine<'a>, tokenizer: &'a Tokenizer, team: &'a Team, chat: bool) -> Self {
        let window = engine.max_positions();
        Self { engine, tokenizer, team, window, chat, batch: None, offers: None }
    }

    /// Holds the model to fewer positions than it was made for.
    pub fn with_window(self, window: Option<usize>) -> Self {
        let window = window.map_or(self.window, |it| it.min(self.window).max(1));
        Self { window, ..self }
    }

    /// How many texts are written at once; by default as many as [`KV_BUDGET`] allows. Answers do
    /// not depend on it.
    pub fn with_batch(self, batch: Option<usize>) -> Self {
        Self { batch, ..self }
    }

    /// Who offers tokens to texts; answers do not depend on it.
    pub fn with_offers(self, offers: Option<Offers<'a>>) -> Self {
        Self { offers, ..self }
    }

    /// What came of offers, if there were any.
    pub fn take_counts(&mut self) -> Option<Counts> {
        self.offers.as_mut().map(Offers::take_counts)
    }

    fn log_likelihoods(
        &mut self,
        questions: &[Question],
        wanted: &[bool],
        done: &mut Done<'_>,
    ) -> Result<(), TaskError> {
        if self.engine.depends_on_length() {
            // Texts of different lengths turn alike positions differently: one after the other.
            for question in questions {
                for end in &question.ends {
                    let ends = vec![end.clone()];
                    let alone = Question { context: question.context.clone(), ends };
                    self.family((&[alone], wanted), 0, done)?;
                }
            }
            return Ok(());
        }
        for family in families(questions) {
            self.family((&questions[family.questions], wanted), family.shared, done)?;
        }
        Ok(())
    }

    /// Asks neighbouring questions. What is run together does not depend on which answers are
    /// wanted, so that their last digits do not either.
    fn family(
        &mut self,
        (questions, wanted): (&[Question], &[bool]),
        shared: usize,
        done: &mut Done<'_>,
    ) -> Result<(), TaskError> {
        let is_wanted = |question: &Question| question.ends.iter().any(|(at, _)| wanted[*at]);
        if !questions.iter().any(is_wanted) {
            return Ok(());
        }
        self.engine.truncate(0);
        if shared > 0 {
            self.engine.feed(&questions[0].context.ids[..shared])?;
        }
        for (pack, range) in packs(questions, shared) {
            if !questions[range.clone()].iter().any(is_wanted) {
                continue;
            }
            let logits = self.engine.feed_branches(&pack.tokens, &pack.branches, &pack.wanted)?;
            self.engine.truncate(shared);
            let contexts = questions[range]
                .iter()
                .flat_map(|question| question.ends.iter().map(|_| &question.context));
            let scores = score(&pack, &logits, self.team);
            for (((request, _), response), context) in pack.ends.iter().zip(scores).zip(contexts) {
                let (dropped_shots, cut_tokens) = (context.dropped_shots, context.cut_tokens);
                if wanted[*request] {
                    done(*request, Answered { response, dropped_shots, cut_tokens })?;
                }
            }
        }
        Ok(())
    }

    /// Writes the texts that are asked for, several at once.
    fn texts(
        &mut self,
        encoder: &Encoder<'_>,
        requests: &[&Request],
        wanted: &[bool],
        done: &mut Done<'_>,
    ) -> Result<(), TaskError> {
        let (mut places, mut jobs) = (Vec::new(), Vec::new());
        for (at, request) in requests.iter().enumerate().filter(|(at, _)| wanted[*at]) {
            let Request::Generate { prompt, stop, max_tokens } = request else { continue };
            let prompt = encoder.prompt(prompt, *max_tokens)?;
            let settings = GenerateSettings {
                max_tokens: *max_tokens,
                stop: stop.clone(),
                sampling: SamplingSettings::default(),
                ..GenerateSettings::default()
            };
            places.push((at, prompt.dropped_shots, prompt.cut_tokens));
            jobs.push(Job { prompt: prompt.ids, settings });
        }
        let tokens = |job: &Job| job.prompt.len().saturating_add(job.settings.max_tokens);
        let longest = jobs.iter().map(tokens).max().unwrap_or(0).min(self.engine.max_positions());
        let width = self.batch.unwrap_or_else(|| width(&self.engine, longest, KV_BUDGET));
        let mut done = |job: usize, generated: Generated| {
            let (at, dropped_shots, cut_tokens) = places[job];
            let response = Response::Text { tokens: generated.ids.len(), text: generated.text };
            done(at, Answered { response, dropped_shots, cut_tokens })
        };
        let engine = &mut self.engine;
        match &mut self.offers {
            None => generate_all(engine, self.tokenizer, &jobs, width, &mut done),
            Some(offers) => {
                generate_all_with((engine, offers), self.tokenizer, &jobs, width, &mut done)
            }
        }
    }
}

impl Answerer for ModelAnswerer<'_> {
    fn answer(
        &mut self,
        requests: &[&Request],
        wanted: &[bool],
        done: &mut dyn FnMut(usize, Answered) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let chat = self.chat.then(|| self.tokenizer.chat_template()).transpose()?;
        let encoder = Encoder::new(self.tokenizer, chat, self.window)?;
        self.log_likelihoods(&encoder.questions(requests)?, wanted, done)?;
        self.engine.truncate(0);
        self.texts(&encoder, requests, wanted, done)
    }
}

/// The responses to a pack's requests, in its order.
fn score(pack: &Pack, logits: &Array2<f32>, team: &Team) -> Vec<Response> {
    let mut sums = vec![0.0; logits.nrows()];
    team.each(sums.iter_mut().collect(), |at, sum: &mut f64| {
        *sum = crate::linalg::log_sum_exp(logits.row(at).to_slice().expect("rows are contiguous"));
    });
    let ends = pack.ends.iter().map(|(_, targets)| {
        let mut log_prob = 0.0;
        let mut greedy = true;
        for (at, id) in targets {
            let (row, id) = (logits.row(*at), *id as usize);
            let logit = row.get(id).copied().unwrap_or(f32::NAN);
            log_prob += f64::from(logit) - sums[*at];
            let best = |(other, x): (usize, &f32)| *x < logit || (other >= id && *x <= logit);
            greedy = greedy && row.iter().enumerate().all(best);
        }
        let log_prob = Some(log_prob).filter(|it| it.is_finite());
        Response::LogLikelihood { log_prob, tokens: targets.len(), greedy }
    });
    ends.collect()
}
