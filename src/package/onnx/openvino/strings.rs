//! A tokenizer as two networks of openvino-tokenizers' operators: text to ids, and back.
use super::{
    super::{proto::DataType, stored::Source},
    constants::Constants,
    ir::{Network, Op, Port},
    words::Words,
};

/// Words that a cache of the tokenizer holds.
const CACHED: usize = 20_000;

/// A network of strings while it is built.
#[derive(Default)]
pub(super) struct Strings {
    pub(super) network: Network,
    pub(super) constants: Constants<'static>,
}

/// Text to `input_ids` and `attention_mask`: with ids before and behind it, padded on the left as texts that go on
/// want it.
pub(super) fn tokenizer(words: &Words, around: &[Vec<i32>; 2], pad: i32) -> Strings {
    let mut s = Strings::default();
    let text = Op::new("Parameter", 1).with("shape", "?").with("element_type", "string");
    let text = s.layer(text, "text", &[], &["string"]);
    s.network.call(text[0], "string_input");
    let unpacked = s.layer(Op::new("StringTensorUnpack", 15), "unpacked", &text, &STRINGS);
    let mut pieces = s.rows(unpacked[0]);
    pieces.extend(unpacked);
    let texts: Vec<String> = words.added.iter().map(|(text, ..)| escaped(text)).collect();
    let found = s.text(&format!("({})", texts.join("|")));
    if texts.is_empty() {
        pieces.push(s.flags(pieces[2]));
    } else {
        pieces.push(found);
        pieces = s.layer(Op::extension("SpecialTokensSplit"), "special", &pieces, &PIECES);
    }
    if words.composed {
        let op = Op::extension("CharsMapNormalization")
            .with("add_dummy_prefix", false)
            .with("remove_extra_whitespaces", false)
            .with("escape_whitespaces", false)
            .with("normalization_form", "nfc")
            .with("case_fold", false)
            .with("nmt", false);
        let composed = s.layer(op, "composed", &pieces[2..], &PIECES[2..]);
        pieces.splice(2.., composed);
    }
    for pattern in &words.cuts {
        let op = Op::extension("RegexSplit")
            .with("behaviour", "isolate")
            .with("invert", false)
            .with("max_splits", -1);
        pieces.push(s.text(pattern));
        pieces = s.layer(op, "cut", &pieces, &PIECES);
    }
    let ids = s.encoded(words, &pieces[..5]);
    let ids = s.joined(around, ids);
    s.padded(&ids, pad);
    s
}

/// Ids to text. Special tokens are left out.
pub(super) fn detokenizer(words: &Words) -> Strings {
    let mut s = Strings::default();
    let ids = Op::new("Parameter", 1).with("shape", "?,?").with("element_type", "i64");
    let ids = s.layer(ids, "ids", &[], &["i64"]);
    let ids = s.converted(ids[0], "i32");
    let hidden: Vec<i32> =
        words.added.iter().filter(|(_, _, shown)| !shown).map(|(_, id, _)| *id).collect();
    let mut inputs = vec![ids];
    inputs.extend(s.texts(&words.vocabulary));
    inputs.push(s.numbers(&hidden));
    let op = Op::extension("VocabDecoder").with("skip_tokens", "");
    let pieces = s.layer(op, "pieces", &inputs, &PIECES[..5]);
    let fused = s.layer(Op::extension("FuzeRagged"), "fused", &pieces[..4], &["i32", "i32"]);
    let op = Op::extension("UTF8Validate").with("replace_mode", true);
    let valid = s.layer(op, "valid", &[fused[0], fused[1], pieces[4]], &STRINGS);
    let packed = s.layer(Op::new("StringTensorPack", 15), "text", &valid, &["string"]);
    s.network.call(packed[0], "string_output");
    s.layer(Op::new("Result", 1), "end", &packed, &[]);
    s
}

/// Begins, ends and letters of texts.
const STRINGS: [&str; 3] = ["i32", "i32", "u8"];
/// Begins and ends of rows of pieces, begins, ends and letters of these, and which are not to be cut.
const PIECES: [&str; 6] = ["i32", "i32", "i32", "i32", "u8", "boolean"];

impl Strings {
    fn layer(&mut self, op: Op, name: &str, inputs: &[Port], kinds: &[&'static str]) -> Vec<Port> {
        self.network.layer(op, name, inputs, kinds)
    }

    fn converted(&mut self, x: Port, to: &'static str) -> Port {
        self.layer(Op::new("Convert", 1).with("destination_type", to), to, &[x], &[to])[0]
    }

    fn stored(&mut self, name: &str, kind: DataType, shape: Vec<usize>, bytes: Vec<u8>) -> Port {
        self.constants.put(&mut self.network, name, (kind, shape), Source::Bytes(bytes))
    }

    fn number(&mut self, value: i32) -> Port {
        self.stored("number", DataType::Int32, vec![], value.to_le_bytes().to_vec())
    }

    fn numbers(&mut self, values: &[i32]) -> Port {
        let bytes = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        self.stored("numbers", DataType::Int32, vec![values.len()], bytes)
    }

    fn text(&mut self, text: &str) -> Port {
        self.stored("text", DataType::Uint8, vec![text.len()], text.as_bytes().to_vec())
    }

    /// Begins, ends and letters of texts.
    fn texts<'t>(&mut self, texts: impl IntoIterator<Item = &'t Vec<u8>>) -> [Port; 3] {
        let (mut begins, mut ends, mut letters) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            begins.push(letters.len() as i32);
            letters.extend_from_slice(text);
            ends.push(letters.len() as i32);
        }
        let count = letters.len();
        let letters = self.stored("letters", DataType::Uint8, vec![count], letters);
        [self.numbers(&begins), self.numbers(&ends), letters]
    }

    /// Begins and ends of rows of one piece each, for the begins of texts.
    fn rows(&mut self, begins: Port) -> Vec<Port> {
        let shape = Op::new("ShapeOf", 3).with("output_type", "i32");
        let shape = self.layer(shape, "texts.shape", &[begins], &["i32"])[0];
        let (zero, one) = (self.number(0), self.number(1));
        let gather = Op::new("Gather", 8).with("batch_dims", 0);
        let count = self.layer(gather, "texts", &[shape, zero, zero], &["i32"])[0];
        let add = Op::new("Add", 1).with("auto_broadcast", "numpy");
        let end = self.layer(add, "texts.end", &[count, one], &["i32"])[0];
        let mut range = |name: &str, first: Port, last: Port| {
            let op = Op::new("Range", 4).with("output_type", "i32");
            self.layer(op, name, &[first, last, one], &["i32"])[0]
        };
        vec![range("row.begins", zero, count), range("row.ends", one, end)]
    }

    /// No piece is left uncut.
    fn flags(&mut self, begins: Port) -> Port {
        let never = Op::new("Less", 1).with("auto_broadcast", "numpy");
        self.layer(never, "uncut", &[begins, begins], &["boolean"])[0]
    }

    /// Ids of the pieces of each text: begins, ends, ids.
    fn encoded(&mut self, words: &Words, pieces: &[Port]) -> Vec<Port> {
        let mut inputs = pieces.to_vec();
        inputs.extend(self.texts(&words.vocabulary));
        inputs.extend(self.texts(words.merges.iter().map(|[left, _]| left)));
        inputs.extend(self.texts(words.merges.iter().map(|[_, right]| right)));
        if !words.added.is_empty() {
            let texts: Vec<Vec<u8>> =
                words.added.iter().map(|(text, ..)| text.clone().into_bytes()).collect();
            inputs.extend(self.texts(&texts));
            let ids: Vec<i32> = words.added.iter().map(|(_, id, _)| *id).collect();
            inputs.push(self.numbers(&ids));
        }
        let op = Op::extension("BPETokenizer")
            .with("unk_token", "")
            .with("fuse_unk", false)
            .with("suffix_indicator", "")
            .with("end_suffix", "")
            .with("byte_fallback", false)
            .with("cache_capacity", CACHED);
        self.layer(op, "ids", &inputs, &["i32"; 3])
    }

    /// The ids that stand around a text, and its own.
    fn joined(&mut self, [before, behind]: &[Vec<i32>; 2], ids: Vec<Port>) -> Vec<Port> {
        let mut inputs = self.segment(before);
        inputs.extend(ids);
        inputs.extend(self.segment(behind));
        let segments = vec![0; inputs.len() / 3];
        inputs.push(self.numbers(&segments));
        self.layer(Op::extension("CombineSegments"), "all", &inputs, &["i32"; 6])
    }

    fn segment(&mut self, ids: &[i32]) -> Vec<Port> {
        if ids.is_empty() {
            return Vec::new();
        }
        vec![self.number(0), self.number(ids.len() as i32), self.numbers(ids)]
    }

    /// Rows of the longest text's length, and which places hold a token.
    fn padded(&mut self, ids: &[Port], pad: i32) {
        let subtract = Op::new("Subtract", 1).with("auto_broadcast", "numpy");
        let lengths = self.layer(subtract, "lengths", &[ids[1], ids[0]], &["i32"])[0];
        let (first, pad) = (self.number(0), self.number(pad));
        let longest = Op::new("ReduceMax", 1).with("keep_dims", false);
        let longest = self.layer(longest, "longest", &[lengths, first], &["i32"])[0];
        let op =
            Op::extension("RaggedToDense").with("pad_right", false).with("m_pad_max_length", false);
        let inputs = [ids[0], ids[1], ids[2], longest, pad];
        let rows = self.layer(op, "rows", &inputs, &["i32", "boolean"]);
        for (row, name) in rows.into_iter().zip(["input_ids", "attention_mask"]) {
            let row = self.converted(row, "i64");
            self.network.call(row, name);
            self.layer(Op::new("Result", 1), &format!("{name}/end"), &[row], &[]);
        }
    }
}

/// A text as a pattern that finds it.
fn escaped(text: &str) -> String {
    let letter = |letter: char| match letter {
        letter if letter.is_ascii_punctuation() => format!("\\{letter}"),
        letter => letter.to_string(),
    };
    text.chars().map(letter).collect::<Vec<_>>().concat()
}
