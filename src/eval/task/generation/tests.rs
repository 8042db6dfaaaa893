use super::*;
use crate::eval::task::{Answered, Answerer, Data, Record, RecordKey, TASKS, Task, run, summarize};
use crate::progress::Silent;

/// Files in memory.
struct Files(Vec<(&'static str, String)>);

impl Data for Files {
    fn read(&self, file: &str) -> Result<Option<Vec<u8>>, TaskError> {
        let found = self.0.iter().find(|(name, _)| *name == file);
        Ok(found.map(|(_, text)| text.clone().into_bytes()))
    }

    fn shown(&self, file: &str) -> String {
        file.to_owned()
    }
}

/// Answers everything alike, or by a part of the question.
struct Dummy(fn(&str) -> String);

impl Answerer for Dummy {
    fn answer(
        &mut self,
        requests: &[&Request],
        _: &[bool],
        done: &mut dyn FnMut(usize, Answered) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        for (at, request) in requests.iter().enumerate() {
            let text = (self.0)(&request.prompt().text(0));
            let response = Response::Text { text, tokens: 1 };
            done(at, Answered { response, dropped_shots: 0, cut_tokens: 0 })?;
        }
        Ok(())
    }
}

fn asked(task: &dyn Task, data: &Files, options: &Options, model: Dummy) -> Vec<Record> {
    let items = task.items(data, options).unwrap().items;
    let key = RecordKey { model: "m".into(), settings: serde_json::Value::Null };
    let mut model = model;
    run(task, (&items, 0..items.len()), &key, &mut model, (&mut (), &Silent)).unwrap()
}

fn ifeval() -> Files {
    let line = |key: u64, ids: &str, kwargs: &str| {
        format!(
            r#"{{"key":{key},"prompt":"p{key}","instruction_id_list":{ids},"kwargs":{kwargs}}}"#
        )
    };
    let lines = [
        line(1, r#"["punctuation:no_comma"]"#, "[{}]"),
        line(2, r#"["punctuation:no_comma","startend:quotation"]"#, "[{},{}]"),
        String::new(),
        line(3, r#"["language:response_language"]"#, r#"[{"language":"sw"}]"#),
    ];
    Files(vec![("ifeval/input_data.jsonl", lines.join("\n"))])
}

#[test]
fn ifeval_counts_prompts_and_instructions() {
    let options = Options::default();
    let records = asked(&IfEval, &ifeval(), &options, Dummy(|_| "Sure, here:\n\"text\"".into()));
    let warnings = IfEval.items(&ifeval(), &options).unwrap().warnings;
    assert_eq!(warnings.lines().count(), 1);
    let summary = summarize(&IfEval, &options, &records, &warnings);
    let all = &summary.groups[0];
    let of = |name: &str| all.metrics[name].value;
    assert_eq!((all.items, all.metrics.len()), (3, 4));
    assert_eq!((of("prompt_level_strict_acc"), of("inst_level_strict_acc")), (0.0, 0.0));
    assert_eq!((of("prompt_level_loose_acc"), of("inst_level_loose_acc")), (2.0 / 3.0, 0.75));
    let names: Vec<_> = summary.groups.iter().map(|it| (it.name.as_str(), it.items)).collect();
    let kinds = [
        ("all", 3),
        ("language:response_language", 1),
        ("punctuation:no_comma", 2),
        ("startend:quotation", 1),
    ];
    assert_eq!(names, kinds);
    let one = Options { limit: Some(1), ..Options::default() };
    assert_eq!(IfEval.items(&ifeval(), &one).unwrap().items.len(), 1);
}

fn followbench() -> Files {
    let group = |source: &str, target: &str| {
        let entry = |level: usize| {
            serde_json::json!({"example_id": 1, "category": "", "source": source, "level": level,
                               "instruction": format!("{source} {level}"), "target": target})
        };
        serde_json::Value::from((0..=5).map(entry).collect::<Vec<_>>()).to_string()
    };
    let file = |name, source, target| (name, group(source, target));
    Files(vec![
        file("followbench/data/content_constraints.json", "E2E", "word"),
        file("followbench/data/example_constraints.json", "xsum", "{instruction}\nA: {answer}"),
        file("followbench/data/format_constraints.json", "quora", ""),
        file("followbench/data/mixed_constraints.json", "samsum", ""),
        file("followbench/data/situation_constraints.json", "gsm_8k", "$5"),
        file("followbench/data/style_constraints.json", "quora", ""),
        file("followbench/data_zh/content_constraints.json", "E2E", "词"),
        file("followbench/data_zh/example_constraints.json", "xsum", "{instruction}\nA: {answer}"),
        file("followbench/data_zh/format_constraints.json", "quora", ""),
        file("followbench/data_zh/mixed_constraints.json", "samsum", ""),
        file("followbench/data_zh/situation_constraints.json", "gsm_8k", "5美元"),
        file("followbench/data_zh/style_constraints.json", "quora", ""),
    ])
}

#[test]
#[expect(clippy::float_cmp, reason = "exact in binary")]
fn followbench_scores_rules_and_exports_the_rest() {
    let options = Options::default();
    let items = FollowBench.items(&followbench(), &options).unwrap();
    assert_eq!((items.items.len(), items.warnings.lines().count()), (40, 1));
    let records = asked(&FollowBench, &followbench(), &options, Dummy(|_| "word".into()));
    let groups = FollowBench.aggregate(&records);
    let of = |subject: &str, metric: &str| {
        groups.iter().find(|it| it.name == subject).unwrap().metrics[metric].value
    };
    // One sentence of one word: two levels of samsum, all of E2E.
    assert_eq!((of("content/en", "hsr_level_5"), of("content/en", "csl")), (1.0, 5.0));
    assert_eq!((of("mixed/en", "hsr_level_3"), of("mixed/en", "csl")), (0.0, 2.0));
    assert_eq!(of("content/zh", "satisfied"), 0.0);
    for error in [
        Judged.items(&followbench(), &options).unwrap_err(),
        Judged.score(&items.items[0], &[]).unwrap_err(),
    ] {
        assert!(error.to_string().contains("judge"), "{error}");
    }
    let lines = judge_lines(&followbench(), &options, &mut Dummy(|it| format!("to {it}"))).unwrap();
    assert_eq!(lines.len(), 20);
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&line["id"], &line["answer"]), (&"format/en/1/1".into(), &"to quora 1".into()));
}

#[test]
fn the_sample_suite_and_a_file_are_tasks() {
    let none = Files(vec![]);
    let options = Options::default();
    let sample = Capability::SAMPLE;
    let silent = sample.aggregate(&asked(&sample, &none, &options, Dummy(|_| String::new())));
    assert_eq!((silent[0].name.as_str(), silent[0].metrics["score"].value), ("all", 0.0));
    assert!(silent.iter().any(|it| it.name == "safety/refusal"));
    let talk = sample.aggregate(&asked(&sample, &none, &options, Dummy(ToOwned::to_owned)));
    assert!(talk[0].metrics["score"].value > 0.0, "repeating the question is worth something");
    assert!(matches!(Capability::DATA.items(&none, &options), Err(TaskError::NoData { .. })));
    let text = crate::eval::suite::SAMPLE.replace("name = \"sample\"", "name = \"own\"");
    let own = suite_task("own.toml", &text).unwrap();
    assert_eq!((own.name(), own.version()), ("own", 1));
    assert_eq!(
        own.items(&none, &options).unwrap().items.len(),
        sample.items(&none, &options).unwrap().items.len()
    );
    assert!(suite_task("own.toml", "name = 1").is_err());
}

#[test]
#[expect(clippy::float_cmp, reason = "all or nothing")]
fn needles_go_to_the_window_and_are_found_by_reading() {
    let options = Options { window: 1024, ..Options::default() };
    let number = |text: &str| {
        let digits: Vec<&str> =
            text.split(|c: char| !c.is_ascii_digit()).filter(|it| it.len() == 7).collect();
        format!("It is {}.", digits[0])
    };
    for task in [NeedleTask::EN, NeedleTask::ZH] {
        let records = asked(&task, &Files(vec![]), &options, Dummy(number));
        assert_eq!(records.len(), 2 * 5);
        let groups = task.aggregate(&records);
        assert_eq!((groups.len(), groups[0].metrics["found"].value), (11, 1.0));
        assert_eq!(groups[10].name, "992 tokens, depth 1");
        let blind = asked(&task, &Files(vec![]), &options, Dummy(|_| "7".into()));
        assert_eq!(task.aggregate(&blind)[0].metrics["found"].value, 0.0);
    }
    let small = Options { window: 100, ..Options::default() };
    assert!(NeedleTask::EN.items(&Files(vec![]), &small).is_err());
}

#[test]
fn tasks_have_names_of_their_own() {
    let mut names: Vec<_> = TASKS.iter().map(|it| it.name()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
