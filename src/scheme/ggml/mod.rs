//! Block formats of ggml (the tensor types of GGUF files).
