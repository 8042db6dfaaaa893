//! Any text as a profile of a chip.
#![no_main]
use libfuzzer_sys::fuzz_target;
use milm_compress::device::Profile;

fuzz_target!(|text: &str| {
    let _ = Profile::parse("fuzz.toml", text);
});
