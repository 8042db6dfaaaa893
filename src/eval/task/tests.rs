//! Tasks on the carried sample and on damaged data.
use super::*;
use std::collections::HashMap;

/// Files in memory.
#[derive(Default)]
pub(super) struct Files(HashMap<String, Vec<u8>>);

impl Files {
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(name, text)| ((*name).into(), text.as_bytes().into())).collect())
    }
}

impl Data for Files {
    fn read(&self, file: &str) -> Result<Option<Vec<u8>>, TaskError> {
        Ok(self.0.get(file).cloned())
    }

    fn shown(&self, file: &str) -> String {
        file.to_owned()
    }
}

fn likelihood(log_prob: f64) -> Response {
    let log_prob = Some(log_prob).filter(|it| it.is_finite());
    Response::LogLikelihood { log_prob, tokens: 1, greedy: false }
}

/// Knows the right answer, or the opposite of it, by the item's own answer.
pub(super) struct Oracle<'a> {
    likes: &'a dyn Fn(&str) -> f64,
    asked: usize,
    fails_after: usize,
}

impl Answerer for Oracle<'_> {
    fn answer(
        &mut self,
        requests: &[&Request],
        wanted: &[bool],
        done: &mut dyn FnMut(usize, Answered) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        for (at, request) in requests.iter().enumerate().rev() {
            let Request::LogLikelihood { continuation, .. } = request else { continue };
            if !wanted[at] {
                continue;
            }
            if self.asked == self.fails_after {
                return Err(TaskError::Empty { file: "killed".into() });
            }
            self.asked += 1;
            let response = likelihood((self.likes)(continuation));
            done(at, Answered { response, dropped_shots: 0, cut_tokens: 0 })?;
        }
        Ok(())
    }
}

/// Remembers in memory.
#[derive(Default)]
struct Memory(HashMap<String, Record>);

impl Recall for Memory {
    fn find(&self, key: &str) -> Option<Record> {
        self.0.get(key).cloned()
    }

    fn keep(&mut self, record: &Record) -> Result<(), TaskError> {
        self.0.insert(record.key.clone(), record.clone());
        Ok(())
    }
}

pub(super) fn key() -> RecordKey {
    RecordKey { model: "m".into(), settings: serde_json::json!({}) }
}

pub(super) fn oracle(likes: &dyn Fn(&str) -> f64) -> Oracle<'_> {
    Oracle { likes, asked: 0, fails_after: usize::MAX }
}

#[test]
fn every_task_has_a_name_of_its_own_and_reads_its_sample() {
    for (at, task) in TASKS.iter().enumerate() {
        assert!(TASKS[..at].iter().all(|other| other.name() != task.name()), "{}", task.name());
        assert!(find(task.name()).is_ok());
        let options = Options { window: 2048, ..Options::default() };
        match task.items(&SAMPLE, &options) {
            Ok(items) => {
                assert!(!items.items.is_empty(), "{}", task.name());
                let mut ids: Vec<&str> = items.items.iter().map(|it| it.id.as_str()).collect();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), items.items.len(), "{}: ids are unique", task.name());
                // The sample has few subjects; without a tokenizer, lengths are estimates.
                let expected = ["without a file", "estimated"];
                let odd = |line: &String| !expected.iter().any(|it| line.contains(it));
                assert!(!items.warnings.lines().any(|it| odd(&it)), "{}", task.name());
            }
            Err(TaskError::NoData { .. } | TaskError::Judge { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(find("hellaswog").err().unwrap().to_string().contains("hellaswag, "));
}

#[test]
fn prompts_of_examinations_are_those_of_authors_and_harness() {
    let options = |template, num_fewshot| Options { num_fewshot, template, ..Options::default() };
    let first = |task: &dyn Task, options: &Options| {
        let items = task.items(&SAMPLE, options).unwrap().items;
        let law = items.into_iter().find(|it| it.id.starts_with("law") || it.subject != "law");
        let requests = law.unwrap().requests;
        let Request::LogLikelihood { context, continuation } = &requests[1] else { panic!() };
        (context.text(0), continuation.clone())
    };
    let ceval = find("ceval").unwrap();
    let law = |mut wanted: Options| {
        wanted.subjects = vec!["law".into()];
        first(ceval, &wanted)
    };
    let question =
        "两人约定以一只羊换两袋米，这属于____。\nA. 赠与\nB. 买卖\nC. 互易\nD. 借用\n答案：";
    let (text, letter) = law(options(Template::Official, 0));
    let head = "以下是中国关于法学考试的单项选择题，请选出其中的正确答案。\n\n";
    assert_eq!((text, letter.as_str()), (format!("{head}{question}"), "B"));
    let (text, letter) = law(options(Template::Harness, 1));
    let shot = "在路上拾到他人的钱包，应当____。\nA. 自己留下\nB. 归还失主或交给警察\nC. 扔掉\n\
                D. 与朋友分掉\n答案： B\n\n";
    let head = "以下是中国关于法学的单项选择题，请选出其中的正确答案。\n\n";
    assert_eq!((text, letter.as_str()), (format!("{head}{shot}{question}"), " B"));
    let (text, letter) = first(find("cmmlu").unwrap(), &options(Template::Official, 0));
    assert!(text.starts_with(
        "以下是关于中国饮食文化的单项选择题，请直接给出正确答案的选项。\n\n题目：元宵节"
    ));
    assert!(text.ends_with("\n答案是：") && letter == "B", "{text}");
    let (text, letter) = first(find("mmlu").unwrap(), &options(Template::Harness, 2));
    assert!(text.contains("about astronomy.\n\nWhich body") && text.ends_with("\nAnswer:"));
    assert!(text.contains("Answer: B\n\nHow long") && letter == " B", "{text}");

    let many = ceval.items(&SAMPLE, &options(Template::Official, 3)).unwrap_err();
    assert!(matches!(many, TaskError::Shots { found: 2, wanted: 3, .. }), "{many}");
    let wanted = Options { subjects: vec!["lore".into()], ..Options::default() };
    let error = ceval.items(&SAMPLE, &wanted).unwrap_err().to_string();
    assert!(error.contains("no subject `lore`"), "{error}");
}

#[test]
#[expect(clippy::float_cmp, reason = "exact in binary")]
fn averages_of_examinations_count_subjects_alike() {
    let exam = find("ceval").unwrap();
    let record = |subject: &str, acc: f64| Record {
        task: "ceval".into(),
        version: 1,
        id: String::new(),
        subject: subject.into(),
        item: String::new(),
        key: String::new(),
        score: Score::new([("acc", acc)]),
        responses: vec![],
        dropped_shots: 0,
        cut_tokens: 0,
    };
    // Physics (hard, STEM) 1 of 1, law (humanities) 1 of 4.
    let records = [
        record("college_physics", 1.0),
        record("law", 1.0),
        record("law", 0.0),
        record("law", 0.0),
        record("law", 0.0),
    ];
    let groups = exam.aggregate(&records);
    let of = |name: &str| groups.iter().find(|group| group.name == name).unwrap().metrics["acc"];
    assert_eq!(groups[0].name, "all");
    for (name, value) in
        [("all", 0.625), ("STEM", 1.0), ("Humanities", 0.25), ("hard", 1.0), ("items", 0.4)]
    {
        assert_eq!(of(name).value, value, "{name}");
    }
    // Four items, one right: standard deviation 1/2, error 1/4.
    assert_eq!(of("law").standard_error, Some(0.25));
    assert!(of("all").standard_error.is_none(), "one item alone has no error");
    assert!(groups.iter().all(|group| group.name != "Other"), "empty categories are left out");
}

#[test]
fn oddities_of_the_data_are_counted_and_gaps_are_errors() {
    let head = "id,question,A,B,C,D,answer\n";
    let rows = "0,q,1,2,3,4,A\n1,q,1,2,3,4,A\n2,r,1,2,3,4,E\n3,,1,2,3,4,D\n";
    let files = Files::of(&[("ceval/val/law_val.csv", &(head.to_owned() + rows))]);
    let ceval = find("ceval").unwrap();
    let items = ceval.items(&files, &Options::default()).unwrap();
    assert_eq!(items.items.len(), 3);
    assert_eq!(items.warnings.count("answers outside the options, items left out"), 1);
    assert_eq!(items.warnings.count("repeated items, asked again"), 1);
    assert_eq!(items.warnings.count("empty questions"), 1);
    assert_eq!(items.warnings.count("subjects without a file, not in the averages"), 51);
    let without =
        Files::of(&[("ceval/val/law_val.csv", "id,question,A,B,C,answer\n0,q,1,2,3,A\n")]);
    let error = ceval.items(&without, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("no column `D`"), "{error}");
    let none = ceval.items(&Files::default(), &Options::default()).unwrap_err();
    assert!(matches!(none, TaskError::NoData { .. }), "{none}");

    let bad = [
        ("hellaswag", "hellaswag/hellaswag_val_full.txt", "a\n0\nb\nc\nd\n"),
        ("hellaswag", "hellaswag/hellaswag_val_full.txt", "a\nx\nb\nc\nd\ne\n"),
        ("hellaswag", "hellaswag/hellaswag_val_full.txt", "a\n4\nb\nc\nd\ne\n"),
        ("arc-easy", "arc/arc_easy.jsonl", "{\"query\": \"q\", \"choices\": [\"a\"]}"),
        ("arc-easy", "arc/arc_easy.jsonl", "{\"question\": 3}"),
        ("piqa", "piqa/piqa.jsonl", "{\"goal\": \"g\", \"sol1\": \"a\", \"label\": 0}"),
        ("winogrande", "winogrande/winogrande.jsonl", "{\"sentence\": \"no gap\"}"),
        ("truthfulqa", "truthfulqa/TruthfulQA.csv", "Question,Best Answer\nq,a\n"),
        ("lambada", "lambada/lambada_test.jsonl", "{\"text\": \"word\"}"),
    ];
    for (task, file, text) in bad {
        let result = find(task).unwrap().items(&Files::of(&[(file, text)]), &Options::default());
        assert!(result.is_err(), "{task}: {text}");
    }
    let arc = "{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": 2}\n\
               {\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": 1}";
    let items = find("arc-easy").unwrap();
    let items = items.items(&Files::of(&[("arc/arc_easy.jsonl", arc)]), &Options::default());
    let items = items.unwrap();
    assert_eq!(items.warnings.count("answers outside the options, items left out"), 1);
    assert_eq!(items.items.len(), 1);
}

#[test]
fn forms_of_one_benchmark_ask_alike() {
    let hella = "{\"activity_label\": \"Tea\", \"ctx_a\": \"[header] How [title] Boil.\", \
                 \"ctx_b\": \"the MAN\", \"endings\": [\" a [x] b\", \"c\"], \"label\": \"1\"}";
    let task = find("hellaswag").unwrap();
    let data = Files::of(&[("hellaswag/hellaswag_val.jsonl", hella)]);
    let item = task.items(&data, &Options::default()).unwrap().items.remove(0);
    let Request::LogLikelihood { context, continuation } = &item.requests[0] else { panic!() };
    // Of a mark in the middle the spaces on both sides are left, which become one.
    assert_eq!(context.text(0), "Tea: How. Boil. The man");
    assert_eq!((continuation.as_str(), &item.answer["right"]), (" a b", &1.into()));
    let plain = "{\"query\": \"Question: q\", \"choices\": [\"a\", \"b\"], \"gold\": 1}";
    let hub = "{\"question\": \"q\", \"choices\": {\"text\": [\"a\", \"b\"], \
               \"label\": [\"A\", \"B\"]}, \"answerKey\": \"B\"}";
    let original = "{\"question\": {\"stem\": \"q\", \"choices\": [{\"text\": \"a\", \
                    \"label\": \"A\"}, {\"text\": \"b\", \"label\": \"B\"}]}, \"answerKey\": \"B\"}";
    let ask = |text: &str| {
        let data = Files::of(&[("arc/arc_easy.jsonl", text)]);
        find("arc-easy").unwrap().items(&data, &Options::default()).unwrap().items
    };
    assert_eq!(ask(plain), ask(hub));
    assert_eq!(ask(plain), ask(original));
}

#[test]
#[expect(clippy::float_cmp, reason = "0 and 1 are exact")]
fn choices_are_scored_raw_and_per_character() {
    let task = find("hellaswag").unwrap();
    let item = task.items(&SAMPLE, &Options::default()).unwrap().items.remove(0);
    let shown = |at: usize| item.answer["options"][at].as_str().unwrap().chars().count();
    assert_eq!((shown(0), shown(3)), (48, 45));
    // Per character -0.5 and -0.53: the last is likelier, the first per character.
    let score = task.score(&item, &[-24.0, -90.0, -90.0, -23.76].map(likelihood)).unwrap();
    assert_eq!((score.metrics["acc"], score.metrics["acc_norm"]), (0.0, 1.0));
    assert!(score.answer.starts_with("closes the oven") && score.right == score.answer);
    let broken = task.score(&item, &[f64::NAN, -1.0, -1.0, -1.0].map(likelihood)).unwrap();
    assert_eq!(broken.metrics["acc"], 0.0, "no number is no answer");
    assert!(task.score(&item, &[likelihood(-1.0)]).is_err());

    let task = find("truthfulqa").unwrap();
    let item = task.items(&SAMPLE, &Options::default()).unwrap().items.remove(0);
    // Two true ones of e^0 and e^-1, two false ones of e^-1 and e^-2.
    let score = task.score(&item, &[0.0, -1.0, -1.0, -2.0].map(likelihood)).unwrap();
    assert_eq!(score.metrics["mc1"], 1.0);
    let e = (-1.0_f64).exp();
    assert!((score.metrics["mc2"] - (1.0 + e) / (1.0 + 2.0 * e + e * e)).abs() < 1e-12);

    let task = find("lambada").unwrap();
    let items = task.items(&SAMPLE, &Options::default()).unwrap().items;
    let greedy = |greedy| Response::LogLikelihood { log_prob: Some(-2.0), tokens: 1, greedy };
    assert_eq!(task.score(&items[0], &[greedy(true)]).unwrap().metrics["acc"], 1.0);
    assert_eq!(task.score(&items[0], &[greedy(false)]).unwrap().metrics["acc"], 0.0);
}

/// No answer is right by its absence, and none wrong: the figure would be of nothing.
#[test]
fn an_item_without_its_right_answer_is_an_error() {
    for name in ["hellaswag", "ceval"] {
        let task = find(name).unwrap();
        let mut item = task.items(&SAMPLE, &Options::default()).unwrap().items.remove(0);
        let responses = [-1.0, -2.0, -3.0, -4.0].map(likelihood);
        task.score(&item, &responses).unwrap();
        item.answer = serde_json::json!("B");
        let error = task.score(&item, &responses).unwrap_err().to_string();
        assert!(error.contains(&item.id) && error.contains("right answer"), "{error}");
    }
}

#[test]
fn a_stopped_run_goes_on_where_it_stopped() {
    let task = find("arc-easy").unwrap();
    let items = task.items(&SAMPLE, &Options::default()).unwrap().items;
    let likes = |text: &str| -(text.len() as f64);
    let silent = crate::progress::Silent;
    let whole =
        run(task, (&items, 0..items.len()), &key(), &mut oracle(&likes), (&mut (), &silent))
            .unwrap();
    let mut memory = Memory::default();
    let mut stopped = Oracle { fails_after: 6, ..oracle(&likes) };
    assert!(
        run(task, (&items, 0..items.len()), &key(), &mut stopped, (&mut memory, &silent)).is_err()
    );
    assert_eq!(memory.0.len(), 1, "six answers make one item of four");
    let mut rest = oracle(&likes);
    let again =
        run(task, (&items, 0..items.len()), &key(), &mut rest, (&mut memory, &silent)).unwrap();
    assert_eq!(rest.asked, 8);
    assert_eq!(again, whole);
    // A part is that part of the whole.
    let part = run(task, (&items, 1..3), &key(), &mut oracle(&likes), (&mut (), &silent)).unwrap();
    assert_eq!(part, whole[1..3]);
    // Another model, another setting: nothing is known of it.
    let other = RecordKey { settings: serde_json::json!({ "window": 9 }), ..key() };
    let mut asked = oracle(&likes);
    run(task, (&items, 0..items.len()), &other, &mut asked, (&mut memory, &silent)).unwrap();
    assert_eq!(asked.asked, 12);
    let line = serde_json::to_string(&whole[0]).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), whole[0]);
}

#[test]
fn letters_of_several_tokens_are_told() {
    let task = find("cmmlu").unwrap();
    let items = task.items(&SAMPLE, &Options::default()).unwrap();
    let long = Response::LogLikelihood { log_prob: Some(-3.0), tokens: 2, greedy: false };
    let responses = [likelihood(-4.0), long, likelihood(-5.0), likelihood(-6.0)];
    let silent = crate::progress::Silent;
    let likes = |_: &str| -1.0;
    let mut records = run(
        task,
        (&items.items, 0..items.items.len()),
        &key(),
        &mut oracle(&likes),
        (&mut (), &silent),
    )
    .unwrap();
    let quiet = summarize(task, &Options::default(), &records, &Warnings::default());
    assert!(quiet.warnings.is_empty(), "{:?}", quiet.warnings);
    records[0].responses = responses.to_vec();
    records[1].dropped_shots = 2;
    let told = summarize(task, &Options::default(), &records, &Warnings::default()).warnings;
    assert!(told.iter().any(|line| line.contains("several tokens") && line.contains(": 1 ")));
    assert!(told.iter().any(|line| line.contains("oldest shots dropped")), "{told:?}");
}
