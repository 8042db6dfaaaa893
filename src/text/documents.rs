//! Documents from the bytes of files: plain text, rows, or jsonl with texts and chats.
use super::TextError;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What stands between documents where a protocol joins them, as GPTQ's evaluation joins the rows
/// of WikiText (arXiv 2210.17323, section 4).
pub const JOIN: &str = "\n\n";

/// How a file holds its documents.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// jsonl or json by the file's ending, otherwise plain
    #[default]
    Auto,
    /// The whole file is one document
    Plain,
    /// Each line is a row as Hugging Face's WikiText has it: with its line feed; empty when blank
    Rows,
    /// Each line is an object with `text`, or with `messages` of a chat
    Jsonl,
    /// One list of texts, or of objects as in jsonl
    Json,
}

/// A text, and whether special tokens belong around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What is encoded.
    pub text: String,
    /// The tokenizer puts its special tokens around it. A chat has those of its template.
    pub special: bool,
}

impl Document {
    /// A plain text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), special: true }
    }

    /// A chat as its template has rendered it.
    pub fn chat(text: impl Into<String>) -> Self {
        Self { text: text.into(), special: false }
    }
}

/// Documents and the hash of the bytes that they come from.
#[derive(Clone, Debug)]
pub struct Text {
    /// Documents in order, none empty but for rows.
    pub documents: Vec<Document>,
    /// SHA-256 over the files' bytes, one after the other, in hexadecimal digits.
    pub sha256: String,
    /// How the files were read.
    pub form: Form,
}

/// Renders a record with `messages` as the model's template does.
pub type Render<'a> = &'a dyn Fn(&serde_json::Value) -> Result<String, String>;

impl Text {
    /// Reads files, given as name and bytes.
    pub fn read(
        files: &[(&str, &[u8])],
        form: Form,
        render: Render<'_>,
    ) -> Result<Self, TextError> {
        let mut hash = Sha256::new();
        let (mut documents, mut forms) = (Vec::new(), Vec::new());
        for (file, bytes) in files {
            hash.update(bytes);
            let text = std::str::from_utf8(bytes).map_err(|error| TextError::NotUtf8 {
                file: (*file).to_owned(),
                at: error.valid_up_to(),
            })?;
            // A byte-order mark is no text.
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            if text.trim().is_empty() {
                return Err(TextError::Empty { file: (*file).to_owned() });
            }
            let form = resolve(form, file);
            forms.push(form);
            match form {
                Form::Jsonl => documents.extend(records(file, text, render)?),
                Form::Json => documents.extend(list(file, text, render)?),
                Form::Rows => documents.extend(text.split_inclusive('\n').map(row)),
                Form::Auto | Form::Plain => documents.push(Document::plain(text)),
            }
        }
        if documents.is_empty() {
            return Err(TextError::Empty { file: "--text".into() });
        }
        let form = if forms.iter().all(|it| *it == forms[0]) { forms[0] } else { Form::Auto };
        Ok(Self { documents, sha256: crate::tensor::hex(&hash.finalize()), form })
    }

    /// All documents, joined by [`JOIN`]; special tokens belong around them if they belong around
    /// the first.
    pub fn joined(&self) -> Document {
        let texts: Vec<&str> = self.documents.iter().map(|it| it.text.as_str()).collect();
        Document { text: texts.join(JOIN), special: self.special() }
    }

    /// The first characters of all documents, one after the other.
    pub fn beginning(&self, characters: usize) -> Document {
        let all = self.documents.iter().flat_map(|it| it.text.chars());
        Document { text: all.take(characters).collect(), special: self.special() }
    }

    fn special(&self) -> bool {
        self.documents.first().is_none_or(|it| it.special)
    }
}

fn resolve(form: Form, file: &str) -> Form {
    let ending = std::path::Path::new(file).extension().and_then(|it| it.to_str());
    match (form, ending) {
        (Form::Auto, Some("jsonl" | "ndjson")) => Form::Jsonl,
        (Form::Auto, Some("json")) => Form::Json,
        (Form::Auto, _) => Form::Plain,
        (given, _) => given,
    }
}

fn row(line: &str) -> Document {
    Document::plain(if line.trim().is_empty() { "" } else { line })
}

fn records(file: &str, text: &str, render: Render<'_>) -> Result<Vec<Document>, TextError> {
    let mut documents = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |detail| wrong(file, format!("line {}", i + 1), detail);
        let record =
            serde_json::from_str(line).map_err(|error| wrong(format!("no JSON: {error}")))?;
        documents.push(document(&record, render).map_err(wrong)?);
    }
    documents.retain(|it| !it.text.is_empty());
    Ok(documents)
}

fn list(file: &str, text: &str, render: Render<'_>) -> Result<Vec<Document>, TextError> {
    let refused = |found: String| TextError::NoTexts { file: file.to_owned(), found };
    let list =
        match serde_json::from_str(text).map_err(|error| refused(format!("no JSON: {error}")))? {
            Value::Array(list) => list,
            other => return Err(refused(kind(&other))),
        };
    let one = |(i, record): (usize, &Value)| match record {
        Value::String(text) => Ok(Document::plain(text)),
        record => {
            document(record, render).map_err(|it| wrong(file, format!("record {}", i + 1), it))
        }
    };
    let mut documents: Vec<_> = list.iter().enumerate().map(one).collect::<Result<_, _>>()?;
    documents.retain(|it| !it.text.is_empty());
    Ok(documents)
}

fn wrong(file: &str, place: String, detail: String) -> TextError {
    TextError::Record { file: file.to_owned(), place, detail }
}

fn document(record: &Value, render: Render<'_>) -> Result<Document, String> {
    match (record.get("text"), record.get("messages")) {
        (Some(Value::String(text)), _) => Ok(Document::plain(text)),
        (Some(_), _) => Err("`text` is no string".into()),
        (None, Some(_)) => render(record).map(Document::chat),
        (None, None) => Err(format!("neither `text` nor `messages` in {}", kind(record))),
    }
}

/// What a value is, for messages.
fn kind(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().take(5).map(|it| format!("`{it}`")).collect();
            format!("an object of {}", keys.join(", "))
        }
        Value::Array(_) => "a list".to_owned(),
        Value::String(_) => "a string".to_owned(),
        Value::Number(_) => "a number".to_owned(),
        Value::Bool(_) | Value::Null => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, bytes: &[u8], form: Form) -> Result<Text, TextError> {
        let render = |record: &serde_json::Value| match &record["messages"] {
            serde_json::Value::Array(all) => Ok(format!("<{}>", all.len())),
            _ => Err("`messages` is no list".to_owned()),
        };
        Text::read(&[(file, bytes)], form, &render)
    }

    #[test]
    fn plain_text_is_one_document_with_the_hash_of_its_bytes() {
        let text = read("a.txt", "héllo\n\nworld".as_bytes(), Form::Auto).unwrap();
        assert_eq!(text.documents, [Document::plain("héllo\n\nworld")]);
        assert_eq!(text.sha256, crate::tensor::sha256("héllo\n\nworld".as_bytes()));
        let mark = read("a.txt", "\u{feff}x".as_bytes(), Form::Auto).unwrap();
        assert_eq!(mark.documents, [Document::plain("x")]);
    }

    #[test]
    fn rows_keep_line_feeds_and_empty_blank_lines() {
        let text = read("a", b" \n = A = \n \n text \n", Form::Rows).unwrap();
        assert_eq!(text.documents, ["", " = A = \n", "", " text \n"].map(Document::plain));
        assert_eq!(text.joined(), Document::plain("\n\n = A = \n\n\n\n\n text \n"));
    }

    #[test]
    fn jsonl_holds_texts_and_chats() {
        let lines = br#"{"text":"one"}

{"messages":[{"role":"user","content":"hi"}]}
"#;
        let text = read("a.jsonl", lines, Form::Auto).unwrap();
        assert_eq!(text.documents, [Document::plain("one"), Document::chat("<1>")]);
        assert_eq!(text.joined(), Document::plain("one\n\n<1>"), "it begins with a plain text");
        let text = read("a.jsonl", &lines[15..], Form::Auto).unwrap();
        assert_eq!(
            (text.joined(), text.beginning(2)),
            (Document::chat("<1>"), Document::chat("<1"))
        );
        for (line, told) in [
            ("{\"text\":1}", "`text` is no string"),
            ("{\"txt\":\"a\"}", "neither"),
            ("{\"messages\":3}", "no list"),
            ("{", "no JSON"),
        ] {
            let file = format!("{{\"text\":\"a\"}}\n{line}\n");
            let error = read("a.jsonl", file.as_bytes(), Form::Auto).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_json_list_holds_texts_and_chats_and_nothing_else_is_read_as_text() {
        let list = br#"["one", {"text": "two"}, {"messages": [1, 2]}]"#;
        let want = [Document::plain("one"), Document::plain("two"), Document::chat("<2>")];
        assert_eq!(read("a.json", list, Form::Auto).unwrap().documents, want);
        assert_eq!(read("a", list, Form::Json).unwrap().documents, want);
        assert_eq!(read("a.json", list, Form::Plain).unwrap().documents.len(), 1);
        for (file, told) in [
            (r#"{"data": ["a"]}"#, "an object of `data`"),
            ("\"a\"", "a string"),
            ("{\"text\": \"a\"}\n{\"text\": \"b\"}", "jsonl"),
            ("[\"a\", 7]", "record 2: neither `text` nor `messages` in a number"),
            ("plain words", "no JSON"),
        ] {
            let error = read("a.json", file.as_bytes(), Form::Auto).unwrap_err().to_string();
            assert!(error.contains("a.json") && error.contains(told), "{error}");
        }
    }

    #[test]
    fn empty_and_foreign_bytes_are_errors_with_their_place() {
        assert!(matches!(read("a", b" \n ", Form::Auto), Err(TextError::Empty { .. })));
        let error = read("a", b"abc\xff", Form::Auto).unwrap_err();
        assert!(matches!(error, TextError::NotUtf8 { at: 3, .. }), "{error}");
        assert!(read("a.jsonl", b"{\"text\":\"\"}", Form::Auto).is_err());
        assert!(Text::read(&[], Form::Auto, &|_| Err(String::new())).is_err());
    }
}
