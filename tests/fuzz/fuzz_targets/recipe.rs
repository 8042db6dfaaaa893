//! Any text as a recipe.
#![no_main]
use libfuzzer_sys::fuzz_target;
use milm_compress::recipe::Recipe;

fuzz_target!(|text: &str| {
    let _ = Recipe::parse("fuzz.toml", text);
});
