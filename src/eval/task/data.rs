//! Data files of tasks: found by the command line, read here.
use super::TaskError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// A folder of data files.
pub trait Data {
    /// The bytes of a file, `None` when it does not exist. `file` is relative, with `/`.
    fn read(&self, file: &str) -> Result<Option<Vec<u8>>, TaskError>;

    /// What a file is called in messages.
    fn shown(&self, file: &str) -> String;

    /// Tokens of a message as the model will see it, when a model is there to count them.
    fn tokens(&self, _text: &str) -> Result<Option<usize>, TaskError> {
        Ok(None)
    }

    /// The first of some files that exists, with its name; an error names the first.
    fn first(&self, task: &'static str, files: &[&str]) -> Result<(String, Vec<u8>), TaskError> {
        for file in files {
            if let Some(bytes) = self.read(file)? {
                return Ok(((*file).to_owned(), bytes));
            }
        }
        let hint = "name the folder that holds it with --data or MILM_DATA; docs/evaluation.md \
                    tells the layout";
        let file = files.first().map_or_else(String::new, |file| self.shown(file));
        Err(TaskError::NoData { task, file, hint: hint.into() })
    }
}

/// How often something was odd about data or prompts, and the first place where it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warnings(BTreeMap<String, (usize, String)>);

impl Warnings {
    /// Counts one.
    pub fn add(&mut self, what: &str, place: impl Into<String>) {
        let (count, _) = self.0.entry(what.to_owned()).or_insert_with(|| (0, place.into()));
        *count += 1;
    }

    /// Takes over those of another part.
    pub fn join(&mut self, other: &Self) {
        for (what, (count, place)) in &other.0 {
            let (here, _) = self.0.entry(what.clone()).or_insert_with(|| (0, place.clone()));
            *here += count;
        }
    }

    /// How often.
    pub fn count(&self, what: &str) -> usize {
        self.0.get(what).map_or(0, |(count, _)| *count)
    }

    /// A line per kind.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(what, (count, place))| format!("{what}: {count} (first: {place})"))
    }
}

/// A file with columns.
#[derive(Clone, Debug)]
pub struct Table {
    file: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Where a column stands; upper and lower case are alike.
    pub fn column(&self, name: &str) -> Result<usize, TaskError> {
        self.find(name).ok_or_else(|| TaskError::Column {
            file: self.file.clone(),
            column: name.to_owned(),
            found: self.columns.iter().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", "),
            hint: "docs/evaluation.md tells the columns of each task",
        })
    }

    /// Where a column stands, if there is one.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|it| it.trim().eq_ignore_ascii_case(name))
    }

    /// The cells, one list a row, as many as there are columns.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The file in messages.
    pub fn file(&self) -> &str {
        &self.file
    }
}

/// Reads comma-separated values with quotes and, usually, a header; without one its columns are named.
pub fn read_csv(file: &str, bytes: &[u8], columns: Option<&[&str]>) -> Result<Table, TaskError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().has_headers(columns.is_none()).from_reader(bytes);
    let wrong = |row: usize, error: csv::Error| TaskError::Form {
        file: file.to_owned(),
        row,
        detail: error.to_string(),
    };
    let columns = if let Some(columns) = columns {
        columns.iter().map(|it| (*it).to_owned()).collect()
    } else {
        let header = reader.headers().map_err(|error| wrong(0, error))?;
        header.iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut rows = Vec::new();
    for (at, row) in reader.records().enumerate() {
        let row = row.map_err(|error| wrong(at + 1, error))?;
        if row.len() != columns.len() {
            let detail = format!("{} cells for {} columns", row.len(), columns.len());
            return Err(TaskError::Form { file: file.to_owned(), row: at + 1, detail });
        }
        rows.push(row.iter().map(str::to_owned).collect());
    }
    if rows.is_empty() {
        return Err(TaskError::Empty { file: file.to_owned() });
    }
    Ok(Table { file: file.to_owned(), columns, rows })
}

/// The text of a file without a byte order mark; an error names the line that is not UTF-8.
pub(super) fn utf8<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, TaskError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let row = before.split(|byte| *byte == b'\n').count();
        TaskError::Form { file: file.to_owned(), row, detail: "is not UTF-8".into() }
    })?;
    Ok(text.trim_start_matches('\u{feff}'))
}

/// Reads one JSON object a line, with the number of the line; blank lines are passed over.
pub fn read_jsonl<T: serde::de::DeserializeOwned>(
    file: &str,
    bytes: &[u8],
) -> Result<Vec<(usize, T)>, TaskError> {
    let wrong = |row: usize, detail: String| TaskError::Form { file: file.to_owned(), row, detail };
    let lines = utf8(file, bytes)?.lines().zip(1..);
    let rows = lines.filter(|(line, _)| !line.trim().is_empty()).map(|(line, row)| {
        let read = serde_json::from_str(line);
        Ok((row, read.map_err(|error| wrong(row, error.to_string()))?))
    });
    let rows = rows.collect::<Result<Vec<_>, TaskError>>()?;
    if rows.is_empty() { Err(TaskError::Empty { file: file.to_owned() }) } else { Ok(rows) }
}

/// Tells rows that were there before. They are asked again, as published figures count them.
#[derive(Debug, Default)]
pub(super) struct Seen(HashSet<String>);

impl Seen {
    /// Counts a question that was there before.
    pub(super) fn check(&mut self, question: &str, place: &str, warnings: &mut Warnings) {
        if !self.0.insert(question.to_owned()) {
            warnings.add("repeated items, asked again", place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_with_quotes_and_line_feeds_in_cells() {
        let text = "\u{feff}id,Question,A\n0,\"a, \"\"b\"\"\nc\",x\n";
        let table = read_csv("t.csv", text.as_bytes(), None).unwrap();
        assert_eq!(table.column("question").unwrap(), 1);
        assert_eq!(table.rows(), [["0", "a, \"b\"\nc", "x"]]);
        let error = table.column("answer").unwrap_err().to_string();
        assert!(error.contains("`t.csv` has no column `answer`, it has `id`"), "{error}");
        let plain = read_csv("t.csv", b"q,a\n", Some(&["question", "answer"])).unwrap();
        assert_eq!(plain.rows(), [["q", "a"]]);
    }

    #[test]
    fn damaged_files_are_errors_with_their_row() {
        let ragged = read_csv("t.csv", b"a,b\n1,2\n3\n", None).unwrap_err();
        assert!(matches!(ragged, TaskError::Form { row: 2, .. }), "{ragged}");
        assert!(matches!(read_csv("t.csv", b"a,b\n", None), Err(TaskError::Empty { .. })));
        let error = read_jsonl::<serde_json::Value>("t.jsonl", b"{}\n\n{").unwrap_err();
        assert!(matches!(error, TaskError::Form { row: 3, .. }), "{error}");
        let error = read_jsonl::<serde_json::Value>("t.jsonl", b"{}\n\xff").unwrap_err();
        assert!(matches!(error, TaskError::Form { row: 2, .. }), "{error}");
        assert!(matches!(read_jsonl::<u8>("t.jsonl", b"\n"), Err(TaskError::Empty { .. })));
    }
}
