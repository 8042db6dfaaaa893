//! Tokenizers and chat templates against transformers.
use crate::util;
use milm_compress::{
    checkpoint::BUILTINS,
    text::{ChatTemplate, Message, TextError, TextFiles, Tokenizer, TokenizerConfig},
};
use proptest::prelude::*;
use serde_json::Value;
use std::fs;

fn golden(file: &str) -> Value {
    serde_json::from_slice(&fs::read(util::golden().join(file)).unwrap()).unwrap()
}

fn mini_file(name: &str) -> &'static [u8] {
    let mini = BUILTINS.iter().find(|it| it.name == "milm-mini").unwrap();
    mini.files.iter().find(|(file, _)| *file == name).unwrap().1
}

fn mini() -> Tokenizer {
    let text = |name| std::str::from_utf8(mini_file(name)).unwrap();
    Tokenizer::new(&TextFiles {
        tokenizer: mini_file("tokenizer.json"),
        tokenizer_config: Some(text("tokenizer_config.json")),
        generation_config: Some(text("generation_config.json")),
        ..TextFiles::default()
    })
    .unwrap()
}

fn smollm2() -> Tokenizer {
    let dir = util::smollm2().join("smollm2-bf16");
    let config = fs::read_to_string(dir.join("tokenizer_config.json")).unwrap();
    let generation = fs::read_to_string(dir.join("generation_config.json")).unwrap();
    let tokenizer = fs::read(dir.join("tokenizer.json")).unwrap();
    let files = TextFiles {
        tokenizer: &tokenizer,
        tokenizer_config: Some(&config),
        generation_config: Some(&generation),
        ..TextFiles::default()
    };
    Tokenizer::new(&files).unwrap()
}

/// Ids, text, and the text of ids that arrive one by one.
fn check_strings(tokenizer: &Tokenizer, cases: &Value) {
    for case in cases.as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(ids, want, "{text:?}");
        let decoded = case["decoded"].as_str().unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), decoded, "{text:?}");
        assert_eq!(streamed(tokenizer, &ids, false).concat(), decoded, "{text:?}");
    }
    assert!(cases.as_array().unwrap().len() > 10);
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip: bool) -> Vec<String> {
    let mut stream = tokenizer.stream(skip);
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    pieces
}

#[test]
fn ids_and_text_equal_transformers() {
    check_strings(&mini(), &golden("tokenizer_golden.json")["milm-mini"]);
}

#[test]
#[ignore = "takes the files of SmolLM2-135M"]
fn smollm2_ids_and_chats_equal_transformers() {
    let tokenizer = smollm2();
    check_strings(&tokenizer, &golden("tokenizer_golden.json")["smollm2"]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), [2].as_slice()));
    let template = tokenizer.chat_template().unwrap();
    for case in golden("tokenizer_golden.json")["smollm2-chat"].as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        assert_eq!(template.render(&messages, true).unwrap(), case["rendered"].as_str().unwrap());
    }
}

#[test]
fn templates_render_as_in_transformers() {
    let now: jiff::Zoned = "2026-02-03T04:05:06[UTC]".parse().unwrap();
    let mut wrong = vec![];
    for case in golden("chat_templates.json")["cases"].as_array().unwrap() {
        let config = TokenizerConfig::parse(&case["tokens"].to_string()).unwrap();
        let template = case["template"].as_str().unwrap();
        let got = ChatTemplate::compile(template, &config, Some(now.clone())).and_then(|it| {
            it.render_with(
                case["messages"].as_array().unwrap(),
                case["add_generation_prompt"].as_bool().unwrap(),
                case["variables"].as_object().unwrap(),
            )
        });
        let same = match (&got, case["refused"].as_str()) {
            (Ok(text), None) => case["rendered"].as_str() == Some(text),
            (Err(TextError::Refused { message }), Some(refused)) => message == refused,
            _ => false,
        };
        if !same {
            wrong.push(format!("{}\n  want {}\n  got  {got:?}", case["name"], case["rendered"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Templates of our own with the idioms of public families; docs/engines.md lists them.
#[test]
fn idioms_of_thirty_families_are_tried_and_listed() {
    let docs = std::fs::read_to_string(util::golden().join("../../docs/engines.md")).unwrap();
    let mut families = std::collections::BTreeSet::new();
    for case in golden("chat_templates.json")["cases"].as_array().unwrap() {
        let Some(family) = case["family"].as_str() else { continue };
        let name = case["name"].as_str().unwrap();
        let idioms = name.strip_prefix(&format!("family: {family}: ")).unwrap();
        let row = format!("| {family} | {} |\n", idioms.replace('|', "\\|"));
        assert!(docs.contains(&row), "docs/engines.md lacks {row}");
        families.insert(family.to_owned());
    }
    assert!(families.len() >= 30, "{}: {families:?}", families.len());
}

/// What this engine does not do ends a template, with the line and the construct.
#[test]
fn what_templates_cannot_do_is_told() {
    let config = TokenizerConfig::parse("{}").unwrap();
    for (construct, told) in [
        ("{{ '%s-%d' % ('a', 2) }}", "`%` formats no strings here, `| format(…)` does"),
        ("{{ 'a%s' % 'b' }}", "`%` formats no strings here, `| format(…)` does"),
        (
            "{% set d = {} %}{{ d.update({'a': 1}) }}",
            "update (in chat:2): lists and dictionaries are not",
        ),
        ("{% set l = [] %}{{ l.append(1) }}", "append (in chat:2): lists and dictionaries are not"),
        ("{% set d = {} %}{% set d.a = 1 %}", "can only assign to namespaces"),
        ("{% macro m() %}{{ varargs }}{% endmacro %}{{ m(1) }}", "too many arguments"),
        ("{{ 'a'.partition('') }}", "partition: empty separator"),
        ("{{ 'a'.index('b') }}", "index: the text is not there"),
        ("{{ 'a'.ljust(100000) }}", "ljust of 100000 characters"),
        ("{{ 'a'.swapcase() }}", "no method named swapcase"),
        ("{{ 'a' | wordwrap }}", "wordwrap is unknown"),
        ("{{ 1 is callable }}", "callable is unknown"),
        ("{{ '{!r}'.format(1) }}", "format spec"),
        ("{{ +1 }}", "unexpected `+`"),
        ("{% trans %}x{% endtrans %}", "unknown statement trans"),
        ("{% include 'other' %}", "non-existing template 'other'"),
        ("{{ messages.nothing.more }}", "`messages.nothing` is undefined"),
    ] {
        let rendered = ChatTemplate::compile(&format!("a\n{construct}"), &config, None)
            .and_then(|it| it.render(&[Message::new("user", "Hi")], true));
        let error = rendered.unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("(in chat:2)"), "{construct}: {error}");
    }
    // Where this engine goes on, and transformers ends.
    let none = "{% for tool in tools %}{{ tool }}{% endfor %}{{ 0.00000015 }}";
    let template = ChatTemplate::compile(none, &config, None).unwrap();
    assert_eq!(template.render(&[Message::new("user", "Hi")], true).unwrap(), "0.00000015");
}

#[test]
fn a_stream_holds_characters_back_until_they_are_whole() {
    let tokenizer = mini();
    // Bytes of byte-level vocabularies: every byte is a token, here one by one.
    let text = "a😀é你\u{fffd}b";
    let ids: Vec<u32> = text.bytes().map(|byte| byte_token(&tokenizer, byte)).collect();
    let pieces = streamed(&tokenizer, &ids, true);
    assert_eq!(pieces.concat(), text);
    assert!(pieces.iter().all(|piece| piece == "\u{fffd}b" || !piece.contains('\u{fffd}')));
    assert_eq!(pieces[1..5], ["", "", "", "😀"]);
    // Half a character at the end is shown as such, bytes that never end one do not pile up.
    assert_eq!(streamed(&tokenizer, &ids[..3], true).concat(), "a\u{fffd}");
    let endless = vec![byte_token(&tokenizer, 0x80); 200];
    assert!(streamed(&tokenizer, &endless, true)[..100].concat().chars().count() >= 50);
    assert_eq!(streamed(&tokenizer, &endless, true).concat(), "\u{fffd}".repeat(200));
}

fn byte_token(tokenizer: &Tokenizer, byte: u8) -> u32 {
    // The byte-level alphabet: printable bytes stand for themselves, the others follow U+0100.
    let plain = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let shift = (0..byte).filter(|b| !plain(*b)).count() as u32;
    let c = if plain(byte) { char::from(byte) } else { char::from_u32(0x100 + shift).unwrap() };
    tokenizer.token_to_id(&c.to_string()).unwrap()
}

#[test]
fn special_tokens_are_parsed_and_skipped() {
    let tokenizer = mini();
    let ids = tokenizer.encode("a<|endoftext|>b", true).unwrap();
    assert_eq!((ids.len(), ids[1]), (3, 0));
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "a<|endoftext|>b");
    assert_eq!(streamed(&tokenizer, &ids, true).concat(), "ab");
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), [0].as_slice()));
    assert_eq!(tokenizer.id_to_token(0).as_deref(), Some("<|endoftext|>"));
    assert_eq!(tokenizer.id_to_token(1 << 30), None);
    assert!(matches!(tokenizer.chat_template(), Err(TextError::NoTemplate)));
}

/// transformers: a switch in `tokenizer_config.json` decides, else tokenizer.json does.
#[test]
fn the_configuration_decides_about_bos() {
    let with = |config: &str| {
        let tokenizer = mini_file("tokenizer.json");
        let files = TextFiles { tokenizer, tokenizer_config: Some(config), ..Default::default() };
        Tokenizer::new(&files).unwrap().encode("a", true).unwrap()
    };
    let plain = with("{}");
    let bos = r#""bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>""#;
    assert_eq!(with(&format!("{{{bos}}}")), plain);
    assert_eq!(with(&format!("{{{bos}, \"add_bos_token\": true}}")), [&[0], &plain[..]].concat());
    assert_eq!(with(&format!("{{{bos}, \"add_eos_token\": true}}")), [&plain[..], &[0]].concat());
    assert_eq!(with(r#"{"add_bos_token": true}"#), plain, "without a token there is none to add");
}

#[test]
fn a_tokenizer_larger_than_the_model_is_an_error() {
    let tokenizer = mini();
    tokenizer.check_vocabulary(4096).unwrap();
    tokenizer.check_vocabulary(5000).unwrap();
    let error = tokenizer.check_vocabulary(4095).unwrap_err().to_string();
    assert!(error.contains("4095") && error.contains("hint: "), "{error}");
}

/// What transformers 5.24.0 says of a folder with these files.
#[test]
fn named_tokens_come_from_either_file_as_in_transformers() {
    let tokens = |config: &str, map: &str| {
        let config = TokenizerConfig::with_map(config, Some(map)).unwrap();
        ["bos_token", "eos_token", "pad_token"].map(|it| config.token(it).map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    let map = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}}"#;
    assert_eq!(tokens("{}", map), [some("<s>"), some("</s>"), None]);
    let config = r#"{"eos_token": "a", "pad_token": "c"}"#;
    assert_eq!(tokens(config, r#"{"eos_token": "b"}"#), [None, some("b"), some("c")]);
    let config = r#"{"eos_token": "a", "added_tokens_decoder": {"0": {"content": "b"}}}"#;
    assert_eq!(tokens(config, r#"{"eos_token": "b", "bos_token": "b"}"#), [None, some("a"), None]);
}

#[test]
fn what_ends_a_text_comes_from_the_first_file_that_says_it() {
    let ends = |model: &str, generation: Option<&str>| {
        Tokenizer::new(&TextFiles {
            tokenizer: mini_file("tokenizer.json"),
            model_config: Some(model),
            generation_config: generation,
            ..TextFiles::default()
        })
        .unwrap()
        .eos()
        .to_vec()
    };
    let model = r#"{"eos_token_id": [5, 6]}"#;
    assert_eq!(ends(model, None), [5, 6]);
    assert_eq!(ends(model, Some("{}")), [5, 6]);
    assert_eq!(ends(model, Some(r#"{"eos_token_id": 7}"#)), [7]);
    assert_eq!(ends(r#"{"text_config": {"eos_token_id": 8}}"#, None), [8]);
    assert!(ends("{}", None).is_empty());
}

#[test]
fn several_templates_have_a_default() {
    let config = |list: &str| TokenizerConfig::parse(list).unwrap();
    let two = config(
        r#"{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#,
    );
    let said = |name| ChatTemplate::new(&two, name).unwrap().render::<Message>(&[], true).unwrap();
    assert_eq!((said("default"), said("tool_use")), ("D".to_owned(), "T".to_owned()));
    let none = config(r#"{"chat_template": [{"name": "rag", "template": "R"}]}"#);
    let error = ChatTemplate::new(&none, "default").unwrap_err().to_string();
    assert!(error.contains("`rag`"), "{error}");
}

#[test]
fn hostile_templates_end_with_an_error() {
    let deep = "{{ ".to_owned() + &"(".repeat(5000) + &")".repeat(5000) + " }}";
    for template in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(1000) %}{{ 'x' * 99999 }}{% endfor %}",
        "{{ messages[",
        "{% if %}",
        "{{ nothing.at.all }}",
        "{{ strftime_now('%') }}",
        "{{ undefined_thing | tojson }}",
        "{% include 'x' %}",
        &deep,
        &"{% if true %}".repeat(5000),
    ] {
        let rendered = ChatTemplate::compile(template, &TokenizerConfig::default(), None)
            .and_then(|it| it.render(&[Message::new("user", "x")], true));
        let error = rendered.unwrap_err().to_string();
        assert!(error.contains("\nhint: "), "{template:.60}: {error}");
    }
}

#[test]
fn malformed_tokenizers_are_errors() {
    let read = |tokenizer: &[u8]| {
        Tokenizer::new(&TextFiles { tokenizer, ..Default::default() }).map(|_| ())
    };
    let whole = mini_file("tokenizer.json");
    read(whole).unwrap();
    for end in (0..whole.len()).step_by(whole.len() / 7) {
        let error = read(&whole[..end]).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json") && error.contains("\nhint: "), "{error}");
    }
    let json: Value = serde_json::from_slice(whole).unwrap();
    for (pointer, value) in [
        ("/model/vocab", Value::from(5)),
        ("/model/merges", serde_json::json!([["nowhere", "to be found"]])),
        ("/model/merges", serde_json::json!(["a"])),
        ("/model/type", Value::from("Unheard")),
        (
            "/pre_tokenizer",
            serde_json::json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
        ),
        ("/decoder", serde_json::json!({"type": "None such"})),
        (
            "/model",
            serde_json::json!({"type": "Unigram", "vocab": [], "unk_id": 7, "byte_fallback": true}),
        ),
        ("/added_tokens", serde_json::json!([{"id": -1}])),
    ] {
        let mut json = json.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        let error = read(json.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, TextError::Tokenizer { .. }), "{pointer}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Byte-level vocabularies lose nothing, and streams tell what the whole tells.
    #[test]
    fn any_text_comes_back(text in "\\PC{0,40}") {
        let tokenizer = mini();
        let ids = tokenizer.encode(&text, false).unwrap();
        prop_assert_eq!(&tokenizer.decode(&ids, false).unwrap(), &text);
        prop_assert_eq!(&streamed(&tokenizer, &ids, false).concat(), &text);
    }

    /// Ids in any order: streams and whole texts agree.
    #[test]
    fn any_ids_stream_as_they_decode(ids in prop::collection::vec(0_u32..4200, 0..40)) {
        let tokenizer = mini();
        let whole = tokenizer.decode(&ids, true).unwrap();
        prop_assert_eq!(streamed(&tokenizer, &ids, true).concat(), whole);
    }
}

/// What the engine cannot do is told by its name.
#[test]
fn percent_on_a_text_tells_of_format() {
    let template = ChatTemplate::compile("{{ '%s' % 'a' }}", &TokenizerConfig::default(), None);
    let error = template.unwrap().render::<Message>(&[], true).unwrap_err().to_string();
    assert!(error.contains("`%` formats no strings") && error.contains("format("), "{error}");
}
