//! The page of several runs, as a user makes it and as a browser shows it.
use crate::{cli::program, util::skip};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

/// Three runs with long names, Chinese answers and all sections.
fn runs(dir: &Path) {
    for (at, name) in ["float", "int8", "int4"].into_iter().enumerate() {
        let loss = at as f64;
        let mut counts = vec![0; 32];
        counts[10 + 4 * at] = 100;
        let evaluation = json!({
            "schema": 1, "tool": "milm-compress 0.1.0", "model": name, "reference": "float",
            "ppl": 20.0 + loss, "ppl_increase": 0.05 * loss, "kl_mean": 0.1 * loss,
            "top1_agreement": 1.0 - 0.1 * loss, "tokens": 100,
            "gates": [{"gate": "max-kl", "limit": 0.15, "value": 0.1 * loss, "passed": at < 2}],
            "method": {"protocol": "gptq", "text": ["a/very/long/folder/name/without/any/space/in/it.txt"],
                       "data_sha256": "0123456789abcdef".repeat(4)},
            "figures": {"divergence": {"kl_histogram": counts, "kl": {"median": 0.01}}},
        });
        fs::write(dir.join(format!("{name}.json")), evaluation.to_string()).unwrap();
        let records = (0..20).map(|item| {
            json!({"task": "quiz", "version": 1, "id": format!("subject/{item}"), "item": "h", "key": "k",
                   "metrics": {"acc": f64::from(u8::from(item % 4 >= at))},
                   "answer": "一个很长的中文回答，".repeat(12), "right": "B", "responses": []})
            .to_string()
        });
        let records: Vec<String> = records.collect();
        fs::write(dir.join(format!("{name}.jsonl")), records.join("\n")).unwrap();
        let layers: Vec<Value> = (0..30)
            .map(|block| {
                json!({"block": block, "tensor": format!("model.layers.{block}.mlp.down.weight"),
                                "error": 1e-3 * (loss + 0.1) * f64::from(block + 1)})
            })
            .collect();
        let layers = json!({"layers": layers, "bytes": 270_000_000 / (at + 1)});
        fs::write(dir.join(format!("{name}.layers.json")), layers.to_string()).unwrap();
    }
}

const RUNS: [&str; 3] = [
    "float=float.json,float.jsonl,float.layers.json",
    "int8=int8.json,int8.jsonl,int8.layers.json",
    "int4=int4.json,int4.jsonl,int4.layers.json",
];

fn report(dir: &Path, args: &[&str]) -> assert_cmd::assert::Assert {
    program().current_dir(dir).arg("report").args(args).assert()
}

#[test]
fn results_become_a_page() {
    let dir = tempfile::tempdir().unwrap();
    runs(dir.path());
    let args = [RUNS.as_slice(), &["-o", "r.html", "--title", "Three runs"]].concat();
    report(dir.path(), &args).success();
    let page = fs::read_to_string(dir.path().join("r.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("<h1>Three runs</h1>"));
    for part in [
        "270.0",
        "50.00 %",
        "✗ failed",
        "int4 against float",
        "5 items are worse",
        "10 items are worse",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let error = |args: &[&str]| {
        let done = report(dir.path(), args).code(2);
        String::from_utf8(done.get_output().stderr.clone()).unwrap()
    };
    assert!(error(&args).contains("r.html"), "an existing file is kept");
    assert!(error(&["none.json", "-o", "x.html"]).contains("cannot read `none.json`"));
    assert!(
        error(&["a=float.json", "a=int8.json", "-o", "x.html"]).contains("two runs are called `a`")
    );
    assert!(!dir.path().join("x.html").exists());
}

/// What an outer page measures in the report, whose own scripts are forbidden.
const PROBE: &str = "
    const frame = document.querySelector('iframe');
    frame.onload = () => {
        const page = frame.contentDocument, root = page.documentElement;
        const box = it => it.getBoundingClientRect();
        const wide = [...page.querySelectorAll('body *')].filter(it => !it.closest('.wide, pre'));
        const charts = [...page.querySelectorAll('svg')];
        const texts = charts.flatMap(svg => [...svg.querySelectorAll('text')].filter(it => {
            const own = box(it), all = box(svg);
            return own.left < all.left - 1 || own.right > all.right + 1 || own.bottom > all.bottom + 1;
        }));
        const levels = [...page.querySelectorAll('h1,h2,h3,h4')].map(it => +it.tagName[1]);
        const ids = [...page.querySelectorAll('[id]')].map(it => it.id);
        document.title = JSON.stringify({
            beyond: wide.filter(it => box(it).right > root.clientWidth + 1).map(it => it.tagName),
            outside: texts.map(it => it.textContent.trim()),
            charts: charts.length,
            unnamed: charts.filter(it => !it.querySelector('title') || it.getAttribute('role') != 'img').length,
            skipped: levels.filter((it, at) => at > 0 && it > levels[at - 1] + 1).length,
            twice: ids.length - new Set(ids).size,
            links: [...page.querySelectorAll('a')].filter(it => !page.querySelector(it.getAttribute('href'))).length,
            headless: [...page.querySelectorAll('table')].filter(it => !it.querySelector('th[scope=col]')).length,
            lang: root.lang,
        });
    };
    frame.srcdoc = PAGE;";

/// Chromium or Chrome without a window, if one is there.
fn browser() -> Option<&'static str> {
    let names = ["chromium-headless-shell", "chromium", "google-chrome"];
    names.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok())
}

fn measured(browser: &str, dir: &Path, page: &str, width: u32) -> Value {
    let page = serde_json::to_string(page).unwrap().replace("</", "<\\/").replace("<!--", "<\\!--");
    let outer = format!(
        "<!doctype html><title>-</title><iframe style='border:0;width:{width}px;height:4000px'></iframe>\
         <script>const PAGE = {page};{PROBE}</script>"
    );
    let file = dir.join("outer.html");
    fs::write(&file, outer).unwrap();
    shown(browser, &file)
}

/// The JSON that a page has made its title.
fn shown(browser: &str, file: &Path) -> Value {
    let done = Command::new(browser)
        .args([
            "--no-sandbox",
            "--disable-gpu",
            "--headless",
            "--virtual-time-budget=5000",
            "--dump-dom",
        ])
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&done.stdout).into_owned();
    let title = dom.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    let title = title.map_or("", |(title, _)| title);
    serde_json::from_str(title).unwrap_or_else(|_| panic!("not measured: {title}"))
}

/// On a screen and on a phone nothing reaches beyond the edge, no text leaves its chart, headings
/// and names are in order.
#[test]
fn browsers_show_it_whole() {
    let Some(browser) = browser() else {
        return skip("no Chromium is installed");
    };
    let dir = tempfile::tempdir().unwrap();
    runs(dir.path());
    let args = [RUNS.as_slice(), &["-o", "-"]].concat();
    let done = report(dir.path(), &args).success();
    let page = String::from_utf8(done.get_output().stdout.clone()).unwrap();
    for width in [1200, 375] {
        let it = measured(browser, dir.path(), &page, width);
        assert_eq!(it["charts"], 4, "{it}");
        for none in ["unnamed", "skipped", "twice", "links", "headless"] {
            assert_eq!(it[none], 0, "{none} at {width}: {it}");
        }
        assert_eq!((&it["beyond"], &it["outside"]), (&json!([]), &json!([])), "at {width}");
        assert_eq!(it["lang"], "en");
    }
    // The probe itself can see harm.
    let broken =
        page.replace("overflow-x: auto", "overflow-x: visible").replace("class=\"wide\"", "");
    let it = measured(browser, dir.path(), &broken, 375);
    assert_ne!(it["beyond"], json!([]));
}

/// The rules of axe-core that a page breaks, and how many it keeps.
fn axe(browser: &str, dir: &Path, page: &str, script: &str) -> (Vec<String>, u64) {
    const CALL: &str = "addEventListener('load', () => axe.run().then(found => {
        document.title = JSON.stringify({
            broken: found.violations.map(it => `${it.id}: ${it.nodes[0].html}`),
            kept: found.passes.length,
        });
    }));";
    // The page allows no scripts.
    let (before, rest) = page.split_once("<meta http-equiv").unwrap();
    let (_, rest) = rest.split_once('>').unwrap();
    let script = script.replace("</script", "<\\/script");
    let file = dir.join("axe.html");
    let scripts = format!("<script>{script}</script><script>{CALL}</script>");
    fs::write(&file, format!("{before}{rest}").replace("</head>", &format!("{scripts}</head>")))
        .unwrap();
    let found: Value = shown(browser, &file);
    let broken = found["broken"].as_array().unwrap().iter().map(ToString::to_string).collect();
    (broken, found["kept"].as_u64().unwrap())
}

/// By the rules of axe-core, light and dark. `MILM_AXE` names its `axe.min.js`.
#[test]
fn axe_finds_the_page_accessible() {
    let (Some(browser), Some(script)) = (browser(), std::env::var_os("MILM_AXE")) else {
        return skip("no Chromium is installed, or MILM_AXE names no axe.min.js");
    };
    let script = fs::read_to_string(script).unwrap();
    let dir = tempfile::tempdir().unwrap();
    runs(dir.path());
    let done = report(dir.path(), &[RUNS.as_slice(), &["-o", "-"]].concat()).success();
    let light = String::from_utf8(done.get_output().stdout.clone()).unwrap();
    let dark = light.replace("@media (prefers-color-scheme: dark)", "@media all");
    assert_ne!(light, dark);
    for (name, page) in [("light", &light), ("dark", &dark)] {
        let (broken, kept) = axe(browser, dir.path(), page, &script);
        assert!(broken.is_empty() && kept > 20, "{name}: {broken:?}, {kept} kept");
    }
    // It sees what is wrong: no language, text in the colour of the paper.
    let wrong = light.replace("lang=\"en\"", "").replace("</style>", "h1 { color: #eee }</style>");
    let (broken, _) = axe(browser, dir.path(), &wrong, &script);
    assert!(broken.iter().any(|it| it.contains("html-has-lang")), "{broken:?}");
    assert!(broken.iter().any(|it| it.contains("color-contrast")), "{broken:?}");
}
