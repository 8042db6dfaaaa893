//! Text files that people name.
use super::{MapError, read_file};
use std::{
    path::{Path, PathBuf},
    string::FromUtf8Error,
};

/// The largest file that is read as a whole, bytes; lists of results are the largest ones.
pub const MAX_WHOLE: u64 = 1 << 30;

/// A text file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextFileError {
    /// It cannot be read.
    #[error("{source}{}", more(source, hint))]
    Read {
        /// What to do, where the reason does not tell.
        hint: &'static str,
        /// The file and the reason.
        source: MapError,
    },
    /// It holds something else.
    #[error("`{}` is not UTF-8\nhint: {hint}", path.display())]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
        /// Where it is not.
        source: FromUtf8Error,
    },
}

fn more(error: &MapError, hint: &str) -> String {
    let told = error.to_string().contains("\nhint: ");
    if told { String::new() } else { format!("\nhint: {hint}") }
}

/// The text of a file of at most [`MAX_WHOLE`] bytes, without a byte order mark; `hint` says what to
/// do when it cannot be read.
pub fn read_text(path: &Path, hint: &'static str) -> Result<String, TextFileError> {
    let bytes =
        read_file(path, MAX_WHOLE).map_err(|source| TextFileError::Read { hint, source })?;
    let wrong = |source| TextFileError::Utf8 { path: path.to_owned(), hint, source };
    let text = String::from_utf8(bytes).map_err(wrong)?;
    // Editors of some systems put a mark before the first letter.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_tell_what_to_do_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let error = || read_text(&path, "name a list").unwrap_err().to_string();
        assert!(
            error().contains("a.txt") && error().ends_with("\nhint: name a list"),
            "{}",
            error()
        );
        // Reasons that have a hint of their own keep it.
        let write = |bytes: &[u8]| {
            let mut file = std::fs::File::options()
                .create(true)
                .truncate(true)
                .write(true)
                .open(&path)
                .unwrap();
            std::io::Write::write_all(&mut file, bytes).unwrap();
        };
        write(b"\xff\xff\xff\xff");
        assert!(error().contains("a.txt` is not UTF-8\nhint: name a list"), "{}", error());
        write("\u{feff}x".as_bytes());
        assert_eq!(read_text(&path, "").unwrap(), "x");
    }
}
