use super::*;
use serde_json::json;

fn follows(id: &str, kwargs: serde_json::Value, response: &str) -> bool {
    let serde_json::Value::Object(kwargs) = kwargs else { panic!("kwargs are an object") };
    Instruction::new(id, kwargs).unwrap().follows(response)
}

/// 30 words.
const LONG: &str = "a river and a boat a river and a boat a river and a boat a river and a boat \
    a river and a boat a river and a boat";

/// Of every kind: arguments, one response that follows and one that does not.
const CASES: [(&str, &str, &str, &str); 25] = [
    (
        "change_case:capital_word_frequency",
        r#"{"capital_relation": "at least", "capital_frequency": 3}"#,
        "NASA met ESA, and JAXA's head came.",
        "NASA met Esa, and JAXA's head came.",
    ),
    (
        "change_case:english_capital",
        "{}",
        "THE RIVER IS WIDE AND THE BOATS ARE OLD.",
        "THE RIVER IS WIDE AND THE BOATS ARE old.",
    ),
    (
        "change_case:english_lowercase",
        "{}",
        "the river is wide and the boats are old.",
        "The river is wide and the boats are old.",
    ),
    (
        "combination:repeat_prompt",
        r#"{"prompt_to_repeat": "Name a river."}"#,
        " name a river. The Elbe.",
        "The Elbe. Name a river.",
    ),
    ("combination:two_responses", "{}", "One.\n******\nTwo.", "One.\n******\nOne."),
    (
        "detectable_content:number_placeholders",
        r#"{"num_placeholders": 2}"#,
        "[name] lives in [city]",
        "[name] lives in [city",
    ),
    (
        "detectable_content:postscript",
        r#"{"postscript_marker": "P.S."}"#,
        "Bye.\np. s. Write back",
        "Bye.\nPS Write back",
    ),
    (
        "detectable_format:constrained_response",
        "{}",
        "Well. My answer is maybe.",
        "My answer is: maybe.",
    ),
    ("detectable_format:json_format", "{}", "```json\n{\"a\": [1]}\n```", "{a: 1}"),
    (
        "detectable_format:multiple_sections",
        r#"{"section_spliter": "Part", "num_sections": 2}"#,
        "Part 1\nx\nPart 2\ny",
        "Part 1\nx\nPart two\ny",
    ),
    ("detectable_format:number_bullet_lists", r#"{"num_bullets": 2}"#, "* a\n- b", "* a\n- b\n* c"),
    (
        "detectable_format:number_highlighted_sections",
        r#"{"num_highlights": 2}"#,
        "*one* and *two*",
        "*one* and * * and *two",
    ),
    ("detectable_format:title", "{}", "<<The Elbe>>\nText", "<< >>\nText"),
    (
        "keywords:existence",
        r#"{"keywords": ["river", "boat"]}"#,
        "Rivers carry BOATS.",
        "Rivers carry ships.",
    ),
    (
        "keywords:forbidden_words",
        r#"{"forbidden_words": ["boat"]}"#,
        "Rivers carry boats.",
        "Rivers carry a boat.",
    ),
    (
        "keywords:frequency",
        r#"{"keyword": "boat", "frequency": 2, "relation": "less than"}"#,
        "A boat.",
        "A boat, a Boat.",
    ),
    (
        "keywords:letter_frequency",
        r#"{"letter": "R", "let_frequency": 3, "let_relation": "at least"}"#,
        "River and rain",
        "River and sun",
    ),
    (
        "language:response_language",
        r#"{"language": "de"}"#,
        "Der Fluss ist breit und die Boote sind alt.",
        "The river is wide and the boats are old.",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        r#"{"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "boats"}"#,
        "Rivers.\n\n\"Boats, they said.\"",
        "Boats.\n\nRivers.",
    ),
    (
        "length_constraints:number_paragraphs",
        r#"{"num_paragraphs": 2}"#,
        "One\n***\nTwo\n***\n",
        "One\n***\n***\nTwo",
    ),
    (
        "length_constraints:number_sentences",
        r#"{"num_sentences": 3, "relation": "less than"}"#,
        "Dr. Wu came. He sat",
        "Dr. Wu came. He sat. Then?",
    ),
    (
        "length_constraints:number_words",
        r#"{"num_words": 30, "relation": "at least"}"#,
        LONG,
        "too short",
    ),
    ("punctuation:no_comma", "{}", "no comma", "a comma, here"),
    (
        "startend:end_checker",
        r#"{"end_phrase": "That is all."}"#,
        "Well. \"That is ALL.\"",
        "That is all. Bye.",
    ),
    ("startend:quotation", "{}", "\"all of it\"", "\"all\" of it"),
];

#[test]
fn every_kind_tells_right_from_wrong() {
    assert_eq!(
        CASES.map(|(id, ..)| id).to_vec(),
        CHECKS.iter().map(|check| check.id).collect::<Vec<_>>()
    );
    for (id, kwargs, right, wrong) in CASES {
        let kwargs: serde_json::Value = serde_json::from_str(kwargs).unwrap();
        assert!(follows(id, kwargs.clone(), right), "{id} refuses {right:?}");
        assert!(!follows(id, kwargs.clone(), wrong), "{id} takes {wrong:?}");
        assert!(!follows(id, kwargs, " \n"), "{id} takes nothing");
    }
}

#[test]
fn loose_forms_drop_lines_and_asterisks() {
    let prompt = r#"{"key": 1, "prompt": "p", "instruction_id_list":
        ["startend:quotation", "punctuation:no_comma"], "kwargs": [{}, {"relation": null}]}"#
        .replace('\n', " ");
    let prompt = &Prompt::read("x.jsonl", &prompt).unwrap()[0];
    let both = |response: &str| {
        let verdict = prompt.judge(response);
        (verdict.strict, verdict.loose)
    };
    assert_eq!(both("\"text\""), (vec![true, true], vec![true, true]));
    assert_eq!(both("Sure, here:\n**\"text\"**"), (vec![false, false], vec![true, true]));
    assert_eq!(both("Sure, here:\n\"text\"\nBye"), (vec![false, false], vec![true, true]));
    assert_eq!(both("\"text,\nno"), (vec![false, false], vec![false, true]));
    let verdicts = [prompt.judge("\"text\""), prompt.judge("\"text,\nno")];
    let all = Accuracy::of(&verdicts);
    assert_eq!((all.prompt_strict, all.instruction_strict), (0.5, 0.5));
    assert_eq!((all.prompt_loose, all.instruction_loose), (0.5, 0.75));
}

#[test]
fn damaged_lines_name_what_is_wrong() {
    let read = |list: &str, kwargs: &str| {
        let line = format!(
            r#"{{"key": 7, "prompt": "p", "instruction_id_list": {list}, "kwargs": {kwargs}}}"#
        );
        Prompt::read("x.jsonl", &line).unwrap_err().to_string()
    };
    let cases = [
        (r#"["punctuation:none"]"#, "[{}]", "no instruction `punctuation:none`"),
        (r#"["punctuation:no_comma"]"#, "[]", "1 instructions with 0 kwargs"),
        (r#"["startend:end_checker"]"#, r#"[{"end_phrase": null}]"#, "lacks `end_phrase`"),
        (r#"["punctuation:no_comma"]"#, r#"[{"colour": 1}]"#, "unknown field `colour`"),
        (
            r#"["length_constraints:number_words"]"#,
            r#"[{"num_words": -3, "relation": "at least"}]"#,
            "invalid value",
        ),
    ];
    for (list, kwargs, wanted) in cases {
        let message = read(list, kwargs);
        assert!(message.contains(wanted) && message.contains("`line 1`"), "{message}");
    }
    let line =
        r#"{"key":1,"prompt":"p","instruction_id_list":["punctuation:no_comma"],"kwargs":[{}]}"#;
    let twice = Prompt::read("x.jsonl", &format!("{line}\n\n{line}")).unwrap_err().to_string();
    assert!(twice.contains("`line 3`") && twice.contains("key 1 occurs twice"), "{twice}");
}

#[test]
fn sentences_end_where_readers_end_them() {
    let cases = [
        ("", 0),
        ("no end", 1),
        ("One. Two! Three?", 3),
        ("He said \"Go.\" She went.", 2),
        ("Dr. Wu met J. Bach at 3 p.m. on Monday.", 1),
        ("It costs 3.50 euros. Cheap.", 2),
        ("Wait... what? Yes.", 2),
        ("line one\nline two", 1),
    ];
    for (text, count) in cases {
        assert_eq!(sentences(text), count, "{text}");
    }
}

#[test]
fn capital_words_split_as_tokens() {
    for (text, count) in [("A U.S. AI-BASED Plan", 3), ("I'M", 2), ("WHO,WHAT:12", 2), ("3 * 4", 0)]
    {
        assert_eq!(capital_words(text), count, "{text}");
    }
}

#[test]
fn keywords_are_patterns_and_broken_ones_are_literal() {
    let with =
        |keyword: &str, text| follows("keywords:existence", json!({"keywords": [keyword]}), text);
    assert!(with("colou?r", "my color") && with("C++(", "I like c++( a lot"));
    assert!(!with("C++(", "I like C"));
}

#[test]
fn unknown_languages_are_named() {
    let line = |code: &str| {
        format!(
            r#"{{"key":1,"prompt":"p","instruction_id_list":["language:response_language"],"kwargs":[{{"language":"{code}"}}]}}"#
        )
    };
    let asked = |code| {
        let prompts = Prompt::read("x", &line(code)).unwrap();
        prompts[0].unknown_languages().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(asked("de").is_empty());
    assert_eq!(asked("sw"), ["sw"]);
}
