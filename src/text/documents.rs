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

/// Documents and the hash of the bytes that they come from.
#[derive(Clone, Debug)]
pub struct Text {
    /// Documents in order, none empty but for rows.
    pub documents: Vec<String>,
    /// SHA-256 over the files' bytes, one after the other, in hexadecimal digits.
    pub sha256: String,
    /// How the files were read.
    pub form: Form,
}

/// Renders the `messages` of a chat as the model's template does.
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
                Form::Auto | Form::Plain => documents.push(text.to_owned()),
            }
        }
        if documents.is_empty() {
            return Err(TextError::Empty { file: "--text".into() });
        }
        let form = if forms.iter().all(|it| *it == forms[0]) { forms[0] } else { Form::Auto };
        Ok(Self { documents, sha256: crate::tensor::hex(&hash.finalize()), form })
    }

    /// All documents, joined by [`JOIN`].
    pub fn joined(&self) -> String {
        self.documents.join(JOIN)
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

fn row(line: &str) -> String {
    if line.trim().is_empty() { String::new() } else { line.to_owned() }
}

fn records(file: &str, text: &str, render: Render<'_>) -> Result<Vec<String>, TextError> {
    let mut documents = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |detail| TextError::Record { file: file.to_owned(), line: i + 1, detail };
        let record: serde_json::Value =
            serde_json::from_str(line).map_err(|error| wrong(format!("no JSON: {error}")))?;
        let document = match (record.get("text"), record.get("messages")) {
            (Some(serde_json::Value::String(text)), _) => text.clone(),
            (Some(_), _) => return Err(wrong("`text` is no string".into())),
            (None, Some(messages)) => render(messages).map_err(wrong)?,
            (None, None) => return Err(wrong("neither `text` nor `messages`".into())),
        };
        if !document.is_empty() {
            documents.push(document);
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, bytes: &[u8], form: Form) -> Result<Text, TextError> {
        let render = |messages: &serde_json::Value| match messages {
            serde_json::Value::Array(all) => Ok(format!("<{}>", all.len())),
            _ => Err("`messages` is no list".to_owned()),
        };
        Text::read(&[(file, bytes)], form, &render)
    }

    #[test]
    fn plain_text_is_one_document_with_the_hash_of_its_bytes() {
        let text = read("a.txt", "héllo\n\nworld".as_bytes(), Form::Auto).unwrap();
        assert_eq!(text.documents, ["héllo\n\nworld"]);
        assert_eq!(text.sha256, crate::tensor::sha256("héllo\n\nworld".as_bytes()));
        let mark = read("a.txt", "\u{feff}x".as_bytes(), Form::Auto).unwrap();
        assert_eq!(mark.documents, ["x"]);
    }

    #[test]
    fn rows_keep_line_feeds_and_empty_blank_lines() {
        let text = read("a", b" \n = A = \n \n text \n", Form::Rows).unwrap();
        assert_eq!(text.documents, ["", " = A = \n", "", " text \n"]);
        assert_eq!(text.joined(), "\n\n = A = \n\n\n\n\n text \n");
    }

    #[test]
    fn jsonl_holds_texts_and_chats() {
        let lines = br#"{"text":"one"}

{"messages":[{"role":"user","content":"hi"}]}
"#;
        assert_eq!(read("a.jsonl", lines, Form::Auto).unwrap().documents, ["one", "<1>"]);
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
