//! Hugging Face directories in compressed-tensors form.
