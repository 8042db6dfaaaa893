//! Documents from the bytes of files: plain text, rows, or jsonl with texts and chats.
use super::TextError;
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
    /// jsonl by the file's ending, otherwise plain
    #[default]
    Auto,
    /// The whole file is one document
    Plain,
    /// Each line is a row as Hugging Face's WikiText has it: with its line feed; empty when blank
    Rows,
    /// Each line is an object with `text`, or with `messages` of a chat
    Jsonl,
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
    let jsonl = || {
        let ending = std::path::Path::new(file).extension();
        ending.is_some_and(|ending| ending == "jsonl" || ending == "ndjson")
    };
    match form {
        Form::Auto if jsonl() => Form::Jsonl,
        Form::Auto => Form::Plain,
        given => given,
    }
}

fn row(line: &str) -> Document {
    Document::plain(if line.trim().is_empty() { "" } else { line })
}

fn records(file: &str, text: &str, render: Render<'_>) -> Result<Vec<Document>, TextError> {
    let mut documents = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |detail| TextError::Record { file: file.to_owned(), line: i + 1, detail };
        let record: serde_json::Value =
            serde_json::from_str(line).map_err(|error| wrong(format!("no JSON: {error}")))?;
        let document = match (record.get("text"), record.get("messages")) {
            (Some(serde_json::Value::String(text)), _) => Document::plain(text),
            (Some(_), _) => return Err(wrong("`text` is no string".into())),
            (None, Some(_)) => Document::chat(render(&record).map_err(wrong)?),
            (None, None) => return Err(wrong("neither `text` nor `messages`".into())),
        };
        if !document.text.is_empty() {
            documents.push(document);
        }
    }
    Ok(documents)
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
    fn empty_and_foreign_bytes_are_errors_with_their_place() {
        assert!(matches!(read("a", b" \n ", Form::Auto), Err(TextError::Empty { .. })));
        let error = read("a", b"abc\xff", Form::Auto).unwrap_err();
        assert!(matches!(error, TextError::NotUtf8 { at: 3, .. }), "{error}");
        assert!(read("a.jsonl", b"{\"text\":\"\"}", Form::Auto).is_err());
        assert!(Text::read(&[], Form::Auto, &|_| Err(String::new())).is_err());
    }
}
