//! Files that grow line by line, so that what was written stays when the program is killed.
use crate::tensor::{MAX_WHOLE, MapError, read_file};
use std::{
    fs::File,
    io::{self, ErrorKind, Write as _},
    path::Path,
};

/// A file of lines, open at its end.
#[derive(Debug)]
pub struct LineFile(File);

/// A file of lines cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LineFileError {
    /// What it holds cannot be read.
    #[error(transparent)]
    Read(#[from] MapError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

impl LineFile {
    /// Opens a file, which is made when it is not there, and reads what it holds: lines, the last of
    /// which is not whole if a run was stopped while it wrote.
    pub fn open(path: &Path) -> Result<(Self, String), LineFileError> {
        let text = match read_file(path, MAX_WHOLE) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.source.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        let mut file = File::options().create(true).append(true).open(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok((Self(file), text))
    }

    /// Appends a line, in one write: what is there after a kill is whole, or is the last line.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        self.0.write_all(format!("{line}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_and_a_half_one_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let (mut file, text) = LineFile::open(&path).unwrap();
        assert_eq!(text, "");
        file.append("one").unwrap();
        file.0.write_all(b"tw").unwrap();
        let (mut file, text) = LineFile::open(&path).unwrap();
        assert_eq!(text, "one\ntw");
        file.append("three").unwrap();
        assert_eq!(LineFile::open(&path).unwrap().1, "one\ntw\nthree\n");
        // A folder is no file of lines.
        let error = LineFile::open(dir.path()).unwrap_err();
        assert!(matches!(error, LineFileError::Read(_)), "{error}");
    }
}
