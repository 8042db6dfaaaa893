//! Needle in a haystack: a fact in a long text, asked for at its end (after Kamradt 2023).
//!
//! Everything is made from a seed: sentences of no interest, and among them the number of one
//! box, which the question wants back. [`cells`] gives every length with every depth;
//! [`Needle::build`] fills a length by the model's own count of tokens.
use super::{EvalError, followbench::Tongue};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Which needles are hidden where.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NeedleSettings {
    /// Tokens of the prompts, each at most the model's window less [`ANSWER`].
    pub lengths: Vec<usize>,
    /// Where the needle stands: 0 at the beginning, 1 at the end.
    pub depths: Vec<f64>,
    /// Needles per length and depth.
    pub samples: usize,
    /// Seed of texts and numbers.
    pub seed: u64,
    /// Language of text and question.
    pub tongue: Tongue,
}

/// Tokens left for the answer.
pub const ANSWER: usize = 32;

/// Shortest prompt: the question and a few sentences.
const SHORTEST: usize = 128;

impl NeedleSettings {
    /// Powers of two from 512 on, and last what is left of the window of `positions`.
    pub fn for_window(positions: usize) -> Self {
        let most = positions.saturating_sub(ANSWER);
        let doubled = std::iter::successors(Some(512), |length: &usize| length.checked_mul(2));
        let mut lengths: Vec<usize> = doubled.take_while(|length| *length < most).collect();
        lengths.push(most);
        let depths = vec![0.0, 0.25, 0.5, 0.75, 1.0];
        Self { lengths, depths, samples: 1, seed: 0, tongue: Tongue::En }
    }

    /// Before any work: lengths that fit the window of `positions`, depths in 0 to 1.
    pub fn check(&self, positions: usize) -> Result<(), EvalError> {
        let wrong = |setting, found: String, rule: String, hint| {
            Err(EvalError::Setting { setting, found, rule, hint })
        };
        let most = positions.saturating_sub(ANSWER);
        if let Some(length) = self.lengths.iter().find(|it| !(SHORTEST..=most).contains(it)) {
            let rule =
                format!("must lie in {SHORTEST} to {most}, the model's window less {ANSWER}");
            return wrong(
                "lengths",
                length.to_string(),
                rule,
                "name lengths that the model can see",
            );
        }
        if let Some(depth) = self.depths.iter().find(|it| !(0.0..=1.0).contains(*it)) {
            let rule = "must lie in 0 to 1".to_owned();
            return wrong("depths", depth.to_string(), rule, "0 is the beginning, 1 the end");
        }
        if self.lengths.is_empty() || self.depths.is_empty() || self.samples == 0 {
            let rule = "at least one length, one depth and one sample".to_owned();
            return wrong("lengths", "none".into(), rule, "leave the settings out for the default");
        }
        Ok(())
    }
}

/// One hidden fact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Needle {
    /// Tokens of the prompt, at most.
    pub length: usize,
    /// Where it stands, 0 to 1.
    pub depth: f64,
    /// Which sample of this length and depth.
    pub sample: usize,
    /// The user's message.
    pub prompt: String,
    /// The number that was hidden.
    pub answer: String,
}

/// Every length with every depth and sample, in this order.
pub fn cells(settings: &NeedleSettings) -> Vec<(usize, f64, usize)> {
    let mut out = vec![];
    for length in &settings.lengths {
        for depth in &settings.depths {
            out.extend((0..settings.samples).map(|sample| (*length, *depth, sample)));
        }
    }
    out
}

impl Needle {
    /// Builds the prompt of a cell; `count` gives the tokens of a user's message as the model will
    /// see it, template included. As many sentences as fit.
    pub fn build(
        settings: &NeedleSettings,
        (length, depth, sample): (usize, f64, usize),
        count: &dyn Fn(&str) -> Result<usize, EvalError>,
    ) -> Result<Self, EvalError> {
        // The same numbers at every depth of a length: depths differ in nothing else.
        let seed = settings.seed ^ (length as u64) << 20 ^ (sample as u64) << 50;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let words = Words::of(settings.tongue);
        let thing = pick(words.things, &mut random);
        let answer = random.random_range(1_000_000..10_000_000_u32).to_string();
        let hidden = words.needle.replace("{thing}", thing).replace("{number}", &answer);
        let question = words.question.replace("{thing}", thing);
        let compose = |sentences: &[String]| {
            let at = (sentences.len() as f64 * depth).round() as usize;
            let (before, after) = sentences.split_at(at.min(sentences.len()));
            let parts: Vec<&str> = std::iter::once(words.opening)
                .chain(before.iter().map(String::as_str))
                .chain([hidden.as_str()])
                .chain(after.iter().map(String::as_str))
                .collect();
            format!("{}\n\n{question}", parts.join(words.space))
        };
        let mut sentences: Vec<String> = vec![];
        let mut prompt = compose(&sentences);
        let frame = count(&prompt)?;
        let mut total = frame;
        // Sentences are added by their mean length until the last one is too much.
        while total <= length {
            let mean = (total - frame).checked_div(sentences.len()).unwrap_or(20).max(1);
            let wanted = ((length - total) / mean).max(1);
            sentences.extend((0..wanted).map(|_| words.sentence(&mut random)));
            prompt = compose(&sentences);
            total = count(&prompt)?;
        }
        while count(&prompt)? > length {
            if sentences.pop().is_none() {
                return Err(EvalError::Setting {
                    setting: "lengths",
                    found: length.to_string(),
                    rule: format!("the question alone takes {frame} tokens"),
                    hint: "choose a larger length",
                });
            }
            prompt = compose(&sentences);
        }
        // What is left is less than a sentence: as much of one as fits.
        let parts = words.beginnings(&mut random);
        let with = |part: &String| {
            let last = std::iter::once(part.clone());
            compose(&sentences.iter().cloned().chain(last).collect::<Vec<_>>())
        };
        let (mut fits, mut too_long) = (0, parts.len() + 1);
        while fits + 1 < too_long {
            let middle = fits.midpoint(too_long);
            let longer = with(&parts[middle - 1]);
            if count(&longer)? > length {
                too_long = middle;
            } else {
                (fits, prompt) = (middle, longer);
            }
        }
        Ok(Self { length, depth, sample, prompt, answer })
    }

    /// Whether an answer holds the number; commas and spaces within it do not count.
    pub fn found_in(&self, answer: &str) -> bool {
        Self::is_found(&self.answer, answer)
    }

    /// As [`Self::found_in`], of a number.
    pub fn is_found(number: &str, answer: &str) -> bool {
        let joined: String = answer.chars().filter(|c| !matches!(c, ',' | ' ')).collect();
        joined.contains(number)
    }
}

/// Share of needles found by length and depth.
pub fn retrieval(found: &[(usize, f64, bool)]) -> Vec<(usize, f64, f64)> {
    let mut cells: Vec<(usize, f64, usize, usize)> = vec![];
    for (length, depth, right) in found {
        let same =
            |it: &&mut (usize, f64, usize, usize)| it.0 == *length && it.1.total_cmp(depth).is_eq();
        let right = usize::from(*right);
        match cells.iter_mut().find(same) {
            Some(cell) => (cell.2, cell.3) = (cell.2 + right, cell.3 + 1),
            None => cells.push((*length, *depth, right, 1)),
        }
    }
    cells.into_iter().map(|(l, d, right, all)| (l, d, right as f64 / all as f64)).collect()
}

/// What sentences are made of.
struct Words {
    opening: &'static str,
    needle: &'static str,
    question: &'static str,
    things: &'static [&'static str],
    /// A sentence is one of each, in order.
    parts: [&'static [&'static str]; 4],
    space: &'static str,
}

impl Words {
    fn of(tongue: Tongue) -> &'static Self {
        match tongue {
            Tongue::En => &ENGLISH,
            Tongue::Zh => &CHINESE,
        }
    }

    fn sentence(&self, random: &mut ChaCha8Rng) -> String {
        let parts = self.parts.map(|part| pick(part, random));
        parts.join(self.space.trim_start_matches('\n')) + self.end()
    }

    /// A sentence and all that it could have been cut to, the shortest first.
    fn beginnings(&self, random: &mut ChaCha8Rng) -> Vec<String> {
        let whole = self.sentence(random);
        let text = whole.trim_end_matches(self.end());
        let ends: Vec<usize> = match self.space {
            "" => text.char_indices().map(|(at, _)| at).skip(1).collect(),
            space => text.match_indices(space).map(|(at, _)| at).collect(),
        };
        let ends = ends.into_iter().chain([text.len()]);
        ends.map(|end| format!("{}{}", &text[..end], self.end())).collect()
    }

    fn end(&self) -> &'static str {
        if self.space.is_empty() { "。" } else { "." }
    }
}

fn pick(from: &'static [&'static str], random: &mut ChaCha8Rng) -> &'static str {
    from.choose(random).copied().unwrap_or_default()
}

const ENGLISH: Words = Words {
    opening: "Read the following notes. One of them holds a number that you will be asked for.",
    needle: "The number of the {thing} box is {number}.",
    question: "What is the number of the {thing} box? Answer with the number only.",
    things: &["green", "wooden", "silver", "oldest", "smallest", "blue", "round", "heavy"],
    parts: [
        &[
            "In spring",
            "Before noon",
            "On most days",
            "After the rain",
            "Some years ago",
            "Late in the evening",
            "When the wind turned",
            "Near the harbour",
        ],
        &[
            "the baker's daughter",
            "an old gardener",
            "the two brothers",
            "the teacher of the village",
            "a quiet traveller",
            "our neighbour",
            "the keeper of the lighthouse",
            "a group of children",
        ],
        &[
            "carried wood across",
            "watched the boats from",
            "planted beans behind",
            "told long stories about",
            "painted small pictures of",
            "walked slowly around",
            "repaired the fence of",
            "counted the birds above",
        ],
        &[
            "the empty market square",
            "the stone bridge",
            "the meadow by the mill",
            "the last house of the street",
            "the frozen lake",
            "the railway station",
            "the hill with the three oaks",
            "the schoolyard",
        ],
    ],
    space: " ",
};

const CHINESE: Words = Words {
    opening: "请阅读下面的笔记。其中一条含有一个号码，之后会问到它。",
    needle: "{thing}箱子的号码是{number}。",
    question: "{thing}箱子的号码是多少？只回答号码。",
    things: &["绿色", "木制", "银色", "最旧的", "最小的", "蓝色", "圆形", "最重的"],
    parts: [
        &[
            "春天里",
            "中午之前",
            "平常日子",
            "雨停以后",
            "几年以前",
            "傍晚时分",
            "风向变了",
            "在港口边",
        ],
        &[
            "面包师的女儿",
            "一位老园丁",
            "那两兄弟",
            "村里的老师",
            "一个沉默的旅人",
            "我们的邻居",
            "灯塔看守人",
            "一群孩子",
        ],
        &[
            "把木头搬到",
            "静静地望着",
            "把豆子种在",
            "常常谈起",
            "画下了",
            "慢慢地绕过",
            "动手修整",
            "数着鸟儿飞过",
        ],
        &[
            "空荡荡的集市",
            "那座石桥",
            "磨坊旁的草地",
            "街尾的房子",
            "结冰的湖面",
            "火车站",
            "三棵橡树的小山",
            "学校的操场",
        ],
    ],
    space: "",
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A token per four bytes, and a frame of ten.
    fn count(text: &str) -> usize {
        10 + text.len().div_ceil(4)
    }

    fn settings(tongue: Tongue) -> NeedleSettings {
        let base = NeedleSettings::for_window(2048);
        NeedleSettings { samples: 2, tongue, ..base }
    }

    #[test]
    fn lengths_go_to_the_window() {
        assert_eq!(NeedleSettings::for_window(2048).lengths, [512, 1024, 2016]);
        assert_eq!(NeedleSettings::for_window(512).lengths, [480]);
        assert!(settings(Tongue::En).check(2048).is_ok());
        assert!(settings(Tongue::En).check(2047).is_err());
        for broken in [
            NeedleSettings { depths: vec![1.1], ..settings(Tongue::En) },
            NeedleSettings { depths: vec![f64::NAN], ..settings(Tongue::En) },
            NeedleSettings { samples: 0, ..settings(Tongue::En) },
            NeedleSettings { lengths: vec![10], ..settings(Tongue::En) },
        ] {
            assert!(matches!(broken.check(4096), Err(EvalError::Setting { .. })), "{broken:?}");
        }
    }

    #[test]
    fn prompts_fill_their_length_and_hide_the_number_at_its_depth() {
        for tongue in [Tongue::En, Tongue::Zh] {
            let settings = settings(tongue);
            let cells = cells(&settings);
            assert_eq!(cells.len(), 3 * 5 * 2);
            for cell in cells {
                let needle = Needle::build(&settings, cell, &|text| Ok(count(text))).unwrap();
                let tokens = count(&needle.prompt);
                // A word is at most 3 of these tokens, with its space and the period.
                assert!((cell.0 - 3..=cell.0).contains(&tokens), "{cell:?}: {tokens}");
                let at = needle.prompt.find(&needle.answer).unwrap();
                let share = at as f64 / needle.prompt.len() as f64;
                // Opening and question take at most 140 of the shortest text's 1900 bytes.
                assert!((share - cell.1).abs() < 0.11, "{cell:?}: at {share}");
                assert_eq!(needle.prompt.matches(&needle.answer).count(), 1);
            }
        }
    }

    #[test]
    fn seeds_and_samples_give_other_numbers_depths_do_not() {
        let build = |seed, depth, sample| {
            let settings = NeedleSettings { seed, ..settings(Tongue::En) };
            Needle::build(&settings, (512, depth, sample), &|text| Ok(count(text))).unwrap()
        };
        let first = build(0, 0.5, 0);
        assert_eq!(first, build(0, 0.5, 0));
        assert_eq!(first.answer, build(0, 1.0, 0).answer);
        assert_ne!(first.answer, build(1, 0.5, 0).answer);
        assert_ne!(first.answer, build(0, 0.5, 1).answer);
        let spaced: Vec<String> = first.answer.chars().map(String::from).collect();
        assert!(first.found_in(&format!("It is {}.", spaced.join(","))));
        assert!(!first.found_in("It is 7."));
    }

    #[test]
    fn shares_by_length_and_depth() {
        let found = [(512, 0.0, true), (512, 0.5, false), (512, 0.0, false)];
        assert_eq!(retrieval(&found), [(512, 0.0, 0.5), (512, 0.5, 0.0)]);
    }
}
