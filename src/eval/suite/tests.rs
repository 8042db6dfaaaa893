use super::*;

fn item(scorer: &str) -> Result<Suite, EvalError> {
    let text = format!(
        "name = \"x\"\nversion = 1\n[[item]]\nid = \"a\"\ncategory = \"code\"\nprompt = \"p\"\nscorer = {scorer}"
    );
    Suite::read("x.toml", &text)
}

fn score(scorer: &str, answer: &str) -> f64 {
    item(scorer).unwrap().items[0].scorer.score(answer)
}

#[test]
fn the_sample_has_every_category_in_both_languages() {
    let suite = Suite::read("sample.toml", SAMPLE).unwrap();
    for category in Category::ALL {
        for language in ["en", "zh"] {
            let found =
                suite.items.iter().any(|it| it.category == category && it.language == language);
            assert!(found, "{} in {language}", category.name());
        }
    }
    assert!(suite.items.iter().all(|it| !it.sub.is_empty()));
}

/// A perfect dummy scores 1, a silent one 0 on every item.
#[test]
fn sample_items_tell_good_answers_from_none() {
    let suite = Suite::read("sample.toml", SAMPLE).unwrap();
    let good = |id: &str| match id {
        "generation-en-notice" => "The library is closed on Friday for repair work.",
        "generation-zh-notice" => "图书馆因维修星期五闭馆。",
        "generation-en-list" => "- apples\n- red pears\n- plums",
        "brainstorming-en-names" => "1. A\n2. B\n3. C\n4. D\n5. E",
        "brainstorming-zh-uses" => "1. 包装\n2、擦窗\n3、垫桌\n4、折纸\n5、引火",
        "dialogue-en-memory" => "Of course, Tilda.",
        "dialogue-zh-memory" => "您说要去杭州。",
        "qa-en-passage" => "On Sundays.",
        "qa-zh-passage" => "早上六点。",
        "qa-en-choice" => "The answer is B.",
        "qa-zh-choice" => "选C",
        "rewriting-en-past" => "\"The boys walked home and opened the door.\"",
        "rewriting-zh-polite" => "麻烦您关一下窗户，好吗？",
        "summarization-en-meeting" => {
            "The council decided to plant forty lime trees along the river in October, paid with money left from the playground."
        }
        "summarization-zh-news" => "第三小学昨天举行运动会，四百名学生参加，五年级拔河得了第一名。",
        "classification-en-sentiment" => "Negative.",
        "classification-zh-intent" => "闹钟。",
        "extraction-en-json" => "```json\n{\"name\": \"Paula Stein\", \"age\": 63}\n```",
        "extraction-zh-json" => "{\"城市\": \"成都\", \"人数\": 25}",
        "extraction-en-entities" => "Lisbon, Dakar and, Recife".trim_end_matches(','),
        "code-en-function" => "```python\ndef double(x):\n    return 2 * x\n```",
        "code-zh-function" => "def is_even(n):\n    return n % 2 == 0",
        "code-en-sql" => "SELECT name FROM birds WHERE weight > 100;",
        "safety-en-refusal" => "I cannot help with that.",
        "safety-zh-refusal" => "抱歉，我不能帮助您。",
        "safety-en-overrefusal" => "Pour boiling water on them.",
        other => panic!("no good answer for {other}"),
    };
    for item in &suite.items {
        let best = item.scorer.score(good(&item.id));
        assert!(best > 0.85, "{}: {best}", item.id);
        assert!(item.scorer.score("") < 1e-9, "{} takes nothing", item.id);
    }
}

#[test]
#[expect(clippy::float_cmp, reason = "exact in binary")]
fn scorers_by_hand() {
    let cases = [
        (r#"{ kind = "exact", answers = ["Blue", "green"] }"#, " blue.\n", 1.0),
        (r#"{ kind = "exact", answers = ["Blue"] }"#, "dark blue", 0.0),
        (r#"{ kind = "contains", all = ["a1", "b2"], any = ["c3", "d4"] }"#, "A1 d4", 2.0 / 3.0),
        (r#"{ kind = "contains", all = ["a1"], none = ["no"] }"#, "a1, no", 0.0),
        (r#"{ kind = "contains", none = ["no"] }"#, "yes", 1.0),
        (r#"{ kind = "regex", pattern = '^\d+$' }"#, "x\n42\ny", 1.0),
        (r#"{ kind = "choice", options = "ABCD", answer = "C" }"#, "Answer: (C), not A", 1.0),
        (r#"{ kind = "choice", options = "ABCD", answer = "B" }"#, "ABC Bees", 0.0),
        (r#"{ kind = "choice", options = "ABCD", answer = "B" }"#, "答案是B。", 1.0),
        (r#"{ kind = "f1", answers = ["the red house"] }"#, "a red car", 0.5),
        (r#"{ kind = "rouge-l", references = ["x", "a b c d"] }"#, "a c e d", 0.75),
        (r#"{ kind = "rouge-l", references = ["天气很好"] }"#, "天气好", 6.0 / 7.0),
        (r#"{ kind = "code", patterns = ["^f", "g$"] }"#, "f(1)\nx = ')'\nh", 0.5),
        (r#"{ kind = "code", patterns = ["^f", "g$"] }"#, "f(1\ng", 0.0),
        (
            r#"{ kind = "code", patterns = ["^f"] }"#,
            "Here:\n```c\nf(\"(\")\n```\nIt isn't (done",
            1.0,
        ),
    ];
    for (scorer, answer, wanted) in cases {
        assert_eq!(score(scorer, answer), wanted, "{scorer} on {answer}");
    }
    let schema =
        r#"{ kind = "json-schema", schema = { type = "array", items = { type = "integer" } } }"#;
    assert_eq!((score(schema, "```\n[1]\n```"), score(schema, "[1]\n```")), (1.0, 1.0));
    assert_eq!(
        (score(schema, "[1, 2]"), score(schema, "[1.5]"), score(schema, "[1")),
        (1.0, 0.0, 0.0)
    );
}

#[test]
fn damaged_suites_name_the_item() {
    let message = |scorer: &str| item(scorer).unwrap_err().to_string();
    let cases = [
        (r#"{ kind = "choice", options = "AB", answer = "C" }"#, "`C` is not among"),
        (r#"{ kind = "regex", pattern = "(" }"#, "pattern `(`"),
        (r#"{ kind = "exact", answers = [] }"#, "`answers` is empty"),
        (r#"{ kind = "contains", any = [""] }"#, "empty text"),
        (r#"{ kind = "judge" }"#, "unknown variant `judge`"),
        (r#"{ kind = "json-schema", schema = { type = "nothing" } }"#, "schema:"),
        (r#"{ kind = "exact", answers = ["a"], weight = 2 }"#, "unknown field `weight`"),
    ];
    for (scorer, wanted) in cases {
        let message = message(scorer);
        assert!(message.contains(wanted) && message.contains("`a`"), "{message}");
    }
    let whole = |text: &str| Suite::read("x.toml", text).unwrap_err().to_string();
    assert!(whole("name = \"x\"\nversion = 1\nitem = []").contains("no items"));
    assert!(whole("name = \"x\"").contains("the suite"));
    let entry = "[[item]]\nid = \"a\"\ncategory = \"code\"\nprompt = \"p\"\nscorer = { kind = \"exact\", answers = [\"b\"] }\n";
    let head = "name = \"x\"\nversion = 1\n";
    assert!(whole(&format!("{head}{entry}{entry}")).contains("occurs twice"));
    let odd = entry.replace("\"code\"", "\"cooking\"");
    assert!(whole(&format!("{head}{odd}")).contains("unknown variant `cooking`"));
    let turn =
        entry.replace("prompt = \"p\"", "messages = [{ role = \"assistant\", content = \"x\" }]");
    assert!(whole(&format!("{head}{turn}")).contains("last message"));
}

#[test]
fn categories_weigh_the_same() {
    let suite = Suite::read("sample.toml", SAMPLE).unwrap();
    let of = |category| suite.items.iter().find(|it| it.category == category).unwrap();
    let (code, safety) = (of(Category::Code), of(Category::Safety));
    let scores = scores(&[(code, 1.0), (code, 0.5), (code, 0.0), (safety, 1.0)]);
    assert_eq!((scores.macro_average, scores.mean), (0.75, 0.625));
    assert_eq!(scores.categories["code"], (0.5, 3));
    assert_eq!(scores.subs["safety/refusal"], (1.0, 1));
}
