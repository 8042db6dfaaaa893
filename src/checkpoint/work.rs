//! Long work that can be taken up again after it was killed.
use super::{
    CheckpointError, header,
    output::write_error,
    writer::{header as write_header, sha256},
};
use crate::{
    checkpoint::{TensorPlan, write_file},
    tensor::{Bytes, RawTensor},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// The settings that the work began with.
const KEY: &str = "work.json";
/// The hash of a file of the output, once all of it is known.
const OUTPUT: &str = "output.json";

/// A folder `NAME.partial` beside an output `NAME`. What is put there is complete: every file is
/// written under another name and renamed. It stays when the program is killed.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
}

/// Tensors by name.
type Tensors = BTreeMap<String, RawTensor>;

impl WorkDir {
    /// Where unfinished work on an output lies.
    pub fn place(target: &Path) -> PathBuf {
        let mut name = target.as_os_str().to_owned();
        name.push(".partial");
        name.into()
    }

    /// Begins work, or takes it up. What is there is refused without `resume` or `force`, and
    /// with `resume` when it was begun with another `key`. With `force` alone it is removed.
    pub fn begin(
        target: &Path,
        key: &Value,
        resume: bool,
        force: bool,
    ) -> Result<Self, CheckpointError> {
        let path = Self::place(target);
        let work = Self { path: path.clone() };
        if path.symlink_metadata().is_ok() {
            let begun = work.json(KEY)?;
            match begun {
                Some(begun) if resume => match difference(&begun, key) {
                    None => return Ok(work),
                    Some((what, begun, now)) => {
                        return Err(CheckpointError::OtherWork { path, what, begun, now });
                    }
                },
                Some(_) if force => fs::remove_dir_all(&path).map_err(write_error(&path))?,
                Some(_) => return Err(CheckpointError::UnfinishedWork { path }),
                None => return Err(CheckpointError::NotReplaceable { path }),
            }
        }
        fs::create_dir_all(&path).map_err(write_error(&path))?;
        work.put_json(KEY, key)?;
        Ok(work)
    }

    /// Notes a file of the output before that gets its name: a program that is killed afterwards,
    /// but before it removes the work, has finished all the same.
    pub fn note_output(&self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.put_json(OUTPUT, &Value::String(sha256(bytes)))
    }

    /// Whether the output with this key is complete and only its work was not removed; `file` is
    /// the one that [`Self::note_output`] was told of.
    pub fn is_finished(target: &Path, key: &Value, file: &str) -> Result<bool, CheckpointError> {
        let work = Self { path: Self::place(target) };
        let Some(noted) = work.json(OUTPUT)? else { return Ok(false) };
        if work.json(KEY)?.as_ref() != Some(key) || !target.join(file).is_file() {
            return Ok(false);
        }
        Ok(noted == Value::String(sha256(&Bytes::map(&target.join(file))?)))
    }

    /// A JSON file of the work.
    pub fn json(&self, name: &str) -> Result<Option<Value>, CheckpointError> {
        let path = self.path.join(name);
        match Bytes::map(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(source) => {
                    Err(CheckpointError::Json { file: path.display().to_string(), source })
                }
            },
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a JSON file.
    pub fn put_json(&self, name: &str, value: &Value) -> Result<(), CheckpointError> {
        write_file(&self.path.join(name), value.to_string().as_bytes(), true)
    }

    /// Tensors that were put under this name, mapped.
    pub fn tensors(&self, name: &str) -> Result<Option<Tensors>, CheckpointError> {
        let path = self.file(name);
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |source| CheckpointError::Header {
            file: path.display().to_string(),
            source: Box::new(source),
        };
        Ok(Some(header::parse(&Bytes::map(&path)?).map_err(damaged)?))
    }

    /// Writes tensors to a file of this name.
    #[expect(clippy::disallowed_methods, reason = "outputs are made here")]
    pub fn put(&self, name: &str, tensors: &Tensors) -> Result<(), CheckpointError> {
        let (path, temp) = (self.file(name), self.path.join(format!(".{name}.tmp")));
        let plans = tensors.iter().map(|(name, it)| TensorPlan {
            name: name.clone(),
            dtype: it.dtype,
            shape: it.shape.clone(),
        });
        let write = || {
            let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(&temp)?);
            out.write_all(&write_header(&plans.collect::<Vec<_>>()))?;
            for tensor in tensors.values() {
                out.write_all(&tensor.bytes)?;
            }
            out.flush()?;
            fs::rename(&temp, &path)
        };
        write().map_err(write_error(&path))
    }

    /// Removes the tensors of a name, if there are any.
    pub fn remove(&self, name: &str) -> Result<(), CheckpointError> {
        let path = self.file(name);
        if path.exists() { fs::remove_file(&path).map_err(write_error(&path)) } else { Ok(()) }
    }

    /// The work is done: removes the folder.
    pub fn finish(self) -> Result<(), CheckpointError> {
        fs::remove_dir_all(&self.path).map_err(write_error(&self.path))
    }

    fn file(&self, name: &str) -> PathBuf {
        let mut file = OsString::from(name);
        file.push(".safetensors");
        self.path.join(file)
    }
}

/// A place in which two JSON values differ, with both values: `settings.seed`, `0`, `1`. It is the
/// first one, but a hash only where nothing else tells what differs.
pub fn difference(a: &Value, b: &Value) -> Option<(String, String, String)> {
    let mut all = differences(a, b);
    let told = all.iter().position(|(place, ..)| !place.contains("sha256")).unwrap_or(0);
    (!all.is_empty()).then(|| all.swap_remove(told))
}

fn differences(a: &Value, b: &Value) -> Vec<(String, String, String)> {
    let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            let under = |key: &String| match (left.get(key), right.get(key)) {
                (Some(a), Some(b)) => differences(a, b),
                (a, b) => vec![(String::new(), shown(a), shown(b))],
            };
            let named = |key: &String, inner: String| {
                if inner.is_empty() { key.clone() } else { format!("{key}.{inner}") }
            };
            keys.into_iter()
                .flat_map(|key| under(key).into_iter().map(|(it, a, b)| (named(key, it), a, b)))
                .collect()
        }
        _ if a == b => Vec::new(),
        _ => vec![(String::new(), shown(Some(a)), shown(Some(b)))],
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make folders")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn work_is_taken_up_only_with_its_own_settings() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let key = json!({"seed": 0, "settings": {"keep": 0.8}});
        let work = WorkDir::begin(&target, &key, false, false).unwrap();
        let tensors = BTreeMap::from([("a".to_owned(), RawTensor::from_f32(vec![2], &[1.0, 2.0]))]);
        work.put("block-0", &tensors).unwrap();
        drop(work);
        let again = WorkDir::begin(&target, &key, false, false).unwrap_err();
        assert!(matches!(again, CheckpointError::UnfinishedWork { .. }), "{again}");
        let other = json!({"ids_sha256": "x", "seed": 0, "settings": {"keep": 0.7}});
        let error = WorkDir::begin(&target, &other, true, false).unwrap_err().to_string();
        assert!(error.contains("`settings.keep`") && error.contains("0.8"), "{error}");
        let work = WorkDir::begin(&target, &key, true, false).unwrap();
        let back = work.tensors("block-0").unwrap().unwrap();
        assert_eq!(back["a"].to_f32().unwrap(), [1.0, 2.0]);
        assert!(work.tensors("block-1").unwrap().is_none());
        fs::create_dir(&target).unwrap();
        fs::write(target.join("report"), "done").unwrap();
        let finished = |key| WorkDir::is_finished(&target, key, "report").unwrap();
        assert!(!finished(&key), "nothing is noted");
        work.note_output(b"done").unwrap();
        assert!(finished(&key) && !finished(&other));
        fs::write(target.join("report"), "another").unwrap();
        assert!(!finished(&key));
        work.finish().unwrap();
        assert!(!WorkDir::place(&target).exists());
    }

    #[test]
    fn force_begins_anew_but_not_over_a_strange_folder() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let work = WorkDir::begin(&target, &json!(1), false, false).unwrap();
        work.put("x", &BTreeMap::new()).unwrap();
        let work = WorkDir::begin(&target, &json!(2), false, true).unwrap();
        assert!(work.tensors("x").unwrap().is_none());
        let strange = folder.path().join("strange");
        fs::create_dir(WorkDir::place(&strange)).unwrap();
        assert!(WorkDir::begin(&strange, &json!(1), false, true).is_err());
        assert!(WorkDir::place(&strange).exists());
    }
}
