//! Blocks of ggml against gguf-py (tests/golden/ggml).
use crate::util;
use milm_compress::scheme::ggml::FORMATS;

/// Both compute in float32 in the same order: the values are the same bits.
#[test]
fn blocks_decode_as_gguf_py_decodes_them() {
    let golden = util::tensors(&util::golden().join("ggml/blocks.safetensors"));
    assert_eq!(golden.len(), 2 * FORMATS.len());
    for format in FORMATS {
        let raw = &golden[&format!("{}.bytes", format.name())];
        let want = golden[&format!("{}.values", format.name())].to_f32().unwrap();
        assert_eq!(raw.shape[1], format.block_bytes(), "{}", format.name());
        assert_eq!(want.len(), raw.shape[0] * format.block_len(), "{}", format.name());
        let mut got = vec![0.0_f32; want.len()];
        format.decode(&raw.bytes, &mut got);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!(got.to_bits() == want.to_bits(), "{} {i}: {got} {want}", format.name());
        }
    }
}
