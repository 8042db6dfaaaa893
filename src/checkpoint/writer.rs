//! Streams tensors into safetensors shards, with the hash of each tensor and file.
use super::{CheckpointError, FileRecord, HashedFile, INDEX_FILE, OutputDir, WEIGHTS_FILE};
use crate::tensor::Dtype;
pub use crate::tensor::{hex, sha256};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

/// Largest shard unless told otherwise, as transformers writes them.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// Chunks that may wait for the disk.
const QUEUE: usize = 32;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, outermost axis first.
    pub shape: Vec<usize>,
}

impl TensorPlan {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        let elements: u64 = self.shape.iter().map(|n| *n as u64).product();
        elements * self.dtype.bitsize() as u64 / 8
    }
}

/// A tensor that was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TensorRecord {
    /// The file that holds it.
    pub file: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// SHA-256 of its bytes in hexadecimal digits.
    pub sha256: String,
}

/// Everything that was written.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Shards and index by name.
    pub files: BTreeMap<String, FileRecord>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorRecord>,
}

struct Shard {
    name: String,
    tensors: Vec<TensorPlan>,
}

/// Splits tensors, in their order, into shards of at most `limit` bytes (one tensor at least).
fn split(tensors: Vec<TensorPlan>, limit: u64) -> Vec<Shard> {
    let mut groups: Vec<Vec<TensorPlan>> = vec![Vec::new()];
    let mut size = 0;
    for tensor in tensors {
        let bytes = tensor.bytes();
        if size + bytes > limit && size > 0 {
            groups.push(Vec::new());
            size = 0;
        }
        size += bytes;
        groups.last_mut().expect("starts with one").push(tensor);
    }
    let count = groups.len();
    let name = |i| match count {
        1 => WEIGHTS_FILE.to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
    };
    groups.into_iter().enumerate().map(|(i, tensors)| Shard { name: name(i), tensors }).collect()
}

/// The header of a checkpoint's file.
pub(super) fn header(tensors: &[TensorPlan]) -> Vec<u8> {
    safetensors_header(tensors, &serde_json::json!({ "format": "pt" }))
}

/// What a safetensors file begins with: the length and text of its header, which lists tensors in
/// the order of their data and is padded so that the data begins at a multiple of 8.
pub fn safetensors_header(tensors: &[TensorPlan], metadata: &serde_json::Value) -> Vec<u8> {
    let mut map = serde_json::Map::new();
    map.insert("__metadata__".into(), metadata.clone());
    let mut at = 0;
    for tensor in tensors {
        let end = at + tensor.bytes();
        map.insert(
            tensor.name.clone(),
            serde_json::json!({
                "dtype": tensor.dtype.to_string(), "shape": tensor.shape, "data_offsets": [at, end],
            }),
        );
        at = end;
    }
    let mut text = serde_json::Value::Object(map).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes
}

/// Writes tensors one after another, in the order of their plan. Hashing and writing run on a
/// thread of their own.
#[derive(Debug)]
pub struct ShardWriter {
    queue: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<Result<Written, CheckpointError>>>,
    /// Tensors still to be written, the next one last, with the bytes still missing.
    rest: Vec<(String, u64)>,
}

impl ShardWriter {
    /// Plans the files for `tensors`, in their order (by name, usually), in shards of at most
    /// `limit` bytes.
    pub fn create(dir: &OutputDir, tensors: Vec<TensorPlan>, limit: u64) -> Self {
        let rest = tensors.iter().rev().map(|it| (it.name.clone(), it.bytes())).collect();
        let mut sink = Sink {
            temp: dir.path().to_owned(),
            target: dir.target().to_owned(),
            written: Written::default(),
        };
        let shards = split(tensors, limit);
        let (queue, chunks) = sync_channel(QUEUE);
        let thread = std::thread::spawn(move || {
            sink.run(&shards, &mut Chunks { queue: chunks, current: Vec::new(), at: 0 })
        });
        Self { queue: Some(queue), thread: Some(thread), rest }
    }

    /// Appends bytes to a tensor. Tensors are written in the order of the plan, each in full
    /// before the next.
    pub fn write(&mut self, tensor: &str, bytes: Vec<u8>) -> Result<(), CheckpointError> {
        let got = bytes.len() as u64;
        let plan = |planned| CheckpointError::Plan { tensor: tensor.to_owned(), planned, got };
        while self.rest.last().is_some_and(|(_, missing)| *missing == 0) {
            self.rest.pop();
        }
        match self.rest.last_mut() {
            _ if got == 0 => return Ok(()),
            Some((name, missing)) if name == tensor && *missing >= got => *missing -= got,
            Some((name, missing)) if name == tensor => return Err(plan(*missing)),
            _ => return Err(plan(0)),
        }
        let queue = self.queue.as_ref().expect("open until it is finished");
        if queue.send(bytes).is_err() {
            // The thread has ended early: with the error that tells why.
            return Err(self.join().err().unwrap_or_else(|| plan(0)));
        }
        Ok(())
    }

    /// Completes the files and tells what they hold.
    pub fn finish(mut self) -> Result<Written, CheckpointError> {
        if let Some((tensor, missing)) = self.rest.iter().find(|(_, missing)| *missing > 0) {
            let (tensor, planned) = (tensor.clone(), *missing);
            self.join()?;
            return Err(CheckpointError::Plan { tensor, planned, got: 0 });
        }
        self.join()
    }

    fn join(&mut self) -> Result<Written, CheckpointError> {
        self.queue = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(Written::default()),
        }
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        // The folder may be removed next: nothing must be writing into it.
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// The stream of chunks, cut at the ends of tensors.
struct Chunks {
    queue: Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Chunks {
    /// At most `limit` next bytes; empty when the stream has ended.
    fn next(&mut self, limit: u64) -> &[u8] {
        if self.at == self.current.len() {
            self.current = self.queue.recv().unwrap_or_default();
            self.at = 0;
        }
        let start = self.at;
        let left = (self.current.len() - start) as u64;
        self.at += left.min(limit) as usize;
        &self.current[start..self.at]
    }
}

/// The writing thread.
struct Sink {
    temp: PathBuf,
    target: PathBuf,
    written: Written,
}

impl Sink {
    fn run(&mut self, shards: &[Shard], chunks: &mut Chunks) -> Result<Written, CheckpointError> {
        for shard in shards {
            let mut file = self.file(&shard.name)?;
            file.append(&header(&shard.tensors))?;
            for tensor in &shard.tensors {
                let Some(sha256) = copy(tensor, chunks, &mut file)? else {
                    return Ok(Written::default()); // given up by the sender
                };
                let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
                let record = TensorRecord { file: shard.name.clone(), dtype, shape, sha256 };
                self.written.tensors.insert(tensor.name.clone(), record);
            }
            let record = file.finish()?;
            self.written.files.insert(shard.name.clone(), record);
        }
        if shards.len() > 1 {
            self.index(shards)?;
        }
        Ok(std::mem::take(&mut self.written))
    }

    fn file(&self, name: &str) -> Result<HashedFile, CheckpointError> {
        HashedFile::create(&self.temp.join(name), self.target.join(name))
    }

    fn index(&mut self, shards: &[Shard]) -> Result<(), CheckpointError> {
        let total: u64 = shards.iter().flat_map(|it| &it.tensors).map(TensorPlan::bytes).sum();
        let map: BTreeMap<&str, &str> = shards
            .iter()
            .flat_map(|shard| shard.tensors.iter().map(|it| (&*it.name, &*shard.name)))
            .collect();
        let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map });
        let mut file = self.file(INDEX_FILE)?;
        file.append(format!("{index:#}\n").as_bytes())?;
        self.written.files.insert(INDEX_FILE.into(), file.finish()?);
        Ok(())
    }
}

/// Copies one tensor from the stream; its hash, or `None` when the stream ends too early.
fn copy(
    tensor: &TensorPlan,
    chunks: &mut Chunks,
    file: &mut HashedFile,
) -> Result<Option<String>, CheckpointError> {
    let (mut hash, mut left) = (Sha256::new(), tensor.bytes());
    while left > 0 {
        let bytes = chunks.next(left);
        if bytes.is_empty() {
            return Ok(None);
        }
        hash.update(bytes);
        file.append(bytes)?;
        left -= bytes.len() as u64;
    }
    Ok(Some(hex(&hash.finalize())))
}
