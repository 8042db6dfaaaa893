//! Hugging Face directories: safetensors shards and JSON files, in and out.
