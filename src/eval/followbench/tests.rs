use super::*;
use serde_json::json;

fn group(source: &str, category: &str, id: u64, targets: [&str; 5]) -> String {
    let entry = |level: usize| {
        let target = level.checked_sub(1).map_or("", |at| targets[at]);
        json!({"example_id": id, "category": category, "source": source, "level": level,
               "instruction": format!("do {level}"), "target": target})
    };
    serde_json::Value::from((0..=5).map(entry).collect::<Vec<_>>()).to_string()
}

fn set(text: &str, kind: &'static str, tongue: Tongue) -> Set {
    let mut set = Set::default();
    set.add("x.json", text, kind, tongue).unwrap();
    set
}

/// Highest level that an answer keeps when asked on each, without a gap.
fn levels(set: &Set, answer: &str) -> usize {
    set.items.iter().take_while(|item| item.judge(answer).unwrap()).count()
}

#[test]
fn constraints_add_up() {
    let news = set(&group("cnn_dailymail", "mixed", 1, [""; 5]), "mixed", Tongue::En);
    let cases = [
        ("One. Two", 0),
        (
            "One two. Three. Four four four four four four four four four four four four four four four.",
            1,
        ),
        ("One. Two. Three.", 2),
        ("Potter came. A lavish actor. Many films.", 3),
        ("Potter came. An actor. Many films.", 4),
        ("Potter came. An actor. Many films have gone.", 5),
    ];
    for (answer, level) in cases {
        assert_eq!(levels(&news, answer), level, "{answer}");
    }
    let chinese = set(&group("gigaword", "mixed", 1, [""; 5]), "mixed", Tongue::Zh);
    let cases = [("七个字在这里呀", 0), ("两人在菲律宾丧生", 2), ("有人在菲律宾丧生", 5)];
    for (answer, level) in cases {
        assert_eq!(levels(&chinese, answer), level, "{answer}");
    }
}

#[test]
fn targets_are_compared_as_the_source_asks() {
    let lists = ["['Bonn', \"L'Aquila\", 'it\\'s']"; 5];
    let names = set(&group("CONLL2003", "content", 1, lists), "content", Tongue::En);
    for answer in ["Bonn", "L'Aquila", "it's", " Bonn\n"] {
        assert_eq!(levels(&names, answer), 5, "{answer}");
    }
    assert_eq!(levels(&names, "Bon"), 0);
    let options = set(&group("BBH_logical", "situation", 1, ["(B)"; 5]), "situation", Tongue::En);
    assert_eq!(levels(&options, "Not (A) but (B)."), 5);
    assert_eq!(levels(&options, "(B) or (A)"), 0);
    let lines = set(&group("WIKIEVENTS", "content", 1, ["a\nb"; 5]), "content", Tongue::En);
    assert_eq!((levels(&lines, "b\na"), levels(&lines, "a\nc")), (5, 0));
}

#[test]
fn the_table_closes_with_a_sentence_of_its_own() {
    let table = set(&group("quora", "format", 22, [""; 5]), "format", Tongue::En);
    let long = "word ".repeat(21);
    let three: Vec<String> = (1..=3).map(|n| format!("{n}. {long}")).collect();
    let answer = three.join("\n\n");
    // The numbers end a sentence of one word for the reference's splitting.
    assert_eq!(levels(&table, &answer), 2);
    let closed = format!("{answer}\n\nThose are suggestions");
    let item = &table.items[4];
    assert_eq!(item.level, 5);
    assert!(!item.judge(&closed).unwrap());
    let kept: Vec<bool> = needs(Tongue::En, ("quora", "format"), 22, 5)
        .unwrap()
        .iter()
        .map(|need| need.kept(&closed, "", Tongue::En))
        .collect();
    // Paragraphs, sentences of each, short sentences, numbers, end.
    assert_eq!(kept, [true, true, false, false, true]);
}

#[test]
fn marked_points_are_read_as_sentences() {
    let points = set(&group("oasst", "format", 30, [""; 5]), "format", Tongue::En);
    assert_eq!(levels(&points, "no marks"), 0);
    assert_eq!(levels(&points, "**Growth**: one."), 1);
    let sentence = "We grow much more each year because new ideas help us.";
    let five: Vec<String> = (1..=5).map(|n| format!("**{n}. Aim**: {sentence}")).collect();
    assert_eq!(levels(&points, &five.join("\n")), 3, "`1.` is a sentence of its own");
    assert!(Need::ReadSentences(2, 3).kept("One two. E.g. three? Dr. Wu", "", Tongue::En));
}

#[test]
fn examples_have_the_form_of_their_target() {
    let target = ["{instruction}\n{{'bot': '{answer}'}}"; 5];
    let bot = set(&group("xsum", "example", 1, target), "example", Tongue::En);
    assert_eq!(levels(&bot, "{'bot': 'any (text)'}"), 5);
    assert_eq!(levels(&bot, "{'bot': 'two\nlines'}"), 0);
    assert_eq!(levels(&bot, "any text"), 0);
}

#[test]
fn what_takes_a_judge_is_exported_and_never_judged() {
    let style = set(&group("quora", "style", 4, [""; 5]), "style", Tongue::Zh);
    let item = &style.items[2];
    assert!(!item.is_checkable());
    let error = item.judge("answer").unwrap_err().to_string();
    assert!(error.contains("style/zh/4/3") && error.contains("hint:"), "{error}");
    let line = style.judge_line(item, "my answer");
    assert_eq!((line.id.as_str(), line.instruction), ("style/zh/4/3", "do 3"));
    assert_eq!(line.instructions, ["do 0", "do 1", "do 2", "do 3"]);
    for part in ["[0 constraints]\ndo 0", "[3 constraints]\ndo 3", "my answer", "list of 3"] {
        assert!(line.prompt.contains(part), "{part}: {}", line.prompt);
    }
}

#[test]
fn damaged_files_name_the_item() {
    let mut set = Set::default();
    let mut read = |text: &str| {
        set = Set::default();
        set.add("x.json", text, "style", Tongue::En).unwrap_err().to_string()
    };
    let whole: Vec<serde_json::Value> =
        serde_json::from_str(&group("quora", "style", 1, [""; 5])).unwrap();
    let text = |entries: &[serde_json::Value]| serde_json::to_string(entries).unwrap();
    assert!(read(&text(&whole[..5])).contains("has only levels [0, 1, 2, 3, 4]"));
    assert!(read(&text(&[whole[1].clone(), whole[1].clone()])).contains("occurs twice"));
    let mut deep = whole[5].clone();
    deep["level"] = 6.into();
    assert!(read(&text(&[deep])).contains("levels go to 5"));
    assert!(read("{}").contains("`the list`"));
}

#[test]
#[expect(clippy::float_cmp, reason = "whole numbers are exact")]
fn rates_count_groups_and_levels_without_a_gap() {
    let set = set(&group("xsum", "mixed", 1, [""; 5]), "mixed", Tongue::En);
    let kept = [true, true, false, true, false];
    let ids: Vec<String> = set.items.iter().map(Item::id).collect();
    let judged: Vec<(&str, bool)> = ids.iter().map(String::as_str).zip(kept).collect();
    let figures = &satisfaction(&judged)[0];
    assert_eq!(figures.groups, 1);
    assert_eq!(figures.consistent_levels, 2.0);
    assert_eq!(figures.subject, "mixed/en");
    assert_eq!(figures.rate, [1.0, 1.0, 0.0, 1.0, 0.0]);
}
