//! What the parts of a tokenizer.json may be, before the library takes them.
use super::TextError;
use serde::Deserialize;
use serde_json::Value;

/// How deep parts may lie in each other. Those in use have a list of parts, some a list in it.
const DEPTH: usize = 16;
/// How many parts a part may consist of, all in all.
const COUNT: usize = 1024;
/// Bytes of a pattern or of what takes its place: the longest in use have some hundreds.
const TEXT: usize = 16 << 10;

#[derive(Deserialize)]
struct Components {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
}

/// Refuses a file that is no JSON object, and parts that are nested, many or long beyond all use.
pub(super) fn check(json: &[u8]) -> Result<(), TextError> {
    let wrong = |detail: String| TextError::Tokenizer { detail };
    // The library's own message for what is no JSON is about serde's internals.
    let found: Components =
        serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
    for (part, value) in [
        ("normalizer", found.normalizer),
        ("pre_tokenizer", found.pre_tokenizer),
        ("post_processor", found.post_processor),
        ("decoder", found.decoder),
    ] {
        let value = value.unwrap_or_default();
        let mut count = 0;
        walk(&value, 0, &mut count).map_err(|reason| TextError::Stopped {
            file: "tokenizer.json",
            part: format!("`{part}`"),
            reason,
        })?;
    }
    Ok(())
}

fn walk(value: &Value, depth: usize, count: &mut usize) -> Result<(), String> {
    match value {
        Value::Object(map) => {
            *count += 1;
            if *count > COUNT {
                return Err(format!("it has more than {COUNT} parts"));
            }
            if depth > DEPTH {
                return Err(format!("its parts are nested more than {DEPTH} deep"));
            }
            for (key, value) in map {
                let text = matches!(key.as_str(), "Regex" | "String" | "content" | "pattern");
                match value {
                    Value::String(it) if text && it.len() > TEXT => {
                        return Err(format!("`{key}` has {} bytes, more than {TEXT}", it.len()));
                    }
                    other => walk(other, depth + 1, count)?,
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|it| walk(it, depth, count)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(part: &str, value: Value) -> String {
        check(json!({ part: value }).to_string().as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn parts_nested_many_or_long_beyond_use_are_named() {
        let lower = json!({ "type": "Lowercase" });
        let nested = (0..40)
            .fold(lower.clone(), |inner, _| json!({ "type": "Sequence", "normalizers": [inner] }));
        let many = json!({ "type": "Sequence", "pretokenizers": vec![lower; COUNT + 1] });
        let long = json!({ "type": "Strip", "content": "x".repeat(TEXT + 1) });
        for (part, value, told) in [
            ("normalizer", nested, "nested"),
            ("pre_tokenizer", many, "parts"),
            ("decoder", long, "bytes"),
        ] {
            let error = refused(part, value);
            assert!(error.contains("tokenizer.json") && error.contains(part), "{error}");
            assert!(error.contains(told) && error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn what_is_no_object_is_no_tokenizer() {
        for bad in ["", "[", "3", "\"x\""] {
            assert!(matches!(check(bad.as_bytes()), Err(TextError::Tokenizer { .. })), "{bad}");
        }
        assert!(check(b"{\"normalizer\": null}").is_ok());
    }
}
