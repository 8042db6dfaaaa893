//! Faults of data are told with the file, the row and the subject that are at fault.
use super::{
    Answered, Answerer, Options, Prompt, Request, SAMPLE, TaskError,
    encode::Encoder,
    find, run,
    tests::{Files, key},
};
use crate::{eval::suite::Suite, package, progress::Silent};

/// What a task says of a file that cannot be used at all.
fn refused(task: &str, files: &[(&str, &str)], options: &Options) -> String {
    find(task).unwrap().items(&Files::of(files), options).unwrap_err().to_string()
}

/// Of the good row behind a bad one, and the bad one alone: where it was left out.
fn left_out(task: &str, file: &str, [bad, good]: [&str; 2], header: &str, row: usize, why: &str) {
    let both = format!("{header}{bad}\n{good}\n");
    let items = find(task).unwrap().items(&Files::of(&[(file, &both)]), &Options::default());
    let items = items.unwrap();
    assert_eq!(items.items.len(), 1, "{task}: {both}");
    let told: Vec<String> = items.warnings.lines().collect();
    let line = format!("{why}, items left out: 1 (first: {file}, row {row})");
    assert!(told.contains(&line), "{line}: {told:?}");
    let alone = refused(task, &[(file, &format!("{header}{bad}\n"))], &Options::default());
    let line = format!("`{file}` holds no item that can be asked: {why}, items left out: 1");
    assert!(alone.contains(&line) && alone.contains(&format!("row {row})")), "{alone}");
}

#[test]
fn empty_answers_and_options_are_told_with_their_row() {
    let (outside, empty) = ("answers outside the options", "empty options");
    let exam = "id,question,A,B,C,D,answer\n";
    left_out("ceval", "ceval/val/law_val.csv", ["0,q,1,2,3,4,", "1,r,1,2,3,4,A"], exam, 1, outside);
    let hella = "hellaswag/hellaswag_val.jsonl";
    let ending = |text: &str, label: &str| {
        format!(
            "{{\"activity_label\": \"a\", \"ctx_a\": \"b\", \"ctx_b\": \"c\", \
             \"endings\": [\"x\", \"{text}\"], \"label\": \"{label}\"}}"
        )
    };
    let good = ending("y", "1");
    // Of marks alone nothing is left; the first line is blank.
    for bad in ["", " ", "[header]"] {
        left_out("hellaswag", hella, [&ending(bad, "1"), &good], "\n", 2, empty);
    }
    left_out("hellaswag", hella, [&ending("y", ""), &good], "\n", 2, outside);
    let piqa = |text: &str| {
        format!("{{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"{text}\", \"label\": 0}}")
    };
    left_out("piqa", "piqa/piqa.jsonl", [&piqa(""), &piqa("b")], "\n\n", 3, empty);
    let arc =
        |text: &str| format!("{{\"query\": \"q\", \"choices\": [\"a\", \"{text}\"], \"gold\": 1}}");
    left_out("arc-easy", "arc/arc_easy.jsonl", [&arc(" "), &arc("b")], "", 1, empty);
    let gap = |name: &str| {
        format!(
            "{{\"sentence\": \"_ sat.\", \"option1\": \"Ann\", \"option2\": \"{name}\", \"answer\": \"1\"}}"
        )
    };
    left_out("winogrande", "winogrande/winogrande.jsonl", [&gap(""), &gap("Bo")], "", 1, empty);
    let truth = "Question,Best Answer,Correct Answers,Incorrect Answers\n";
    left_out("truthfulqa", "truthfulqa/TruthfulQA.csv", ["q,,b,c", "q,a,b,c"], truth, 1, empty);
    let words = |text: &str| format!("{{\"text\": \"{text}\"}}");
    let lambada = "lambada/lambada_test.jsonl";
    left_out("lambada", lambada, [&words("a word "), &words("a word")], "", 1, empty);
}

#[test]
fn options_that_are_no_texts_are_named() {
    let hella = "{\"activity_label\": \"a\", \"ctx_a\": \"b\", \"ctx_b\": \"c\", \
                 \"endings\": [\"x\", 7], \"label\": \"1\"}";
    let arc = |choices: &str| {
        format!("{{\"question\": \"q\", \"choices\": {choices}, \"answerKey\": \"1\"}}")
    };
    let answers = arc("{\"text\": [1, 2], \"label\": [\"1\", \"2\"]}");
    let labels = arc("{\"text\": [\"a\", \"b\"], \"label\": [1, 2]}");
    let gap = "{\"context_options\": [\"Ann\", null], \"continuation\": \"sat\", \"gold\": 0}";
    for (task, file, row, told) in [
        (
            "hellaswag",
            "hellaswag/hellaswag_val.jsonl",
            hella,
            "`endings`: expected a text, found 7",
        ),
        ("arc-easy", "arc/arc_easy.jsonl", &answers, "`text`: expected a text, found 1"),
        ("arc-easy", "arc/arc_easy.jsonl", &labels, "`label`: expected a text, found 1"),
        (
            "winogrande",
            "winogrande/winogrande.jsonl",
            gap,
            "`context_options`: expected a text, found null",
        ),
    ] {
        let error = refused(task, &[(file, &format!("\n{row}\n"))], &Options::default());
        let place = error.contains(&format!("`{file}")) && error.contains("row 2");
        assert!(place && error.contains(told), "{task}: {error}");
    }
}

#[test]
fn a_subject_at_fault_is_the_one_that_is_named() {
    let head = "id,question,A,B,C,D,answer\n";
    let [test, good] = ["0,q,1,2,3,4,", "0,q,1,2,3,4,A"].map(|row| format!("{head}{row}\n"));
    let law = Options { subjects: vec!["law".into()], ..Options::default() };
    // Another subject's file is there, and is not asked for: law's is missing.
    let other = [("ceval/val/accountant_val.csv", good.as_str())];
    let told = refused("ceval", &other, &law);
    assert!(told.contains("`ceval/val/law_val.csv` is not in the data folder"), "{told}");
    // Law's has no answers; that of the first subject has nothing to do with it.
    let both = [other[0], ("ceval/val/law_val.csv", &test)];
    for options in [&law, &Options::default()] {
        let told = refused("ceval", &both, options);
        assert!(told.contains("`ceval/val/law_val.csv` holds no item"), "{told}");
        assert!(!told.contains("accountant"), "{told}");
    }
    // Examples without answers are the fault of their file, not of the questions'.
    let files = [("ceval/val/law_val.csv", good.as_str()), ("ceval/dev/law_dev.csv", &test)];
    let shots = Options { num_fewshot: 1, ..law };
    let told = refused("ceval", &files, &shots);
    assert!(told.contains("`ceval/dev/law_dev.csv` holds no item"), "{told}");
    let told = refused("ceval", &files[..1], &shots);
    assert!(told.contains("`ceval/dev/law_dev.csv` is not in the data folder"), "{told}");
    // With both in order it is asked.
    let files = Files::of(&[files[0], ("ceval/dev/law_dev.csv", &good)]);
    assert_eq!(find("ceval").unwrap().items(&files, &shots).unwrap().items.len(), 1);
}

#[test]
fn damaged_rows_are_named_by_their_line() {
    for (task, file, text, told) in [
        ("piqa", "piqa/piqa.jsonl", "\n{\"goal\": \"g\"}", "row 2"),
        ("piqa", "piqa/piqa.jsonl", "\n\n{\"query\": \"q\"}", "row 3"),
        ("winogrande", "winogrande/winogrande.jsonl", "\n{\"sentence\": \"s\"}", "row 2"),
        ("lambada", "lambada/lambada_test.jsonl", "\n\n{\"text\": \"word\"}", "row 3"),
        ("arc-easy", "arc/arc_easy.jsonl", "\n{\"question\": 3}", "row 2"),
        ("ceval", "ceval/val/law_val.csv", "question,A,B,C,D,answer\nq,1,2,3,4,A\nq,1\n", "row 2"),
        ("ifeval", "ifeval/input_data.jsonl", "\n{}", "line 2"),
    ] {
        let error = refused(task, &[(file, text)], &Options::default());
        assert!(error.contains(&format!("`{file}")) && error.contains(told), "{task}: {error}");
    }
}

#[test]
fn blank_answers_of_suites_are_told_with_their_item() {
    for (scorer, told) in [
        ("{ kind = \"exact\", answers = [\"a\", \" \"] }", "text 2 of `answers` is blank"),
        ("{ kind = \"f1\", answers = [\"\"] }", "text 1 of `answers` is blank"),
        ("{ kind = \"rouge-l\", references = [\"\"] }", "text 1 of `references` is blank"),
        ("{ kind = \"exact\", answers = [] }", "`answers` is empty"),
    ] {
        let text = format!(
            "name = \"own\"\nversion = 1\ndescription = \"d\"\nmax-tokens = 4\n[[item]]\nid = \"sum\"\n\
             category = \"generation\"\nsub = \"notice\"\nlanguage = \"en\"\nprompt = \"p\"\nscorer = {scorer}\n"
        );
        let error = Suite::read("own.toml", &text).unwrap_err().to_string();
        assert!(error.contains("`own.toml`, `sum`: ") && error.contains(told), "{error}");
    }
}

/// Fails at one request.
struct Unable(usize);

impl Answerer for Unable {
    fn answer(
        &mut self,
        _: &[&Request],
        _: &[bool],
        _: &mut dyn FnMut(usize, Answered) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        Err(TaskError::Request { at: self.0, detail: "why".into() })
    }
}

#[test]
fn what_cannot_be_asked_is_told_with_its_item() {
    let task = find("piqa").unwrap();
    let items = task.items(&SAMPLE, &Options::default()).unwrap().items;
    // Two requests an item: the fourth is of the second.
    for (at, id) in [(0, "piqa/0"), (1, "piqa/0"), (3, "piqa/1")] {
        let asked = (items.as_slice(), 0..items.len());
        let error = run(task, asked, &key(), &mut Unable(at), (&mut (), &Silent)).unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with(&format!("task `piqa`, item `{id}`: why")), "{told}");
    }
    let opened = package::open("builtin:milm-mini").unwrap();
    let tokenizer = opened.tokenizer().unwrap();
    let request = |text: &str| Request::LogLikelihood {
        context: Prompt::plain("One and one is"),
        continuation: text.to_owned(),
    };
    let told = |window: usize, text: &str| {
        let (first, second) = (request(" two"), request(text));
        let encoder = Encoder::new(tokenizer, None, window).unwrap();
        encoder.questions(&[&first, &second]).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(told(64, " three"), Ok(()));
    assert_eq!(told(64, "").unwrap_err(), "request 1: an answer has no tokens of its own");
    assert!(told(2, &" many words".repeat(9)).unwrap_err().contains("has place for 2"));
}
