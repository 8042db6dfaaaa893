use super::*;
use serde_json::json;

fn evaluation(ppl: f64, kl: f64, passed: bool) -> String {
    let mut counts = vec![0; 32];
    counts[10] = 3;
    counts[14] = 1;
    json!({
        "schema": 1, "tool": "milm-compress 0.1.0", "model": "m", "reference": "r", "ppl": ppl,
        "ppl_increase": 0.1, "kl_mean": kl, "top1_agreement": 0.9, "tokens": 4,
        "gates": [{"gate": "max-kl", "limit": 0.05, "value": kl, "passed": passed}],
        "method": {"protocol": "gptq", "ctx": 2048, "text": ["a.txt"]},
        "figures": {"divergence": {"kl_histogram": counts, "kl": {"median": 0.01, "max": 1.0}}},
    })
    .to_string()
}

fn record(id: &str, score: f64, answer: &str) -> String {
    json!({"task": "quiz", "version": 1, "id": id, "item": "h", "key": "k", "metrics": {"acc": score},
           "answer": answer, "right": "B", "responses": []})
    .to_string()
}

fn runs() -> Vec<Run> {
    let mut base = Run::new("float");
    base.bytes = Some(200_000_000);
    base.add("e.json", &evaluation(10.0, 0.0, true)).unwrap();
    base.add("r.jsonl", &[record("1", 1.0, "B"), record("2", 1.0, "B")].join("\n")).unwrap();
    let mut int4 = Run::new("int4 <b>&");
    int4.add("e.json", &evaluation(12.0, 0.07, false)).unwrap();
    int4.add(
        "r.jsonl",
        &[record("1", 0.0, "<script>alert(1)</script>"), record("2", 1.0, "B")].join("\n"),
    )
    .unwrap();
    let layers = json!({"layers": [
        {"block": 0, "tensor": "a", "error": 0.01}, {"block": 1, "tensor": "b", "error": 0.02},
        {"block": 1, "tensor": "c", "error": null}], "bytes": 50_000_000});
    int4.add("q.json", &layers.to_string()).unwrap();
    let groups = json!([{"name": "all", "items": 2, "metrics": {"acc": {"value": 0.5, "standard_error": 0.1}}},
                        {"name": "STEM", "items": 2, "metrics": {"acc": {"value": 0.5, "standard_error": null}}}]);
    let task = json!({"task": "quiz", "version": 1, "main_metric": "acc", "groups": groups,
                      "warnings": ["prompts cut: 1"]});
    int4.add("t.json", &task.to_string()).unwrap();
    let manifest = json!({"schema": 1, "tool": {"name": "milm-compress", "version": "9"},
                          "recipe": {"step": [{"do": "quantize"}]}, "tensors": {}});
    int4.add("milm.json", &manifest.to_string()).unwrap();
    vec![base, int4]
}

#[test]
fn every_section_is_there() {
    let page = html("Cost of int4", &runs()).unwrap();
    for part in [
        "Quality against size",
        "Tasks",
        "quiz by category",
        "Error by block",
        "KL divergence by token",
        "✗ failed",
        "1 items are worse",
        "&quot;do&quot;: &quot;quantize&quot;",
        "prompts cut: 1",
        "50.0",
        "25.00 %",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<svg").count(), 5);
    assert_eq!(page.matches("role=\"img\"").count(), 5);
    assert_eq!(page, html("Cost of int4", &runs()).unwrap(), "same input, same bytes");
}

#[test]
fn pages_are_self_contained_and_texts_cannot_break_out() {
    let page = html("<i>title</i>", &runs()).unwrap();
    for foreign in ["<script", "<b>&", "<i>", "src=", "@import", "url(", "href=\"http"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("int4 &lt;b&gt;&amp;"));
    assert_eq!(
        page.matches("http").count(),
        page.matches("http-equiv").count() + page.matches("http://www.w3.org/2000/svg").count()
    );
}

#[test]
fn colours_of_charts_have_twins_in_the_style() {
    let style = include_str!("style.css");
    let names: Vec<String> = (0..6).map(|at| format!("run{at}")).collect();
    for (at, name) in names.iter().enumerate() {
        let colour = charts::key(at, name)["colour"].as_str().unwrap().to_owned();
        assert!(style.contains(&format!("[fill=\"{colour}\"] {{ fill: var(--{name})")), "{colour}");
        assert!(style.contains(&format!("--{name}: {};", colour.to_lowercase())), "{colour}");
    }
}

#[test]
fn little_is_enough_and_nonsense_is_refused() {
    let mut only = Run::new("a");
    only.add("e.json", &evaluation(f64::NAN, 0.1, true)).unwrap();
    let page = html("x", &[only.clone()]).unwrap();
    assert!(page.contains("KL divergence by token") && !page.contains("Quality against size"));
    assert!(html("x", &[Run::new("a")]).unwrap().contains("Overview"));
    assert!(matches!(html("x", &[]), Err(PageError::Empty)));
    assert!(matches!(html("x", &[only.clone(), only]), Err(PageError::Twice { .. })));
    for (text, wanted) in
        [("{}", "none of the known"), ("{\"task\":1,\"id\":2}", "invalid type"), ("x", "line 1")]
    {
        let error = Run::new("a").add("f.json", text).unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("`f.json`"), "{error}");
    }
}

/// WCAG 2.1: contrast of text at least 4.5, of shapes at least 3, on paper and panel, in the light,
/// in the dark and in print.
#[test]
fn colours_can_be_told_apart() {
    fn luminance(colour: &str) -> f64 {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }
    let contrast = |a: &str, b: &str| {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    };
    let style = include_str!("style.css");
    let themes: Vec<&str> =
        style.split(":root {").skip(1).map(|it| it.split('}').next().unwrap()).collect();
    assert_eq!(themes.len(), 3);
    for theme in themes {
        let colour = |name: &str| {
            let (_, rest) = theme.split_once(&format!("--{name}: ")).unwrap();
            rest[..7].to_owned()
        };
        for ground in ["paper", "panel"].map(colour) {
            for name in ["ink", "soft", "good", "bad", "link"] {
                assert!(contrast(&colour(name), &ground) >= 4.5, "{name} on {ground}");
            }
            for name in ["axis", "run0", "run1", "run2", "run3", "run4", "run5"] {
                assert!(contrast(&colour(name), &ground) >= 3.0, "{name} on {ground}");
            }
        }
    }
    assert!(contrast("#d8d8d8", "#ffffff") < 3.0, "grids need not be seen");
}

#[test]
fn gates_of_tasks_stand_beside_those_of_texts() {
    let mut run = Run::new("a");
    let gate =
        |name: &str, passed| json!({"gate": name, "limit": 0.5, "value": 0.4, "passed": passed});
    let tasks = json!({"schema": 1, "tasks": [], "gates": [gate("min-ceval", false)]});
    run.add("t.json", &tasks.to_string()).unwrap();
    let text = json!({"figures": {}, "method": {}, "gates": [gate("max-kl", true)]});
    run.add("a.json", &text.to_string()).unwrap();
    // A later measurement of the text replaces the one before, as that of a package's manifest.
    run.add("b.json", &text.to_string()).unwrap();
    let shown = views::gates(&[run]);
    let names: Vec<&str> = shown.iter().map(|it| it["gate"].as_str().unwrap()).collect();
    assert_eq!(names, ["max-kl", "min-ceval"]);
}
