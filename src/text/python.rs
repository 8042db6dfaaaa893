//! What chat templates expect of Python: `json.dumps`, clocks, exceptions, methods of strings.
use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, ValueKind, from_args},
};
use serde_json::Value as Json;
use std::{borrow::Cow, fmt::Write as _};

/// Depth of nested values that `tojson` follows.
const MAX_DEPTH: usize = 64;

/// The words of `raise_exception`, carried through the template engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// `raise_exception(message)`: ends the template with the message.
pub(super) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// `strftime_now(format)`: the time at `now`, or the present in the local time zone.
pub(super) fn strftime(format: &str, now: Option<&jiff::Zoned>) -> Result<String, Error> {
    let now = now.cloned().unwrap_or_else(jiff::Zoned::now);
    jiff::fmt::strtime::format(format, &now)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Characters that `zfill`, `ljust` and `rjust` fill up to.
const MAX_WIDTH: usize = 1 << 16;

/// Python's methods of strings, lists and dictionaries.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (value.as_str(), name) {
        (Some(text), "rsplit") => {
            let (separator, most, named): (Option<&str>, Option<i64>, Kwargs) =
                from_args(arguments)?;
            let separator = separator.or(named.get::<Option<&str>>("sep")?);
            let most = most.or(named.get("maxsplit")?);
            named.assert_all_used()?;
            rsplit(text, separator, most).map(Value::from)
        }
        (Some(text), "zfill") => from_args(arguments).and_then(|(width,)| zfill(text, width)),
        (Some(text), "ljust" | "rjust") => {
            let (width, fill): (usize, Option<char>) = from_args(arguments)?;
            let missing = within(name, width)?.saturating_sub(text.chars().count());
            let fill = fill.unwrap_or(' ').to_string().repeat(missing);
            Ok(Value::from(if name == "ljust" { text.to_owned() + &fill } else { fill + text }))
        }
        (Some(text), "removeprefix" | "removesuffix") => {
            let (part,): (&str,) = from_args(arguments)?;
            let cut = if name == "removeprefix" {
                text.strip_prefix(part)
            } else {
                text.strip_suffix(part)
            };
            Ok(Value::from(cut.unwrap_or(text)))
        }
        (Some(text), "partition" | "rpartition") => {
            let (separator,): (&str,) = from_args(arguments)?;
            if separator.is_empty() {
                return Err(wrong(format!("{name}: empty separator")));
            }
            let (first, cut) = match name {
                "partition" => (true, text.split_once(separator)),
                _ => (false, text.rsplit_once(separator)),
            };
            let parts = match cut {
                Some((left, right)) => [left, separator, right],
                None if first => [text, "", ""],
                None => ["", "", text],
            };
            Ok(Value::from(parts.map(str::to_owned).to_vec()))
        }
        (Some(text), "casefold") => from_args(arguments).map(|()| text.to_lowercase().into()),
        (Some(text), "index") => {
            let (part,): (&str,) = from_args(arguments)?;
            let at = text.find(part).ok_or_else(|| wrong("index: the text is not there"))?;
            Ok(Value::from(text[..at].chars().count()))
        }
        (None, "index") if value.kind() == ValueKind::Seq => {
            let (item,): (Value,) = from_args(arguments)?;
            let at = value.try_iter()?.position(|it| it == item);
            at.map(Value::from).ok_or_else(|| wrong("index: the item is not there"))
        }
        (None, "copy") if matches!(value.kind(), ValueKind::Seq | ValueKind::Map) => {
            from_args(arguments).map(|()| value.clone())
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

fn wrong(detail: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail)
}

/// A width that a text may be filled up to.
fn within(name: &str, width: usize) -> Result<usize, Error> {
    if width > MAX_WIDTH { Err(wrong(format!("{name} of {width} characters"))) } else { Ok(width) }
}

/// The filter `replace`, everywhere or a number of times.
pub(super) fn replace(value: &Value, from: &str, to: &str, count: Option<i64>) -> String {
    let text = value.to_string();
    match count.and_then(|it| usize::try_from(it).ok()) {
        Some(count) => text.replacen(from, to, count),
        None => text.replace(from, to),
    }
}

/// The test `sequence`: what has a length and items, a text and a dictionary too.
pub(super) fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
}

/// Splits from the right, at most so many times; without a separator at runs of blanks.
fn rsplit(text: &str, separator: Option<&str>, most: Option<i64>) -> Result<Vec<String>, Error> {
    let limit = most.and_then(|it| usize::try_from(it).ok()).unwrap_or(usize::MAX);
    let mut pieces = Vec::new();
    let mut rest = if separator.is_none() { text.trim_end() } else { text };
    while pieces.len() < limit {
        let cut = match separator {
            Some("") => {
                return Err(wrong("rsplit: empty separator"));
            }
            Some(separator) => rest.rsplit_once(separator),
            None => rest.rsplit_once(char::is_whitespace).map(|(left, it)| (left.trim_end(), it)),
        };
        let Some((left, piece)) = cut else { break };
        pieces.push(piece.to_owned());
        rest = left;
    }
    if separator.is_some() || !rest.is_empty() {
        pieces.push(rest.to_owned());
    }
    pieces.reverse();
    Ok(pieces)
}

/// Zeros before a number, after its sign.
fn zfill(text: &str, width: usize) -> Result<Value, Error> {
    within("zfill", width)?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = &text[..text.len() - digits.len()];
    let zeros = "0".repeat(width.saturating_sub(text.chars().count()));
    Ok(Value::from(format!("{sign}{zeros}{digits}")))
}

/// How `tojson` writes; the defaults of transformers' filter.
struct Style {
    ascii: bool,
    indent: Option<usize>,
    sort: bool,
    /// Between items, between key and value.
    separators: [String; 2],
}

/// The `tojson` filter: Python's `json.dumps`, without the HTML escapes of Jinja.
pub(super) fn to_json(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent = kwargs.get::<Option<usize>>("indent")?.map(|indent| indent.min(16));
    let separators = match kwargs.get::<Option<Vec<String>>>("separators")?.as_deref() {
        Some([item, key]) => [item.clone(), key.clone()],
        // With indentation a line break follows each item instead of the blank.
        _ => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
    };
    let style = Style {
        ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent,
        sort: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        separators,
    };
    kwargs.assert_all_used()?;
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "tojson of an undefined value"));
    }
    let json = serde_json::to_value(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let mut out = String::new();
    style.value(&json, 0, &mut out)?;
    Ok(out)
}

impl Style {
    fn value(&self, json: &Json, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::BadSerialization, "tojson: nested too deeply"));
        }
        match json {
            Json::Null => out.push_str("null"),
            Json::Bool(it) => out.push_str(if *it { "true" } else { "false" }),
            Json::Number(it) => out.push_str(&number(it)),
            Json::String(it) => self.string(it, out),
            Json::Array(items) => {
                self.list(['[', ']'], items.iter(), depth, out, |style, item, out| {
                    style.value(item, depth + 1, out)
                })?;
            }
            Json::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort {
                    entries.sort_by_key(|(key, _)| key.as_str());
                }
                self.list(['{', '}'], entries.into_iter(), depth, out, |style, (key, it), out| {
                    style.string(key, out);
                    out.push_str(&style.separators[1]);
                    style.value(it, depth + 1, out)
                })?;
            }
        }
        Ok(())
    }

    fn list<T>(
        &self,
        [open, close]: [char; 2],
        items: impl ExactSizeIterator<Item = T>,
        depth: usize,
        out: &mut String,
        write: impl Fn(&Self, T, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        let any = items.len() > 0;
        for (at, item) in items.enumerate() {
            if at > 0 {
                out.push_str(&self.separators[0]);
            }
            self.line_break(depth + 1, out);
            write(self, item, out)?;
        }
        if any {
            self.line_break(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn line_break(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && (c as u32) >= 0x7f) => {
                    // Surrogate pairs for what lies above U+FFFF.
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").expect("strings take everything");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A number as Python prints it: floats always with a point or an exponent of two digits.
fn number(it: &serde_json::Number) -> String {
    let Some(float) = it.as_f64().filter(|_| it.is_f64()) else { return it.to_string() };
    let size = float.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{float:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) =
            exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{float:?}")
}
