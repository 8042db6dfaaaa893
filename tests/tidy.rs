//! The rules of the house, checked on the source text.
use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<PathBuf> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut all = vec![];
    walk(&root().join("src"), &mut all);
    all.sort();
    all
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// `src/lib.rs` lists modules in flow order; a module may use only earlier ones.
#[test]
fn imports_point_upstream() {
    let order: Vec<String> = fs::read_to_string(root().join("src/lib.rs"))
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned))
        .collect();
    assert!(order.len() > 10, "lib.rs lists the modules");
    let mut wrong = vec![];
    for file in sources() {
        let top = file.strip_prefix(root().join("src")).unwrap().iter().next().unwrap();
        let top = top.to_str().unwrap().trim_end_matches(".rs").to_owned();
        let Some(me) = order.iter().position(|module| *module == top) else { continue };
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for used in code.split("crate::").skip(1) {
                let inner = used.trim_start_matches('{');
                let name: String =
                    inner.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if order.iter().position(|module| *module == name).is_some_and(|it| it > me) {
                    wrong.push(format!("{}:{}: {top} uses {name}", shown(&file), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the flow:\n{}", wrong.join("\n"));
}

#[test]
fn projection_names_live_in_families() {
    for file in sources().iter().filter(|file| !shown(file).starts_with("src/model/family")) {
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in ["q_proj", "gate_proj", "down_proj"] {
            let found = code.lines().any(|l| !l.trim_start().starts_with("//") && l.contains(word));
            assert!(!found, "{}: `{word}` belongs to a family", shown(file));
        }
    }
}

#[test]
fn files_stay_readable() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        assert!(code.lines().count() <= 400, "{}: over 400 lines without tests", shown(&file));
    }
}

#[test]
fn unsafe_code_stands_in_audited_places_only() {
    let audited = ["src/tensor/bytes.rs", "src/linalg/", "src/runtime/kernel/"];
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let lifts = text.contains("expect(unsafe_code") || text.contains("allow(unsafe_code");
        let here = audited.iter().any(|place| shown(&file).starts_with(place));
        assert!(!lifts || here, "{}: unsafe code outside {audited:?}", shown(&file));
    }
}
