//! What a transform left in a model, as `config.json` says it.
use super::config::{Config, ConfigError, unfit};

/// Key of `config.json` that says what [`Transformed`] holds; a form of this project.
pub const TRANSFORM_KEY: &str = "milm_transform";

/// How a model was rotated, and which rotations are left to the forward pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transformed {
    /// Kind of the rotation of the residual stream, e.g. `hadamard` or `none`.
    pub rotation: String,
    /// What random signs were drawn from.
    pub seed: u64,
    /// SHA-256 of the rotation of the residual stream, float64 little-endian, row-major.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residual_sha256: Option<String>,
    /// SHA-256 of the rotations of the values of all key/value heads, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values_sha256: Option<String>,
    /// A matrix `[hidden, hidden]` stands between the last norm and a tied head.
    pub head_correction: bool,
    /// The input of each down projection is multiplied by the Hadamard matrix of its width.
    pub down_input: bool,
    /// Queries and keys are multiplied by the Hadamard matrix of their width after RoPE.
    pub keys: bool,
}

impl Transformed {
    /// Reads the key; `None` where it is absent. A form that is not known is an error: to leave
    /// it out would give other logits.
    pub(super) fn read(config: Config<'_>) -> Result<Option<Self>, ConfigError> {
        let Some(value) = config.get(TRANSFORM_KEY) else { return Ok(None) };
        let read: Self = serde_json::from_value(value.clone())
            .map_err(|error| unfit(TRANSFORM_KEY, format!("a known form ({error})"), value))?;
        if read.head_correction && !config.flag("tie_word_embeddings", false)? {
            return Err(unfit(
                TRANSFORM_KEY,
                "a head correction only where the head is tied",
                value,
            ));
        }
        Ok(Some(read))
    }

    /// Whether the forward pass differs from that of a plain model.
    pub fn is_online(&self) -> bool {
        self.head_correction || self.down_input || self.keys
    }
}
