//! Writes GGUF bytes, good and bad.

/// A value with its type.
pub(crate) enum Field {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// A type's number and bytes, for values that no writer writes.
    Raw(u32, Vec<u8>),
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A file in the making.
#[derive(Default)]
pub(crate) struct Build {
    pairs: Vec<u8>,
    count: u64,
    infos: Vec<u8>,
    tensors: u64,
    data: Vec<u8>,
}

pub(crate) fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

fn list<T>(kind: u32, all: &[T], bytes: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
    let head = [&kind.to_le_bytes()[..], &(all.len() as u64).to_le_bytes()].concat();
    [head, all.iter().flat_map(bytes).collect()].concat()
}

impl Field {
    fn bytes(&self) -> (u32, Vec<u8>) {
        match self {
            Self::U32(x) => (4, x.to_le_bytes().into()),
            Self::F32(x) => (6, x.to_le_bytes().into()),
            Self::Bool(x) => (7, vec![u8::from(*x)]),
            Self::Text(text) => (8, string(text.as_bytes())),
            Self::Texts(all) => (9, list(8, all, |text| string(text.as_bytes()))),
            Self::I32s(all) => (9, list(5, all, |x| x.to_le_bytes().into())),
            Self::F32s(all) => (9, list(6, all, |x| x.to_le_bytes().into())),
            Self::Raw(kind, bytes) => (*kind, bytes.clone()),
        }
    }
}

impl Build {
    pub(crate) fn with(mut self, key: &str, field: Field) -> Self {
        let (kind, bytes) = field.bytes();
        self.pairs.extend([string(key.as_bytes()), kind.to_le_bytes().into(), bytes].concat());
        self.count += 1;
        self
    }

    /// A tensor; `shape` outermost axis first.
    pub(crate) fn tensor(self, name: &str, shape: &[usize], kind: u32, data: &[u8]) -> Self {
        let at = self.data.len() as u64;
        let dims: Vec<u64> = shape.iter().rev().map(|d| *d as u64).collect();
        let mut it = self.info(name, &dims, kind, at);
        it.data.extend(data);
        it.data.resize(it.data.len().next_multiple_of(32), 0);
        it
    }

    pub(crate) fn floats(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(name, shape, 0, &bytes)
    }

    /// The entry of a tensor alone; `dims` as they stand in the file.
    pub(crate) fn info(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        self.infos.extend(string(name.as_bytes()));
        self.infos.extend((dims.len() as u32).to_le_bytes());
        self.infos.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend(offset.to_le_bytes());
        self.tensors += 1;
        self
    }

    /// The file, with its data padded as writers do.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let counts = [self.tensors.to_le_bytes(), self.count.to_le_bytes()].concat();
        let head = [&b"GGUF"[..], &3_u32.to_le_bytes(), &counts].concat();
        let mut file = [head, self.pairs.clone(), self.infos.clone()].concat();
        file.resize(file.len().next_multiple_of(32), 0);
        [file, self.data.clone()].concat()
    }
}
