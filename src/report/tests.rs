use super::*;
use crate::eval::{Compared, Gate, TokenScore};

/// A report of hand-made scores: perplexities 4 and 2 over two tokens.
fn report(gates: &[Gate]) -> EvalReport {
    let score = |nll: f64, kl, top1, top5| TokenScore {
        nll: nll.ln(),
        reference: Some(Compared { nll: 2.0_f64.ln(), kl, top1, top5 }),
    };
    let scores = [score(2.0, 0.125, true, 5), score(8.0, 0.375, false, 4)];
    let figures = Figures::of(&scores, &[2]);
    let judged = |gate: &Gate| gate.judge(figures.measured(&gate.figure).as_ref()).unwrap();
    let gates = gates.iter().map(judged).collect();
    let method = Method {
        protocol: "gptq".into(),
        ctx: 3,
        stride: None,
        windows: 1,
        text_tokens: 4,
        bos: BosPolicy::TextStart,
        text: vec!["a.txt".into()],
        text_form: Form::Plain,
        join: "\n\n".into(),
        data_sha256: "0123456789abcdef".into(),
        tokenizer_sha256: "fedcba".into(),
        kv_cache: crate::scheme::KvPrecision::Float,
        backend: "reference".into(),
    };
    let names = ("out/<a> & \"b\"".to_owned(), Some("float".to_owned()));
    EvalReport::new(names, method, figures, gates, Some((1, 2)))
}

fn gates() -> [Gate; 2] {
    [Gate::most("kl", 0.3), Gate::least("top1", 0.75)]
}

#[test]
fn json_has_the_documented_top_level() {
    let value = serde_json::to_value(report(&gates())).unwrap();
    let number = |key: &str| value[key].as_f64().unwrap();
    assert_eq!(value["schema"], 1);
    assert_eq!(value["tokens"], 2);
    assert_eq!(value["passed"], false);
    for (key, want) in [
        ("ppl", 4.0),
        ("ppl_reference", 2.0),
        ("ppl_increase", 1.0),
        ("kl_mean", 0.25),
        ("top1_agreement", 0.5),
    ] {
        assert!((number(key) - want).abs() < 1e-12, "{key}: {}", value[key]);
    }
    assert_eq!(
        value["gates"][0],
        serde_json::json!({
            "gate": "max-kl", "limit": 0.3, "value": 0.25, "passed": true,
        })
    );
    assert_eq!(value["gates"][1]["passed"], false);
    assert_eq!(value["method"]["bos"], "text-start");
    assert_eq!(value["method"]["text_form"], "plain");
    // 2 tokens, 1 word, 2 bytes: 16 per word, 4 per byte.
    assert!((value["per_word"]["word_perplexity"].as_f64().unwrap() - 16.0).abs() < 1e-9);
    assert!((value["per_word"]["bits_per_byte"].as_f64().unwrap() - 2.0).abs() < 1e-12);
}

#[test]
fn what_is_no_number_is_null() {
    let mut report = report(&[]);
    report.ppl = f64::NAN;
    assert!(serde_json::to_value(&report).unwrap()["ppl"].is_null());
    assert!(report.passed, "without gates");
}

#[test]
fn junit_makes_a_test_case_of_each_gate() {
    let xml = junit(&report(&gates()).sheet());
    let (properties, cases) = xml.split_once("    </properties>\n").unwrap();
    assert!(properties.contains("<testsuites tests=\"2\" failures=\"1\">"), "{properties}");
    assert!(properties.contains("<property name=\"KL mean\" value=\"0.2500 ± "), "{properties}");
    assert_eq!(
        cases,
        "    <testcase classname=\"out/&lt;a&gt; &amp; &quot;b&quot;\" name=\"max-kl ≤ 0.3\"/>
    <testcase classname=\"out/&lt;a&gt; &amp; &quot;b&quot;\" name=\"min-top1 ≥ 0.75\">
      <failure type=\"gate\" message=\"≥ 0.75, measured 0.5\"/>
    </testcase>
  </testsuite>
</testsuites>
"
    );
    assert!(junit(&report(&[]).sheet()).contains("name=\"evaluation\"/>"));
}

#[test]
fn markdown_shows_figures_gates_and_method() {
    let text = markdown(&report(&gates()).sheet());
    assert!(text.starts_with("### `out/<a> & \"b\"`: FAILED\n\nAgainst `float`.\n\n| figure |"));
    for line in [
        "| reference perplexity | 2.0000 ± 0 |",
        "| top-1 agreement | 50.00 % (95 %: 0.00 to 100.00 %) |",
        "| word perplexity | 16.00 |",
        "| max-kl | ≤ 0.3 | 0.25 | passed |",
        "| min-top1 | ≥ 0.75 | 0.5 | FAILED |",
        "protocol gptq, 1 windows of 3, 2 scored tokens, BOS text-start, reference, text 0123456789ab",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
}

#[test]
fn the_table_keeps_to_its_width_and_to_no_colour() {
    let report = report(&gates());
    let plain = table(&report.sheet(), Some(60), false);
    assert!(!plain.contains('\u{1b}'));
    let method = rows::method(&report);
    for line in plain.lines().filter(|line| *line != method) {
        assert!(line.chars().count() <= 60, "{line}");
    }
    assert!(plain.contains("FAILED") && plain.contains("KL mean"), "{plain}");
    assert!(table(&report.sheet(), Some(60), true).contains('\u{1b}'));
}

#[test]
fn numbers_show_four_digits() {
    for (value, text) in [
        (24.146, "24.15"),
        (0.003_12, "0.003120"),
        (55.07, "55.07"),
        (12345.6, "12346"),
        (0.0, "0"),
        (1.0e-7, "1.000e-7"),
        (f64::NAN, "NaN"),
    ] {
        assert_eq!(rows::digits(value), text);
    }
}

#[test]
fn code_hosts_are_told_of_failed_gates() {
    let told = report(&gates());
    assert_eq!(
        github(&told.sheet()),
        "::error title=gate min-top1 failed::out/<a> & \"b\": min-top1 ≥ 0.75, measured 0.5\n"
    );
    let issues: serde_json::Value =
        serde_json::from_str(&code_quality(&told.sheet(), "recipes/a.toml")).unwrap();
    assert_eq!(issues.as_array().unwrap().len(), 1);
    assert_eq!(issues[0]["check_name"], "min-top1");
    assert_eq!(
        issues[0]["location"],
        serde_json::json!({"path": "recipes/a.toml", "lines": {"begin": 1}})
    );
    let passed = report(&gates()[..1]);
    assert!(github(&passed.sheet()).starts_with("::notice title=gates passed::"));
    assert_eq!(code_quality(&passed.sheet(), "a"), "[]\n");
    assert_eq!(github(&report(&[]).sheet()), "", "nothing was asked");
    let mut odd = report(&gates());
    odd.model = "100 %\n::x".into();
    assert!(github(&odd.sheet()).contains("::100 %25%0A::x: "), "no commands from names");
}
