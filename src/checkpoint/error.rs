//! What can be wrong with a folder.
use crate::tensor::MapError;
use std::path::PathBuf;

/// A checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refuses to read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Work on this output was begun and not finished.
    #[error(
        "unfinished work in `{}`\nhint: go on with --resume, or start anew with --force",
        path.display()
    )]
    UnfinishedWork {
        /// Its folder.
        path: PathBuf,
    },
    /// Unfinished work was begun in another way.
    #[error(
        "the work in `{}` was begun with another `{what}`: {begun} then, {now} now\n\
         hint: resume with the settings of then, or start anew with --force and without --resume",
        path.display()
    )]
    OtherWork {
        /// Its folder.
        path: PathBuf,
        /// What differs.
        what: String,
        /// Its value when the work was begun.
        begun: String,
        /// Its value now.
        now: String,
    },
    /// The system refuses to write.
    #[error("cannot write `{}`: {source}{}", path.display(), write_hint(source))]
    Write {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Neither a folder nor a carried model.
    #[error(
        "no checkpoint folder at `{name}`\nhint: give a Hugging Face folder with config.json, or {}{}",
        carried(),
        hint.map(|it| format!("; {it}")).unwrap_or_default()
    )]
    NotAFolder {
        /// As it was given.
        name: String,
        /// What to do with what is there.
        hint: Option<&'static str>,
    },
    /// A carried model of this name does not exist.
    #[error("no model `{name}` in this program\nhint: {} is known", carried())]
    UnknownBuiltin {
        /// As it was given.
        name: String,
    },
    /// A file that every checkpoint has is not there.
    #[error("`{folder}` has no `{file}`\nhint: {hint}")]
    NoFile {
        /// The folder.
        folder: String,
        /// The file.
        file: String,
        /// What to do.
        hint: &'static str,
    },
    /// A text file is not text.
    #[error("`{file}` is not UTF-8: the byte at {at} is wrong\nhint: fetch the file again")]
    NotUtf8 {
        /// The file.
        file: String,
        /// Position of the first bad byte.
        at: usize,
    },
    /// A JSON file cannot be parsed.
    #[error("`{file}` is not valid JSON: {source}\nhint: fetch the file again")]
    Json {
        /// The file.
        file: String,
        /// What is wrong and where.
        source: serde_json::Error,
    },
    /// A safetensors file is damaged.
    #[error(
        "`{file}`: {source}\nhint: the file is damaged or was not fetched fully; fetch it again"
    )]
    Header {
        /// The file.
        file: String,
        /// What is wrong.
        source: Box<HeaderError>,
    },
    /// The index has no `weight_map` of strings.
    #[error(
        "`{file}`: `weight_map` is missing or is not an object of tensor and file names\nhint: fetch the file again"
    )]
    IndexForm {
        /// The index.
        file: String,
    },
    /// The index names a file that is not there.
    #[error(
        "shard `{shard}`, named by `{index}` for tensor `{tensor}`, is missing\nhint: fetch the missing file into the folder"
    )]
    MissingShard {
        /// The index.
        index: String,
        /// The file.
        shard: String,
        /// First tensor that lies in it.
        tensor: String,
    },
    /// The index names a tensor that its shard does not hold.
    #[error(
        "tensor `{tensor}` is not in `{shard}`, where `{index}` says it is\nhint: index and shards come from different versions; fetch both again"
    )]
    AbsentTensor {
        /// The index.
        index: String,
        /// The file.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// Two files hold a tensor of one name.
    #[error(
        "tensor `{tensor}` is in `{first}` and in `{second}`\nhint: remove the file that does not belong to the checkpoint"
    )]
    TwiceInShards {
        /// The tensor.
        tensor: String,
        /// One file.
        first: String,
        /// Another file.
        second: String,
    },
    /// A name leads out of the folder.
    #[error(
        "`{file}`, named by `{by}`, lies outside the folder\nhint: file names must be relative and stay inside the folder, links too"
    )]
    Outside {
        /// As it was given.
        file: String,
        /// Who names it.
        by: String,
    },
    /// A link leads out of the folder.
    #[error(
        "`{file}` is a link to `{}`, outside the folder\nhint: links are followed inside a folder only, so that nobody else's folder reaches your files; copy what they lead to: `cp -rL FOLDER COPY`",
        target.display()
    )]
    Link {
        /// The link.
        file: String,
        /// Where it leads.
        target: PathBuf,
    },
    /// A file that Git LFS has not fetched.
    #[error(
        "`{file}` is a pointer of Git LFS, not the file itself\nhint: run `git lfs pull` in the folder, or fetch it with `hf download`"
    )]
    LfsPointer {
        /// The file.
        file: String,
    },
    /// The output exists.
    #[error("`{}` exists\nhint: choose another name, or replace it with --force", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The output exists and is no folder, or a link.
    #[error(
        "`{}` exists and is not a folder: it is not replaced, even with --force\nhint: choose another name, or remove it yourself",
        path.display()
    )]
    NotReplaceable {
        /// The output.
        path: PathBuf,
    },
    /// The output exists and holds what this program did not write there.
    #[error(
        "`{}` holds {}, which this program did not write there: it is not replaced, even with --force\nhint: choose another name, or move them away",
        path.display(), shown_names(names, *more)
    )]
    Strangers {
        /// The output.
        path: PathBuf,
        /// Some of the files and folders.
        names: Vec<String>,
        /// How many others there are.
        more: usize,
    },
    /// An output that is a file would replace something else.
    #[error(
        "`{}` is {kind}: it is not written over\nhint: name a file",
        path.display()
    )]
    Special {
        /// The output.
        path: PathBuf,
        /// What stands there.
        kind: &'static str,
    },
    /// Another program works on the same output.
    #[error(
        "another run works on `{}`\nhint: wait for it to end, or choose another output",
        path.display()
    )]
    Busy {
        /// Its folder.
        path: PathBuf,
    },
    /// A file of unfinished work is not as it was written.
    #[error(
        "`{}` of the unfinished work is damaged\nhint: start anew with --force and without --resume",
        path.display()
    )]
    DamagedWork {
        /// The file.
        path: PathBuf,
    },
    /// The output's name is not a name.
    #[error("`{}` cannot be the name of an output\nhint: give a path that ends in a name", path.display())]
    OutputName {
        /// As it was given.
        path: PathBuf,
    },
    /// Tensors were not written as planned: a defect of this program.
    #[error(
        "output tensor `{tensor}`: planned {planned} bytes, got {got}\nhint: please report this"
    )]
    Plan {
        /// The tensor.
        tensor: String,
        /// Bytes planned.
        planned: u64,
        /// Bytes written.
        got: u64,
    },
}

/// A safetensors header is wrong.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Not even the length of the header.
    #[error("truncated: {bytes} bytes, a safetensors file has at least 10")]
    TooSmall {
        /// Size of the file.
        bytes: usize,
    },
    /// The header is longer than the file or than any real one.
    #[error(
        "header of {header} bytes in a file of {bytes} (at most {} are read)",
        super::header::MAX_HEADER
    )]
    Length {
        /// Declared length of the header.
        header: u64,
        /// Size of the file.
        bytes: usize,
    },
    /// The header is not JSON of the right form.
    #[error("header: {0}")]
    Json(#[from] serde_json::Error),
    /// A type that the format does not know.
    #[error("tensor `{tensor}`: unknown type `{dtype}`")]
    Type {
        /// Its name.
        tensor: String,
        /// The type's name.
        dtype: String,
    },
    /// Shape × type overflows, or is not a whole number of bytes.
    #[error("tensor `{tensor}`: shape {shape:?} of {dtype} has no size in bytes")]
    Size {
        /// Its name.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its type.
        dtype: String,
    },
    /// Shape and offsets disagree.
    #[error(
        "tensor `{tensor}`: shape {shape:?} needs {expected} bytes, offsets {start}..{end} give {found}"
    )]
    Offsets {
        /// Its name.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes of the shape.
        expected: usize,
        /// Start of its bytes.
        start: usize,
        /// End of its bytes.
        end: usize,
        /// Bytes between them.
        found: i128,
    },
    /// A tensor ends after the file.
    #[error("truncated: tensor `{tensor}` ends at {end}, the file's data at {data}")]
    Beyond {
        /// Its name.
        tensor: String,
        /// End of its bytes.
        end: usize,
        /// Bytes of data in the file.
        data: usize,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// Bytes that belong to no tensor.
    #[error("{bytes} bytes before {what} belong to no tensor")]
    Hole {
        /// How many.
        bytes: usize,
        /// Where.
        what: String,
    },
    /// A name stands twice in the header.
    #[error("tensor `{tensor}` is listed twice")]
    Twice {
        /// Its name.
        tensor: String,
    },
}

fn carried() -> String {
    let names: Vec<String> = super::BUILTINS
        .iter()
        .map(|builtin| format!("`{}{}`", super::BUILTIN_PREFIX, builtin.name))
        .collect();
    if names.is_empty() { "none (built without `builtin-model`)".into() } else { names.join(", ") }
}

fn write_hint(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => {
            "\nhint: free some space or choose another disk; nothing was kept of the output"
        }
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => {
            "\nhint: choose a folder that may be written to"
        }
        Kind::NotFound | Kind::NotADirectory => "\nhint: is the folder above it there?",
        _ => "",
    }
}

/// `a`, `b` and 3 more.
fn shown_names(names: &[String], more: usize) -> String {
    let shown = names.iter().map(|name| format!("`{}`", name.escape_debug()));
    let shown = shown.collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
