//! Checkpoints carried by the binary.

/// What stands before the name of a carried checkpoint wherever a model is named.
pub const BUILTIN_PREFIX: &str = "builtin:";

/// A checkpoint carried by the binary.
#[derive(Clone, Copy)]
pub struct Builtin {
    /// Name after [`BUILTIN_PREFIX`].
    pub name: &'static str,
    /// Files and their bytes, sorted by name.
    pub files: &'static [(&'static str, &'static [u8])],
}

#[cfg(feature = "builtin-model")]
macro_rules! files {
    ($folder:literal: $($file:literal),+) => {
        &[$(($file, include_bytes!(concat!("builtin/", $folder, "/", $file)))),+]
    };
}

/// Every carried checkpoint.
pub const BUILTINS: &[Builtin] = &[
    #[cfg(feature = "builtin-model")]
    Builtin {
        name: "milm-mini",
        files: files!(
            "milm-mini":
            "README.md",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ),
    },
];

impl Builtin {
    /// The bytes of a file.
    pub fn file(&self, name: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| *bytes)
    }
}

impl std::fmt::Debug for Builtin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Builtin({})", self.name)
    }
}
