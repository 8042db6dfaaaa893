//! Who uses whom: every path of the source that leads to another module, in any form.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};
use syn::{
    Item, ItemUse, UseTree, Visibility,
    visit::{self, Visit},
};

/// A module by its names from the root of the crate; empty for `lib.rs`.
pub(crate) type Module = Vec<String>;

/// One use of a module by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    pub(crate) from: Module,
    pub(crate) to: Module,
    /// What stands there.
    pub(crate) path: String,
    /// Handed on under the module's own name, and not worked with.
    pub(crate) is_export: bool,
    pub(crate) in_test: bool,
}

/// The modules of a crate and what each hands on.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    modules: BTreeSet<Module>,
    /// By module and name: where the name leads to.
    names: BTreeMap<(Module, String), Vec<String>>,
    found: Vec<Found>,
}

#[derive(Debug)]
struct Found {
    from: Module,
    path: Vec<String>,
    is_export: bool,
    in_test: bool,
}

impl Crate {
    /// Reads every file under `src`.
    pub(crate) fn read(src: &Path) -> Self {
        let text = |file: PathBuf| (module_of(src, &file), fs::read_to_string(file).unwrap());
        Self::of(rust_files(src).into_iter().map(text).collect())
    }

    /// Modules by name, and their texts.
    pub(crate) fn of(files: Vec<(Module, String)>) -> Self {
        let modules = files.iter().map(|(module, _)| module.clone()).collect();
        let mut all = Self { modules, ..Self::default() };
        for (module, text) in files {
            let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{module:?}: {error}"));
            Reader { all: &mut all, module, in_test: false }.visit_file(&file);
        }
        all
    }

    /// Every use of another module.
    pub(crate) fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for Found { from, path, is_export, in_test } in &self.found {
            let to = self.lead(path, 0);
            if to != *from {
                let (path, from) = (path.join("::"), from.clone());
                imports.insert(Import { from, to, path, is_export: *is_export, in_test: *in_test });
            }
        }
        imports
    }

    /// The module that a path leads to, through what others hand on.
    fn lead(&self, path: &[String], depth: usize) -> Module {
        let mut module = Module::new();
        for (at, name) in path.iter().enumerate() {
            let mut inner = module.clone();
            inner.push(name.clone());
            if self.modules.contains(&inner) {
                module = inner;
                continue;
            }
            if let Some(target) = self.names.get(&(module.clone(), name.clone()))
                && depth < 8
            {
                let whole: Vec<String> = target.iter().chain(&path[at + 1..]).cloned().collect();
                return self.lead(&whole, depth + 1);
            }
            break;
        }
        module
    }
}

/// Reads one file.
struct Reader<'a> {
    all: &'a mut Crate,
    module: Module,
    in_test: bool,
}

impl Reader<'_> {
    /// A path from the root of the crate, if it begins with `crate`, `self` or `super`, or with a
    /// module that stands here.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let mut base = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.module.clone(),
            name => {
                let mut inner = self.module.clone();
                inner.push(name.to_owned());
                return self.all.modules.contains(&inner).then(|| {
                    inner.extend(path[1..].iter().cloned());
                    inner
                });
            }
        };
        for name in path {
            match name.as_str() {
                "crate" | "self" => {}
                "super" => drop(base.pop()),
                name => base.push(name.to_owned()),
            }
        }
        Some(base)
    }

    fn see(&mut self, path: &[String], is_export: bool) {
        if let Some(path) = self.resolve(path) {
            let (from, in_test) = (self.module.clone(), self.in_test);
            self.all.found.push(Found { from, path, is_export, in_test });
        }
    }

    /// Every leaf of a `use`: its path and the name that it has here.
    fn leaves(tree: &UseTree, before: &[String], out: &mut Vec<(Vec<String>, String)>) {
        let with = |name: String| before.iter().cloned().chain([name]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => Self::leaves(&path.tree, &with(path.ident.to_string()), out),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| Self::leaves(tree, before, out));
            }
            UseTree::Name(name) if name.ident == "self" => {
                let last = before.last().cloned().unwrap_or_default();
                out.push((before.to_vec(), last));
            }
            UseTree::Name(name) => out.push((with(name.ident.to_string()), name.ident.to_string())),
            UseTree::Rename(name) => {
                let path = if name.ident == "self" {
                    before.to_vec()
                } else {
                    with(name.ident.to_string())
                };
                out.push((path, name.rename.to_string()));
            }
            UseTree::Glob(_) => out.push((before.to_vec(), "*".to_owned())),
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let outer = (self.in_test, self.module.clone());
        self.in_test |= is_test(item);
        if let Item::Mod(inner) = item
            && inner.content.is_some()
        {
            self.module.push(inner.ident.to_string());
        }
        visit::visit_item(self, item);
        (self.in_test, self.module) = outer;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut leaves = Vec::new();
        Self::leaves(&item.tree, &[], &mut leaves);
        let is_export = !matches!(item.vis, Visibility::Inherited);
        for (path, name) in leaves {
            if let Some(path) = self.resolve(&path) {
                self.all.names.insert((self.module.clone(), name), path);
            }
            self.see(&path, is_export);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|it| it.ident.to_string()).collect();
        if names.len() > 1 || names.first().is_some_and(|it| it == "crate") {
            self.see(&names, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// Whether an item is compiled for tests only.
pub(crate) fn is_test(item: &Item) -> bool {
    let attributes = match item {
        Item::Const(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => return false,
    };
    attributes.iter().any(|it| {
        it.path().is_ident("cfg") && it.parse_args::<syn::Ident>().is_ok_and(|it| it == "test")
    })
}

/// Lines of a source that are compiled for tests only; none of what is no Rust.
pub(crate) fn test_lines(text: &str) -> Vec<RangeInclusive<usize>> {
    let items = syn::parse_file(text).map_or_else(|_| Vec::new(), |it| it.items);
    let tests = items.iter().filter(|it| is_test(it)).map(syn::spanned::Spanned::span);
    tests.map(|it| it.start().line..=it.end().line).collect()
}

pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            out.extend(rust_files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            out.push(path);
        }
    }
    out.sort();
    out
}

fn module_of(src: &Path, file: &Path) -> Module {
    let names = file.strip_prefix(src).unwrap().with_extension("");
    let mut names: Module = names.iter().map(|it| it.to_str().unwrap().to_owned()).collect();
    if names.last().is_some_and(|it| ["mod", "lib"].contains(&it.as_str())) {
        names.pop();
    }
    names
}

/// Groups of modules each of which uses, over others, every other of the group.
pub(crate) fn circles(arrows: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let reach = |from: &Module| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(at) = next.pop() {
            for to in arrows.get(&at).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let all: BTreeMap<&Module, BTreeSet<Module>> =
        arrows.keys().map(|it| (it, reach(it))).collect();
    let mut circles = BTreeSet::new();
    for (module, seen) in &all {
        let group: Vec<Module> = seen
            .iter()
            .filter(|it| all.get(it).is_some_and(|seen| seen.contains(*module)))
            .cloned()
            .collect();
        if group.len() > 1 {
            circles.insert(group);
        }
    }
    circles.into_iter().collect()
}
