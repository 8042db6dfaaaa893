//! `milm.json`: what a package is made of and how it was made.
use crate::package::PackageError;
use crate::{
    checkpoint::{FileRecord, Folder, TensorRecord, sha256},
    scheme::{ActivationGrid, Schemes, TensorScheme},
};
use std::collections::BTreeMap;

/// The manifest's file name.
pub const MANIFEST_FILE: &str = "milm.json";

/// Version of the manifest's form.
pub const SCHEMA: u64 = 1;

/// A package's manifest.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// Version of this form: [`SCHEMA`].
    pub schema: u64,
    /// The program that wrote it.
    pub tool: Tool,
    /// The checkpoint that the package was made from.
    pub source: Source,
    /// The resolved recipe: every setting, defaults included.
    pub recipe: serde_json::Value,
    /// Quantized weights by name; a weight that is not listed is stored as in the source.
    pub quantized: BTreeMap<String, QuantizedTensor>,
    /// Static grids of activations by the names of their points.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub activations: BTreeMap<String, ActivationGrid>,
    /// How and from what it was exported, where it is a folder that `export` wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Exported>,
    /// What a reader that knows only the compressed-tensors standard does not learn or cannot do.
    pub beyond_standard: Vec<String>,
    /// Tensors that the architecture does not know, carried through untouched.
    pub carried: Vec<String>,
    /// Tensors that the architecture does not know and that could not be carried: their widths were
    /// cut, or their coordinates turned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What the package cost, when it was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<serde_json::Value>,
    /// Every other file of the folder.
    pub files: BTreeMap<String, FileRecord>,
    /// Every stored tensor; those of an exported folder stand in its graph.
    pub tensors: BTreeMap<String, TensorRecord>,
    /// SHA-256 of this file, with 64 zeros in this place.
    pub sha256: String,
}

/// The program that wrote a package.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Default for Tool {
    fn default() -> Self {
        Self { name: env!("CARGO_PKG_NAME").into(), version: env!("CARGO_PKG_VERSION").into() }
    }
}

/// What an exported folder is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exported {
    /// Its form: `onnx-qdq` or `onnx-float`.
    pub form: String,
    /// Number of stored tensors; their hashes stand in the graph.
    pub tensors: usize,
    /// SHA-256 in the manifest of the package that was exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_sha256: Option<String>,
}

/// The checkpoint that a package was made from.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Source {
    /// SHA-256 over its tensors, whatever files they lie in: of the lines
    /// `NAME DTYPE [SHAPE] SHA256\n` in the order of their names.
    pub sha256: String,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// Parameters of the architecture (those of carried tensors are not counted).
    pub parameters: u64,
    /// The last part of its name.
    #[serde(default)]
    pub name: String,
    /// The license that its card names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

/// How a weight is quantized.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct QuantizedTensor {
    /// Shape `[out, in]`.
    pub shape: [usize; 2],
    /// Grid, type of the scales, activations.
    #[serde(flatten)]
    pub scheme: TensorScheme,
    /// SHA-256 over the SHA-256 of each row of the values that the codes stand for, little-endian
    /// float32; absent in packages that were made before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values_sha256: Option<String>,
}

impl Manifest {
    /// The schemes of the quantized weights.
    pub fn schemes(&self) -> Schemes {
        let scheme =
            |(name, it): (&String, &QuantizedTensor)| (name.clone(), (it.scheme, it.shape));
        self.quantized.iter().map(scheme).collect()
    }

    /// Records what the codes of weights stand for, by their names.
    pub(in crate::package) fn set_values(&mut self, values: BTreeMap<String, String>) {
        for (name, hash) in values {
            if let Some(tensor) = self.quantized.get_mut(&name) {
                tensor.values_sha256 = Some(hash);
            }
        }
    }

    /// The manifest of a folder; `None` when it has none.
    pub fn read(folder: &Folder) -> Result<Option<Self>, PackageError> {
        let Some(text) = folder.text(MANIFEST_FILE)? else { return Ok(None) };
        let file = || folder.file_name(MANIFEST_FILE);
        let failed = |source| PackageError::Manifest { file: file(), source };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(failed)?;
        let schema = value.get("schema").and_then(serde_json::Value::as_u64);
        if let Some(found) = schema.filter(|schema| *schema != SCHEMA) {
            return Err(PackageError::Schema { file: file(), found, expected: SCHEMA });
        }
        serde_json::from_value(value).map(Some).map_err(failed)
    }

    /// The file's text with its own hash filled in.
    pub fn sealed(&self) -> String {
        let zeros = "0".repeat(64);
        let unsealed = Self { sha256: zeros.clone(), ..self.clone() };
        let text = serde_json::to_string_pretty(&unsealed).expect("plain data") + "\n";
        let hash = sha256(text.as_bytes());
        // The field is the last one.
        let at = text.rfind(&zeros).expect("just written");
        format!("{}{hash}{}", &text[..at], &text[at + 64..])
    }

    /// Whether the file's text is the one that its hash was made from.
    pub fn is_intact(&self, text: &str) -> bool {
        let Some(at) = text.rfind(&self.sha256) else { return false };
        let unsealed =
            format!("{}{}{}", &text[..at], "0".repeat(64), &text[at + self.sha256.len()..]);
        self.sha256.len() == 64 && sha256(unsealed.as_bytes()) == self.sha256
    }
}

/// Schemes as a manifest holds them.
pub(in crate::package) fn quantized_tensors(
    schemes: &Schemes,
) -> BTreeMap<String, QuantizedTensor> {
    schemes
        .iter()
        .map(|(name, (scheme, shape))| {
            (name.clone(), QuantizedTensor { shape: *shape, scheme: *scheme, values_sha256: None })
        })
        .collect()
}
