//! Generation on scripted models, and `run` on the carried one.
use assert_cmd::Command;
use milm_compress::{
    checkpoint::BUILTINS,
    forward::ForwardError,
    runtime::{
        GenerateError, GenerateSettings, Generated, NextToken, SamplingSettings, StopReason,
        generate,
    },
    text::{TextFiles, Tokenizer},
};
use ndarray::Array2;
use predicates::prelude::*;

fn tokenizer() -> Tokenizer {
    let mini = BUILTINS.iter().find(|it| it.name == "milm-mini").unwrap();
    let file = |name| mini.files.iter().find(|(file, _)| *file == name).unwrap().1;
    let generation = std::str::from_utf8(file("generation_config.json")).unwrap();
    Tokenizer::new(&TextFiles {
        tokenizer: file("tokenizer.json"),
        generation_config: Some(generation),
        ..Default::default()
    })
    .unwrap()
}

/// A model that writes a given text, then ends it.
struct Script {
    ids: Vec<u32>,
    seen: usize,
    prompt: usize,
    limit: usize,
    logits: Vec<f32>,
}

impl Script {
    fn new(text: &str, prompt: usize, limit: usize) -> Self {
        let mut ids = tokenizer().encode(text, false).unwrap();
        ids.push(0);
        Self { ids, seen: 0, prompt, limit, logits: vec![] }
    }
}

impl NextToken for Script {
    fn feed(&mut self, ids: &[u32]) -> Result<&[f32], ForwardError> {
        self.seen += ids.len();
        assert!(self.seen <= self.limit);
        self.logits = vec![0.0; 4096];
        let next = self.ids.get(self.seen - self.prompt).copied().unwrap_or(0);
        self.logits[next as usize] = 50.0;
        Ok(&self.logits)
    }

    fn verify(&mut self, ids: &[u32]) -> Result<Array2<f32>, ForwardError> {
        let rows: Vec<f32> =
            ids.iter().flat_map(|id| self.feed(&[*id]).unwrap().to_vec()).collect();
        Ok(Array2::from_shape_vec((ids.len(), 4096), rows).unwrap())
    }

    fn truncate(&mut self, len: usize) {
        self.seen = self.seen.min(len);
    }

    fn seen(&self) -> usize {
        self.seen
    }

    fn limit(&self) -> usize {
        self.limit
    }
}

fn write(model: &mut Script, change: impl FnOnce(&mut GenerateSettings)) -> (Generated, String) {
    let mut settings = GenerateSettings::default();
    change(&mut settings);
    let mut streamed = String::new();
    let prompt = vec![5; model.prompt];
    let done = generate(model, &tokenizer(), &prompt, &settings, &mut |piece: &str| {
        streamed.push_str(piece);
        true
    })
    .unwrap();
    (done, streamed)
}

#[test]
fn a_text_ends_where_the_model_ends_it() {
    let text = "Hello 你好 😀 world.";
    let (done, streamed) = write(&mut Script::new(text, 3, 1000), |_| {});
    assert_eq!((done.text.as_str(), streamed.as_str()), (text, text));
    assert_eq!((done.stop_reason, done.prompt_tokens), (StopReason::Eos, 3));
    assert_eq!(done.ids.last(), Some(&0), "the ending token is listed");
    let (done, _) = write(&mut Script::new(text, 3, 1000), |s| s.show_special = true);
    assert_eq!(done.text, format!("{text}<|endoftext|>"));
    let (done, _) = write(&mut Script::new(text, 3, 1000), |s| {
        (s.ignore_eos, s.max_tokens) = (true, 40);
    });
    assert_eq!((done.text.as_str(), done.ids.len()), (text, 40));
    // A sampler agrees where all probability lies on one token.
    let (done, _) = write(&mut Script::new(text, 1, 1000), |s| {
        s.sampling = SamplingSettings { temperature: 1.0, ..s.sampling.clone() };
    });
    assert_eq!(done.text, text);
}

/// At every place of the text, whatever the token borders are.
#[test]
fn stop_texts_cut_the_text_and_nothing_of_them_is_streamed() {
    let text = "one, two, three 你好吗 four";
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    for (n, from) in starts.iter().enumerate() {
        for to in starts.iter().skip(n + 1) {
            let stop = &text[*from..*to];
            let first = text.find(stop).unwrap();
            let (done, streamed) = write(&mut Script::new(text, 2, 1000), |s| {
                s.stop = vec!["never written".into(), stop.into()];
            });
            assert_eq!(done.stop_reason, StopReason::StopText, "{stop:?}");
            assert_eq!((done.text.as_str(), streamed.as_str()), (&text[..first], &text[..first]));
        }
    }
    // The beginning of a stop text that does not come is not lost.
    let (done, streamed) = write(&mut Script::new(text, 2, 1000), |s| {
        s.stop = vec![" four!".into(), "three 你坏".into()];
    });
    assert_eq!((done.text.as_str(), streamed.as_str()), (text, text));
    assert_eq!(done.stop_reason, StopReason::Eos);
}

#[test]
fn limits_end_the_text() {
    let text = "a b c d e f g h i j k l m n o p";
    for most in [0, 1, 5] {
        let (done, _) = write(&mut Script::new(text, 2, 1000), |s| s.max_tokens = most);
        assert_eq!((done.ids.len(), done.stop_reason), (most, StopReason::MaxTokens));
    }
    // Ten places, four of them for the prompt: six more are read, and one more is known.
    let (done, _) = write(&mut Script::new(text, 4, 10), |_| {});
    assert_eq!((done.ids.len(), done.stop_reason), (7, StopReason::ContextFull));
    let mut model = Script::new(text, 2, 1000);
    let (mut calls, settings) = (0, GenerateSettings::default());
    let done = generate(&mut model, &tokenizer(), &[5, 5], &settings, &mut |_: &str| {
        calls += 1;
        calls < 4
    });
    assert_eq!(done.unwrap().stop_reason, StopReason::Interrupted);
    assert_eq!(calls, 4);
}

#[test]
fn prompts_that_cannot_be_continued_are_errors() {
    let go = |prompt: &[u32], settings: &GenerateSettings| {
        let mut model = Script::new("x", prompt.len(), 4);
        generate(&mut model, &tokenizer(), prompt, settings, &mut |_: &str| true).unwrap_err()
    };
    let plain = GenerateSettings::default();
    assert!(matches!(go(&[], &plain), GenerateError::EmptyPrompt));
    assert!(matches!(go(&[5; 5], &plain), GenerateError::PromptTooLong { limit: 4, prompt: 5 }));
    let empty = GenerateSettings { stop: vec![String::new()], ..plain };
    let error = go(&[5], &empty);
    assert!(error.to_string().contains("\nhint: "), "{error}");
}

fn run(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("milm-compress").unwrap();
    command.args(["run", "builtin:milm-mini", "--threads", "1"]).args(args);
    command
}

/// Text and JSON agree; the same seed gives the same text, another one does not.
#[test]
fn run_continues_a_prompt() {
    let out = |more: &[&str]| {
        let args = [&["--prompt", "The old man", "--max-tokens", "24"], more].concat();
        let done = run(&args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (text, notes) = out(&[]);
    assert!(notes.contains("wrote 24 at "), "{notes}");
    let (json, silence) = out(&["--json", "--quiet"]);
    assert!(silence.is_empty(), "{silence}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(format!("{}\n", json["text"].as_str().unwrap()), text);
    assert_eq!(json["ids"].as_array().unwrap().len(), 24);
    assert_eq!(json["stop_reason"], "max_tokens");
    let drawn = |seed| out(&["--temperature", "1.5", "--seed", seed]).0;
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
}

#[test]
fn run_tells_what_it_cannot_do() {
    run(&["--prompt", ""]).assert().code(2).stderr(predicate::str::contains("hint: "));
    run(&["--prompt", "a", "--temperature=-1"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("'--temperature <T>': expected a number of at least 0"));
    run(&[]).assert().code(2);
    let chat = run(&["--chat"]).write_stdin("Hello\n").assert().code(2);
    chat.stderr(predicate::str::contains("no chat template").and(predicate::str::contains("hint")));
}
