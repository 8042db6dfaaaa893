//! The rules of the house, checked on the source text.
pub(crate) mod imports;

use imports::{Crate, Module, circles, is_test, rust_files, test_lines};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use syn::{
    Item,
    visit::{self, Visit},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<PathBuf> {
    rust_files(&root().join("src"))
}

fn parsed(path: &Path) -> syn::File {
    syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The rooms of the house, in the order of `src/lib.rs`.
fn rooms() -> Vec<String> {
    let lib = parsed(&root().join("src/lib.rs"));
    let modules = lib.items.iter().filter_map(|item| match item {
        Item::Mod(it) => Some(it.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

/// Imports of later rooms by earlier ones, tests of theirs among them.
fn against_the_flow(all: &Crate, rooms: &[String]) -> Vec<String> {
    let place = |module: &Module| rooms.iter().position(|room| Some(room) == module.first());
    let imports = all.imports().into_iter();
    let wrong = imports.filter(|it| place(&it.from).zip(place(&it.to)).is_some_and(|(a, b)| a < b));
    wrong.map(|it| format!("{} uses {}", it.from.join("::"), it.path)).collect()
}

/// Circles of files inside rooms. A folder's `mod.rs` and what lies below it are one: it names its
/// files, and they share what it declares.
fn circles_inside(all: &Crate) -> Vec<Vec<String>> {
    let mut arrows = BTreeMap::<Module, BTreeSet<Module>>::new();
    for it in all.imports().into_iter().filter(|it| !it.in_test && !it.is_export) {
        let apart = !it.from.starts_with(&it.to) && !it.to.starts_with(&it.from);
        if apart && it.from.first() == it.to.first() {
            arrows.entry(it.from).or_default().insert(it.to);
        }
    }
    let shown = |circle: Vec<Module>| circle.iter().map(|it| it.join("::")).collect();
    circles(&arrows).into_iter().map(shown).collect()
}

/// `src/lib.rs` lists modules in flow order; a module may use only earlier ones.
#[test]
fn imports_point_upstream() {
    let (all, rooms) = (Crate::read(&root().join("src")), rooms());
    assert!(rooms.len() > 10 && all.imports().len() > 1000, "the whole house is read");
    let wrong = against_the_flow(&all, &rooms);
    assert!(wrong.is_empty(), "imports against the flow:\n{}", wrong.join("\n"));
}

#[test]
fn files_of_a_room_do_not_use_each_other_in_circles() {
    let found = circles_inside(&Crate::read(&root().join("src")));
    assert!(found.is_empty(), "circles: {found:#?}");
}

/// Who names a form of models without need: neither its own folder nor the registry, nor one of `free`.
fn named_forms(all: &Crate, forms: &[Module], free: &[&str]) -> Vec<String> {
    let imports = all.imports().into_iter().filter(|it| !it.in_test && !it.is_export);
    let strange = imports.filter(|it| {
        let outside = |form: &Module| it.to.starts_with(form) && !it.from.starts_with(form);
        forms.iter().any(outside) && !free.contains(&it.from.join("::").as_str())
    });
    strange.map(|it| format!("{} uses {}", it.from.join("::"), it.path)).collect()
}

/// A new form is a folder and a line in the registry.
#[test]
fn forms_are_named_in_their_registry() {
    let free = [
        "package::format::registry",
        // What writes packages writes one form.
        "package::write",
        "package::checkpoint",
        "package::stored::method",
        // Verbs and flags that are about one form.
        "cli::import",
        "cli::verify",
    ];
    let src = root().join("src");
    let entries = fs::read_dir(src.join("package")).unwrap().map(|it| it.unwrap().path());
    let folders = entries.filter(|it| it.join("form.rs").is_file());
    let name = |folder: PathBuf| folder.file_name().unwrap().to_str().unwrap().to_owned();
    let forms: Vec<Module> = folders.map(|it| vec!["package".to_owned(), name(it)]).collect();
    assert!(forms.len() >= 3, "{forms:?}");
    let all = Crate::read(&src);
    let found = named_forms(&all, &forms, &free);
    assert!(found.is_empty(), "say it in the form's own folder:\n{}", found.join("\n"));
    let without = named_forms(&all, &forms, &[]);
    for free in free {
        let names = without.iter().any(|it| it.starts_with(&format!("{free} uses")));
        assert!(names, "`{free}` names no form: it is not to be free");
    }
}

/// What the two tests above must see, in every form that an import has.
#[test]
fn imports_are_seen_in_any_form() {
    let rooms = ["below", "above"].map(str::to_owned);
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
    let house = |files: &[(&str, &str)]| {
        Crate::of(files.iter().map(|(path, text)| (module(path), (*text).to_owned())).collect())
    };
    for text in [
        "use crate::above::A;",
        "use crate::{\n    x,\n    above::{\n        A as B,\n    },\n};",
        "fn f() -> crate::above::A { todo() }",
        "fn f() { let x = super::above::a(); }",
        "mod inner { use super::super::above::*; }",
        "#[cfg(test)] mod tests { use crate::above::A; }",
    ] {
        let all = house(&[("above", "pub struct A;"), ("below", text)]);
        assert_eq!(against_the_flow(&all, &rooms).len(), 1, "{text}");
    }
    let all = house(&[("above", "use crate::below::B;"), ("below", "// use crate::above::A;")]);
    assert_eq!(against_the_flow(&all, &rooms), [""; 0]);

    // Through a name that the folder hands on.
    let folder = ("below", "mod a; mod b; pub use a::A;");
    let a = ("below::a", "use super::b::B; pub struct A;");
    let around = house(&[folder, a, ("below::b", "use super::A; pub struct B;")]);
    assert_eq!(circles_inside(&around), [["below::a", "below::b"]]);
    for b in ["pub struct B;", "#[cfg(test)] mod tests { use crate::below::A; }"] {
        assert!(circles_inside(&house(&[folder, a, ("below::b", b)])).is_empty(), "{b}");
    }
}

/// Texts and names outside of tests.
#[derive(Default)]
struct Words(Vec<String>);

impl<'ast> Visit<'ast> for Words {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.0.push(text.value());
    }

    fn visit_ident(&mut self, name: &'ast syn::Ident) {
        self.0.push(name.to_string());
    }
}

#[test]
fn projection_names_live_in_families() {
    for file in sources().iter().filter(|file| !shown(file).starts_with("src/model/family")) {
        let mut words = Words::default();
        words.visit_file(&parsed(file));
        for name in ["q_proj", "gate_proj", "down_proj"] {
            let found = words.0.iter().any(|word| word.contains(name));
            assert!(!found, "{}: `{name}` belongs to a family", shown(file));
        }
    }
}

#[test]
fn files_stay_readable() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let all = text.lines().count();
        let tests: usize = test_lines(&text).into_iter().map(Iterator::count).sum();
        assert!(all - tests <= 400, "{}: {} lines without tests", shown(&file), all - tests);
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
