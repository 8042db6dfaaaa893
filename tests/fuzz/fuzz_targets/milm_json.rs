//! Any text as a package's manifest.
#![no_main]
use libfuzzer_sys::fuzz_target;
use milm_compress::package::Manifest;

fuzz_target!(|text: &str| {
    if let Ok(manifest) = serde_json::from_str::<Manifest>(text) {
        let _ = manifest.is_intact(text);
    }
});
