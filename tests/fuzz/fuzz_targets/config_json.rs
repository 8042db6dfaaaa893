//! Any JSON as a model's config.
#![no_main]
use libfuzzer_sys::fuzz_target;
use milm_compress::model::ModelSpec;

fuzz_target!(|data: &[u8]| {
    if let Ok(config) = serde_json::from_slice(data) {
        let _ = ModelSpec::from_config(&config);
    }
});
