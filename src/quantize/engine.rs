//! What a package is made for.
use super::{Effort, Embeddings};

/// Engines whose limits a quantization keeps.
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
pub enum TargetEngine {
    /// transformers, llama.cpp (GGUF) and ONNX Runtime, as far as they load the float model
    #[default]
    Portable,
    /// This program's own runtime: everything that lowers the loss
    Milm,
    /// transformers with compressed-tensors
    Transformers,
    /// vLLM with compressed-tensors
    Vllm,
    /// llama.cpp and what is built on it, by `export --to gguf`
    #[value(name = "llama.cpp")]
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// ONNX Runtime and converters of devices, by `export --to onnx`
    #[value(name = "onnxruntime")]
    #[serde(rename = "onnxruntime")]
    OnnxRuntime,
    /// Qualcomm's HTP by onnxruntime-qnn, by `export --to hexagon`
    Hexagon,
    /// OpenVINO, by `export --to openvino`
    #[value(name = "openvino")]
    #[serde(rename = "openvino")]
    OpenVino,
}

impl TargetEngine {
    /// Where none is said; a vendor's standard scheme is a yardstick and stays here.
    pub fn of(preset: Effort) -> Self {
        if preset == Effort::VendorStandard { Self::Milm } else { Self::Portable }
    }

    /// Whether a package for this has to load in the engine of this name, see
    /// [`EngineFit`](crate::package::EngineFit).
    pub fn covers(self, name: &str) -> bool {
        match self {
            Self::Portable => ["transformers", "llama.cpp", "ONNX Runtime"].contains(&name),
            Self::Milm => name == "milm-compress",
            Self::Transformers => name == "transformers",
            Self::Vllm => name == "vLLM",
            Self::LlamaCpp => name == "llama.cpp",
            Self::OnnxRuntime => name == "ONNX Runtime",
            Self::Hexagon => name == "Hexagon HTP",
            Self::OpenVino => name == "OpenVINO",
        }
    }

    /// What becomes of embeddings and head: codes, where its loader takes them there.
    pub fn embeddings(self) -> Embeddings {
        match self {
            Self::Portable | Self::Transformers | Self::Vllm => Embeddings::Float,
            Self::Milm | Self::LlamaCpp | Self::OnnxRuntime | Self::Hexagon | Self::OpenVino => {
                Embeddings::Eight
            }
        }
    }
}
