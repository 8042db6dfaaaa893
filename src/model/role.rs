//! What tensors do.

/// What a tensor does. The forward pass and the exporters speak roles, not names.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "standard names")]
pub enum Role {
    Embed,
    AttnNorm,
    Q,
    K,
    V,
    QNorm,
    KNorm,
    O,
    PostAttnNorm,
    MlpNorm,
    Router,
    Gate,
    Up,
    Down,
    PostMlpNorm,
    SharedGate,
    FinalNorm,
    HeadInput,
    Head,
}

impl Role {
    /// Its name in files and tables; that of its JSON form.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::AttnNorm => "attn-norm",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::QNorm => "q-norm",
            Self::KNorm => "k-norm",
            Self::O => "o",
            Self::PostAttnNorm => "post-attn-norm",
            Self::MlpNorm => "mlp-norm",
            Self::Router => "router",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Down => "down",
            Self::PostMlpNorm => "post-mlp-norm",
            Self::SharedGate => "shared-gate",
            Self::FinalNorm => "final-norm",
            Self::HeadInput => "head-input",
            Self::Head => "head",
        }
    }

    /// Whether this is the matrix of a linear layer inside a block that quantization and pruning
    /// work on (routers and expert gates stay as they are).
    pub fn is_block_linear(self) -> bool {
        matches!(self, Self::Q | Self::K | Self::V | Self::O | Self::Gate | Self::Up | Self::Down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_roles_are_those_of_json() {
        use Role::*;
        let all = [
            Embed,
            AttnNorm,
            Q,
            K,
            V,
            QNorm,
            KNorm,
            O,
            PostAttnNorm,
            MlpNorm,
            Router,
            Gate,
            Up,
            Down,
            PostMlpNorm,
            SharedGate,
            FinalNorm,
            HeadInput,
            Head,
        ];
        for role in all {
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
        }
    }
}
