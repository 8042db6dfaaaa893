//! Choices between texts: the likeliest continuation is the answer.
mod form;

use super::{
    Data, Group, Item, Items, Metric, Options, Prompt, Record, Request, Response, Score, Task,
    TaskError, Warnings, data::Seen,
};
use serde_json::json;

/// Makes questions of a file's name and bytes.
type Read = fn(&str, &[u8], &mut Warnings) -> Result<Vec<Numbered>, TaskError>;

/// A question and the row of its file that it comes from, from 1 on.
type Numbered = (usize, Question);

/// One benchmark of this form.
pub struct Choice {
    name: &'static str,
    about: &'static str,
    /// Names that its data goes by, the usual one first.
    files: &'static [&'static str],
    read: Read,
    rule: Rule,
}

/// How continuations become a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The likeliest one, raw (`acc`) and per character (`acc_norm`).
    Best,
    /// The likeliest one, raw.
    BestRaw,
    /// TruthfulQA's `mc1` and `mc2`.
    Truthful,
    /// LAMBADA: the only one is what the model would write.
    Greedy,
}

/// One question, whatever file it came from.
#[derive(Clone, Debug, Default, PartialEq)]
struct Question {
    /// What stands before each option; one for all, or one each.
    contexts: Vec<String>,
    /// The options, without the space in front of them.
    options: Vec<String>,
    /// Index of the right one, or how many of the first are true.
    right: usize,
}

/// HellaSwag (Zellers et al. 2019, arXiv 1905.07830).
pub(super) static HELLASWAG: Choice = Choice {
    name: "hellaswag",
    about: "HellaSwag: which ending follows (arXiv 1905.07830), validation split",
    files: &[
        "hellaswag/hellaswag_val.jsonl",
        "hellaswag/hellaswag_val_full.txt",
        "hellaswag/hellaswag_val_6000.txt",
    ],
    read: form::hellaswag,
    rule: Rule::Best,
};

/// ARC, the easy part (Clark et al. 2018, arXiv 1803.05457).
pub(super) static ARC_EASY: Choice = Choice {
    name: "arc-easy",
    about: "ARC-Easy: questions of school science (arXiv 1803.05457)",
    files: &["arc/arc_easy.jsonl", "arc/ARC-Easy-Test.jsonl"],
    read: form::arc,
    rule: Rule::Best,
};

/// ARC, the challenge.
pub(super) static ARC_CHALLENGE: Choice = Choice {
    name: "arc-challenge",
    about: "ARC-Challenge: harder questions of school science (arXiv 1803.05457)",
    files: &["arc/arc_challenge.jsonl", "arc/ARC-Challenge-Test.jsonl"],
    read: form::arc,
    rule: Rule::Best,
};

/// PIQA (Bisk et al. 2019, arXiv 1911.11641).
pub(super) static PIQA: Choice = Choice {
    name: "piqa",
    about: "PIQA: how everyday things are done (arXiv 1911.11641), validation split",
    files: &["piqa/piqa.jsonl", "piqa/valid.jsonl"],
    read: form::piqa,
    rule: Rule::Best,
};

/// WinoGrande (Sakaguchi et al. 2019, arXiv 1907.10641), scored by the text behind the name.
pub(super) static WINOGRANDE: Choice = Choice {
    name: "winogrande",
    about: "WinoGrande: whom a sentence means (arXiv 1907.10641), validation split",
    files: &["winogrande/winogrande.jsonl", "winogrande/dev.jsonl"],
    read: form::winogrande,
    rule: Rule::BestRaw,
};

/// TruthfulQA (Lin et al. 2021, arXiv 2109.07958), multiple choice.
pub(super) static TRUTHFULQA: Choice = Choice {
    name: "truthfulqa",
    about: "TruthfulQA: mc1 and mc2 (arXiv 2109.07958)",
    files: &["truthfulqa/TruthfulQA.csv"],
    read: form::truthfulqa,
    rule: Rule::Truthful,
};

/// LAMBADA (Paperno et al. 2016, arXiv 1606.06031).
pub(super) static LAMBADA: Choice = Choice {
    name: "lambada",
    about: "LAMBADA: the last word of a passage (arXiv 1606.06031), test split",
    files: &["lambada/lambada_test.jsonl", "lambada/lambada_openai.jsonl"],
    read: form::lambada,
    rule: Rule::Greedy,
};

impl Task for Choice {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        1
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn main_metric(&self) -> &'static str {
        match self.rule {
            Rule::Best => "acc_norm",
            Rule::BestRaw | Rule::Greedy => "acc",
            Rule::Truthful => "mc2",
        }
    }

    fn items(&self, data: &dyn Data, options: &Options) -> Result<Items, TaskError> {
        let (file, bytes) = data.first(self.name, self.files)?;
        let mut all = Items::default();
        let file = data.shown(&file);
        let questions = (self.read)(&file, &bytes, &mut all.warnings)?;
        if options.num_fewshot > 0 {
            all.warnings.add("tasks without examples, asked without shots", self.name);
        }
        let mut seen = Seen::default();
        for (at, (row, question)) in questions.iter().enumerate() {
            let id = format!("{}/{at}", self.name);
            let place = format!("{file}, row {row}");
            seen.check(&format!("{question:?}"), &place, &mut all.warnings);
            if at < options.limit.unwrap_or(usize::MAX) {
                all.items.push(item(id, question));
            }
        }
        Ok(all)
    }

    fn score(&self, item: &Item, responses: &[Response]) -> Result<Score, TaskError> {
        let right = right(item, &item.answer["right"])?;
        let shown = if self.rule == Rule::Truthful { 0 } else { right };
        let option = |at: usize| item.answer["options"][at].as_str().unwrap_or_default();
        let chosen = best(item, responses, |_| 1.0)?;
        if chosen == usize::MAX {
            let mut score = self.wrong();
            option(shown).clone_into(&mut score.right);
            return Ok(score);
        }
        let is = |holds: bool| f64::from(u8::from(holds));
        let mut score = match self.rule {
            Rule::Best => {
                let normed = best(item, responses, |at| option(at).chars().count() as f64)?;
                let mut score =
                    Score::new([("acc", is(chosen == right)), ("acc_norm", is(normed == right))]);
                option(normed).clone_into(&mut score.answer);
                score
            }
            Rule::BestRaw => Score::new([("acc", is(chosen == right))]),
            Rule::Truthful => truthful(item, responses, right)?,
            Rule::Greedy => match responses {
                [Response::LogLikelihood { log_prob: Some(log_prob), greedy, .. }] => {
                    Score::new([("acc", is(*greedy)), ("nll", -log_prob)])
                }
                _ => return Err(unfit(item, "one log-probability is expected")),
            },
        };
        if score.answer.is_empty() && self.rule != Rule::Greedy {
            option(chosen).clone_into(&mut score.answer);
        }
        option(shown).clone_into(&mut score.right);
        Ok(score)
    }

    fn aggregate(&self, records: &[Record]) -> Vec<Group> {
        let mut all = Group::mean("all", records.iter());
        if let Some(nll) = all.metrics.get("nll").copied() {
            let value = nll.value.exp();
            let standard_error = nll.standard_error.map(|error| error * value);
            all.metrics.insert("perplexity".into(), Metric { value, standard_error });
        }
        vec![all]
    }
}

impl Choice {
    /// The score of an answer that is no number: wrong, and of no likelihood.
    fn wrong(&self) -> Score {
        match self.rule {
            Rule::Best => Score::new([("acc", 0.0), ("acc_norm", 0.0)]),
            Rule::BestRaw | Rule::Greedy => Score::new([("acc", 0.0)]),
            Rule::Truthful => Score::new([("mc1", 0.0), ("mc2", 0.0)]),
        }
    }
}

fn item(id: String, question: &Question) -> Item {
    let context = |at: usize| match question.contexts.as_slice() {
        [one] => one.clone(),
        all => all.get(at).cloned().unwrap_or_default(),
    };
    let requests = question.options.iter().enumerate().map(|(at, option)| {
        let context = Prompt::plain(context(at));
        Request::LogLikelihood { context, continuation: format!(" {option}") }
    });
    // Of WinoGrande, people want to see the name that was chosen, not what follows it.
    let shown = if question.contexts.len() > 1 { &question.contexts } else { &question.options };
    Item {
        id,
        subject: String::new(),
        requests: requests.collect(),
        answer: json!({ "right": question.right, "options": shown }),
    }
}

/// `mc1`: the likeliest of the best answer and the false ones is the best. `mc2`: share of the
/// true answers in the probability of all. The first option is the best answer, `right` are true.
fn truthful(item: &Item, responses: &[Response], right: usize) -> Result<Score, TaskError> {
    let all = log_probs(item, responses)?;
    let (Some((best, _)), true) = (all.split_first(), right > 0 && right <= all.len()) else {
        return Err(unfit(item, "the true answers are not those of the item"));
    };
    let mc1 = all[right..].iter().all(|other| best >= other);
    // Answers that are listed as best and as true count once: the best is one of the true.
    let largest = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mass = |part: &[f64]| part.iter().map(|it| (it - largest).exp()).sum::<f64>();
    let mc2 = mass(&all[..right]) / mass(&all);
    Ok(Score::new([("mc1", f64::from(u8::from(mc1))), ("mc2", mc2)]))
}

fn unfit(item: &Item, detail: &str) -> TaskError {
    TaskError::Responses { item: item.id.clone(), detail: detail.into() }
}

/// Which option is right, as an item holds it.
pub(super) fn right(item: &Item, at: &serde_json::Value) -> Result<usize, TaskError> {
    let number = at.as_u64().and_then(|it| usize::try_from(it).ok());
    number.ok_or_else(|| unfit(item, &format!("`{at}` is not the number of the right answer")))
}

fn log_probs(item: &Item, responses: &[Response]) -> Result<Vec<f64>, TaskError> {
    let all: Option<Vec<f64>> = responses.iter().map(Response::log_prob).collect();
    all.filter(|all| all.len() == item.requests.len() && !all.is_empty())
        .ok_or_else(|| unfit(item, "a log-probability per option is expected"))
}

/// The option of the largest log-probability ÷ `length`; of equals the first, as in the harness.
/// Of an option that is no number nothing is known: then none is chosen.
pub(super) fn best(
    item: &Item,
    responses: &[Response],
    length: impl Fn(usize) -> f64,
) -> Result<usize, TaskError> {
    let all = log_probs(item, responses)?;
    if all.iter().any(|it| it.is_nan()) {
        return Ok(usize::MAX);
    }
    let normed = all.iter().enumerate().map(|(at, it)| it / length(at).max(1.0));
    let mut best = (0, f64::NEG_INFINITY);
    for (at, value) in normed.enumerate() {
        if value > best.1 {
            best = (at, value);
        }
    }
    Ok(best.0)
}
