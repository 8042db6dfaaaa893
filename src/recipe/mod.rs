//! Recipes: TOML files with the steps of a compression.
