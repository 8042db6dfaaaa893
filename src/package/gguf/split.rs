//! Opens a file; also one in parts, `NAME-00001-of-0000N.gguf`, as `llama-gguf-split` and converters write them: each
//! has tensors of its own, the first has the metadata.
use super::{
    error::{ContentError, GgufError, SplitError},
    file::{Gguf, open_part, wrong},
    names::key,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Missing parts that are named.
const NAMED: usize = 5;

/// Maps a file and reads its header; of a file in parts all of them, whichever is named.
pub fn open(path: &Path) -> Result<Gguf, GgufError> {
    whole(open_part(path)?, path)
}

/// What a part says about itself: its number from 0, and how many there are.
fn place(part: &Gguf) -> Result<Option<(u64, u64)>, GgufError> {
    let size = |key| part.size(key).map_err(|what| content(part, what));
    let Some(count) = size(key::SPLIT_COUNT)?.filter(|count| *count > 1) else { return Ok(None) };
    let no = size(key::SPLIT_NO)?.unwrap_or(0);
    match part.metadata.get(key::SPLIT_NO) {
        Some(found) if no >= count => {
            let expected = format!("a number below {count}");
            Err(content(part, wrong(key::SPLIT_NO, expected, found)))
        }
        _ => Ok(Some((no, count))),
    }
}

fn content(part: &Gguf, what: ContentError) -> GgufError {
    GgufError::Content { file: part.file.clone(), what: Box::new(what) }
}

/// The end of a part's name.
fn ending(no: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}.gguf", no + 1)
}

/// The file that a part belongs to, with the tensors of all of them; a file of its own stays as it is.
fn whole(part: Gguf, path: &Path) -> Result<Gguf, GgufError> {
    let Some((no, count)) = place(&part)? else { return Ok(part) };
    let file = part.file;
    let wrong = |what| GgufError::Split { file: file.clone(), what: Box::new(what) };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(stem) = name.strip_suffix(&ending(no, count)) else {
        let (part, expected) = (no + 1, ending(no, count));
        return Err(wrong(SplitError::Name { part, count, expected }));
    };
    let named = |no| path.with_file_name(format!("{stem}{}", ending(no, count)));
    let missing: Vec<String> = (0..count)
        .map(named)
        .filter(|part| !part.is_file())
        .map(|part| format!("`{}`", part.display()))
        .take(NAMED)
        .collect();
    if !missing.is_empty() {
        return Err(wrong(SplitError::Missing { count, missing }));
    }
    let mut all = open_part(&named(0))?;
    let mut seen: BTreeSet<String> = all.tensors.iter().map(|it| it.name.clone()).collect();
    agrees(&all, &all, (0, count)).map_err(wrong)?;
    for no in 1..count {
        let next: PathBuf = named(no);
        let next = open_part(&next)?;
        agrees(&all, &next, (no, count)).map_err(wrong)?;
        if let Some(twice) = next.tensors.iter().find(|it| !seen.insert(it.name.clone())) {
            let (tensor, part) = (twice.name.clone(), next.file.clone());
            return Err(wrong(SplitError::Twice { tensor, part }));
        }
        all.tensors.extend(next.tensors);
        all.padding.extend(next.padding);
    }
    let said = all.size(key::SPLIT_TENSORS).map_err(|what| content(&all, what))?;
    let found = all.tensors.len();
    match said.filter(|said| *said != found as u64) {
        Some(expected) => Err(wrong(SplitError::Count { found, expected })),
        None => Ok(all),
    }
}

/// Refuses a part that says another number, and one of another model as far as it tells.
fn agrees(first: &Gguf, part: &Gguf, (no, count): (u64, u64)) -> Result<(), SplitError> {
    let shown = |of: &Gguf, key| of.metadata.get(key).map(super::Value::shown);
    let expected = [
        (key::SPLIT_NO, Some(no.to_string()), true),
        (key::SPLIT_COUNT, Some(count.to_string()), true),
        (key::SPLIT_TENSORS, shown(first, key::SPLIT_TENSORS), false),
        (key::ARCHITECTURE, shown(first, key::ARCHITECTURE), false),
    ];
    for (key, expected, needed) in expected {
        let found = shown(part, key);
        if found != expected && (needed || found.is_some()) {
            let [found, expected] = [found, expected].map(|it| it.unwrap_or("absent".into()));
            let part = part.file.clone();
            return Err(SplitError::Key { part, key, found, expected });
        }
    }
    Ok(())
}
