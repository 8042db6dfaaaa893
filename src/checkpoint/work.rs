//! Long work that can be taken up again after it was killed.
use super::{
    CheckpointError,
    file::write_file,
    header, mark,
    place::{partial, split, write_error},
    temporary::{self, Lock, remove_at_once},
    writer::{TensorPlan, safetensors_header},
};
use crate::tensor::{Bytes, RawTensor, hex, sha256};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// The settings that the work began with.
const KEY: &str = "work.json";
/// How far it is. Alone it is worth nothing: what was done lies in other files.
const STATE: &str = "state.json";
/// The hash of a file of the output, once all of it is known.
const OUTPUT: &str = "output.json";
/// The hash that every file holds of the rest of it.
const HASH: &str = "sha256";

/// A folder `NAME.partial` beside an output `NAME`, locked as long as its program lives. What is
/// put there is complete and holds its own hash: every file is written under another name and
/// renamed. It stays when the program is killed.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    _lock: Option<fs::File>,
}

/// Tensors by name.
type Tensors = BTreeMap<String, RawTensor>;

impl WorkDir {
    /// Where unfinished work on an output lies.
    pub fn place(target: &Path) -> PathBuf {
        partial(target)
    }

    /// Begins work, or takes it up. Work that is there is refused without `resume` or `force`, and
    /// with `resume` when it was begun with another `key`. With `force` alone it is removed, as is
    /// work that did not get beyond its key. Work of a living program is left to that.
    pub fn begin(
        target: &Path,
        key: &Value,
        resume: bool,
        force: bool,
    ) -> Result<Self, CheckpointError> {
        let path = Self::place(target);
        temporary::tidy(target);
        if path.symlink_metadata().is_ok() {
            let lock = match Lock::take(&path) {
                Lock::Busy => return Err(CheckpointError::Busy { path }),
                Lock::Held(lock) => Some(lock),
                Lock::Absent => None,
            };
            mark::refuse_strangers(&path, is_work_file)?;
            let work = Self { path: path.clone(), _lock: lock };
            if !work.is_bare()? {
                let begun = if force && !resume { None } else { work.json(KEY)? };
                match begun.map(|begun| difference(&begun, key)) {
                    None if force => {}
                    Some(None) if resume => return Ok(work),
                    Some(Some((what, begun, now))) if resume => {
                        return Err(CheckpointError::OtherWork { path, what, begun, now });
                    }
                    _ => return Err(CheckpointError::UnfinishedWork { path }),
                }
            }
            work.finish()?;
        }
        let (parent, name) = split(&path)?;
        let made = fs::create_dir_all(parent)
            .and_then(|()| temporary::make((parent, name), 0o777, temporary::folder));
        let (temp, lock) = made.map_err(write_error(&path))?;
        let mut work = Self { path: temp, _lock: lock };
        work.put_json(KEY, key)?;
        fs::rename(&work.path, &path).map_err(write_error(&path))?;
        work.path = path;
        Ok(work)
    }

    /// Removes what is left of the work on an output that is complete: its program may have been
    /// killed while it did so. Work of a living program is left to that.
    pub fn clear(target: &Path) -> Result<(), CheckpointError> {
        temporary::tidy(target);
        let path = Self::place(target);
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        let lock = match Lock::take(&path) {
            Lock::Busy => return Ok(()),
            Lock::Held(lock) => Some(lock),
            Lock::Absent => None,
        };
        mark::refuse_strangers(&path, is_work_file)?;
        Self { path, _lock: lock }.finish()
    }

    /// Whether nothing is lost with it.
    fn is_bare(&self) -> Result<bool, CheckpointError> {
        let entries = fs::read_dir(&self.path).map_err(write_error(&self.path))?;
        let bare = |name: &str| name.starts_with('.') || [KEY, STATE].contains(&name);
        Ok(entries.flatten().all(|it| it.file_name().to_str().is_some_and(bare)))
    }

    /// Notes how far the work is.
    pub fn put_state(&self, state: &Value) -> Result<(), CheckpointError> {
        self.put_json(STATE, state)
    }

    /// What was noted of that.
    pub fn state(&self) -> Result<Option<Value>, CheckpointError> {
        self.json(STATE)
    }

    /// Notes a file of the output before that gets its name: a program that is killed afterwards,
    /// but before it removes the work, has finished all the same.
    pub fn note_output(&self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.put_json(OUTPUT, &Value::String(sha256(bytes)))
    }

    /// Whether the output with this key is complete and only its work was not removed; `file` is
    /// the one that [`Self::note_output`] was told of.
    pub fn is_finished(target: &Path, key: &Value, file: &str) -> Result<bool, CheckpointError> {
        let work = Self { path: Self::place(target), _lock: None };
        let Some(noted) = work.json(OUTPUT)? else { return Ok(false) };
        if work.json(KEY)?.as_ref() != Some(key) || !target.join(file).is_file() {
            return Ok(false);
        }
        Ok(noted == Value::String(sha256(&Bytes::map(&target.join(file))?)))
    }

    /// A JSON file of the work, as it was written.
    pub fn json(&self, name: &str) -> Result<Option<Value>, CheckpointError> {
        let path = self.path.join(name);
        let bytes = match Bytes::map(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut found: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let value = found["value"].take();
        let whole = found[HASH] == sha256(value.to_string().as_bytes());
        whole.then_some(Some(value)).ok_or(CheckpointError::DamagedWork { path })
    }

    /// Writes a JSON file.
    pub fn put_json(&self, name: &str, value: &Value) -> Result<(), CheckpointError> {
        let hash = sha256(value.to_string().as_bytes());
        let whole = json!({ HASH: hash, "value": value });
        write_file(&self.path.join(name), whole.to_string().as_bytes(), true)
    }

    /// Tensors that were put under this name, mapped, as they were written.
    pub fn tensors(&self, name: &str) -> Result<Option<Tensors>, CheckpointError> {
        let path = self.file(name);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = Bytes::map(&path)?;
        let tensors = header::parse(&bytes).ok();
        let whole = |it: &Tensors| header::metadata(&bytes, HASH) == Some(hash(it));
        tensors.filter(whole).map(Some).ok_or(CheckpointError::DamagedWork { path })
    }

    /// Writes tensors to a file of this name.
    #[expect(clippy::disallowed_methods, reason = "outputs are made here")]
    pub fn put(&self, name: &str, tensors: &Tensors) -> Result<(), CheckpointError> {
        let (path, temp) = (self.file(name), self.path.join(format!(".{name}.tmp")));
        let header = safetensors_header(&plans(tensors), &json!({ HASH: hash(tensors) }));
        let write = || {
            let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(&temp)?);
            out.write_all(&header)?;
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

    /// The work is done, or cannot lead to anything: removes the folder.
    pub fn finish(self) -> Result<(), CheckpointError> {
        remove_at_once(&self.path, |aside| mark::remove_own(aside, is_work_file, &[KEY]))
    }

    fn file(&self, name: &str) -> PathBuf {
        let mut file = OsString::from(name);
        file.push(".safetensors");
        self.path.join(file)
    }
}

/// Whether work has files of this name.
fn is_work_file(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(std::ffi::OsStr::to_str);
    matches!(ending, Some("json" | "safetensors"))
        || (name.starts_with('.') && name.contains(".tmp"))
}

fn plans(tensors: &Tensors) -> Vec<TensorPlan> {
    let plan = |(name, it): (&String, &RawTensor)| TensorPlan {
        name: name.clone(),
        dtype: it.dtype,
        shape: it.shape.clone(),
    };
    tensors.iter().map(plan).collect()
}

/// SHA-256 over names, types, shapes and bytes.
fn hash(tensors: &Tensors) -> String {
    let mut hash = Sha256::new_with_prefix(safetensors_header(&plans(tensors), &Value::Null));
    for tensor in tensors.values() {
        hash.update(&*tensor.bytes);
    }
    hex(&hash.finalize())
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
    #[cfg(unix)]
    fn what_is_left_of_finished_work_goes() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        WorkDir::clear(&target).unwrap();
        let begin = || WorkDir::begin(&target, &json!(1), false, true).unwrap();
        // Killed before the work lost its name, and after it.
        drop(begin());
        WorkDir::clear(&target).unwrap();
        drop(begin());
        let aside = folder.path().join(".out.partial.tmp-abc123");
        fs::rename(WorkDir::place(&target), aside).unwrap();
        WorkDir::clear(&target).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let living = begin();
        WorkDir::clear(&target).unwrap();
        assert!(WorkDir::place(&target).exists());
        drop(living);
        fs::write(WorkDir::place(&target).join("letter.txt"), "dear").unwrap();
        assert!(WorkDir::clear(&target).is_err() && WorkDir::place(&target).exists());
    }

    fn tensors() -> Tensors {
        BTreeMap::from([("a".to_owned(), RawTensor::from_f32(vec![2], &[1.0, 2.0]))])
    }

    #[test]
    fn force_begins_anew_but_not_over_a_strange_folder() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let work = WorkDir::begin(&target, &json!(1), false, false).unwrap();
        work.put("x", &tensors()).unwrap();
        drop(work);
        let work = WorkDir::begin(&target, &json!(2), false, true).unwrap();
        assert!(work.tensors("x").unwrap().is_none());
        let strange = folder.path().join("strange");
        fs::create_dir(WorkDir::place(&strange)).unwrap();
        fs::write(WorkDir::place(&strange).join("letter.txt"), "dear").unwrap();
        let refused = WorkDir::begin(&strange, &json!(1), false, true).unwrap_err().to_string();
        assert!(refused.contains("`letter.txt`"), "{refused}");
        assert!(WorkDir::place(&strange).join("letter.txt").exists());
    }

    #[test]
    #[cfg(unix)]
    fn work_of_a_living_run_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let living = WorkDir::begin(&target, &json!(1), false, false).unwrap();
        living.put("x", &tensors()).unwrap();
        for (resume, force) in [(false, false), (true, false), (false, true), (true, true)] {
            let error = WorkDir::begin(&target, &json!(1), resume, force).unwrap_err();
            assert!(matches!(error, CheckpointError::Busy { .. }), "{error}");
        }
        assert!(living.tensors("x").unwrap().is_some());
        drop(living);
        assert!(WorkDir::begin(&target, &json!(1), true, false).is_ok());
    }

    #[test]
    fn what_was_not_begun_refuses_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        // Killed before anything was finished, in any settings; or before there was a key.
        let work = WorkDir::begin(&target, &json!(1), false, false).unwrap();
        work.put_state(&json!({"block": 0})).unwrap();
        drop(work);
        drop(WorkDir::begin(&target, &json!(2), false, false).unwrap());
        drop(WorkDir::begin(&target, &json!(3), true, false).unwrap());
        fs::remove_file(WorkDir::place(&target).join(KEY)).unwrap();
        let work = WorkDir::begin(&target, &json!(4), false, false).unwrap();
        work.finish().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Every bit of every file, but those that say the same in other words.
    #[test]
    fn a_damaged_file_is_not_gone_on_from() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let key = json!({"seed": 7});
        let work = WorkDir::begin(&target, &key, false, false).unwrap();
        work.put("x", &tensors()).unwrap();
        work.put_state(&json!({"block": 3})).unwrap();
        let read = |work: &WorkDir| {
            let found = (work.tensors("x")?, work.state()?, work.json(KEY)?);
            Ok::<_, CheckpointError>((found.0.map(|it| it["a"].bytes.to_vec()), found.1, found.2))
        };
        let whole = read(&work).unwrap();
        let (mut found, mut same) = (0, 0);
        for name in ["x.safetensors", STATE, KEY] {
            let path = WorkDir::place(&target).join(name);
            let bytes = fs::read(&path).unwrap();
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                fs::write(&path, changed).unwrap();
                match read(&work) {
                    Err(error) => {
                        assert!(matches!(error, CheckpointError::DamagedWork { .. }), "{error}");
                        found += 1;
                    }
                    Ok(read) => {
                        assert_eq!(read, whole, "{name}, byte {at}");
                        same += 1;
                    }
                }
            }
            fs::write(&path, bytes).unwrap();
        }
        assert!(found > 10 * same, "{found} found, {same} say the same");
    }
}
