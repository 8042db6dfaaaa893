//! Reading token by token gives what reading all at once gives.
use crate::util;
use milm_compress::{
    forward::{self, Reference},
    linalg::Team,
    progress::Silent,
    runtime::Engine,
};

/// Prompt and continuation split at any place: the last logits equal those of one pass. The order
/// of float32 sums differs between the two, so logits of size L differ by some 1e-5·L, not by the
/// 1e-2·L that a wrong position or a lost token causes (see `golden`).
#[test]
fn a_cache_changes_nothing() {
    let ids: Vec<u32> = (0..40).map(|i| 3 + (i * 37) % 120).collect();
    let team = Team::new(2);
    for name in ["llama", "mistral-sliding", "qwen3-moe", "llama-rope-yarn"] {
        let model = util::open(&util::golden().join(name));
        let want = forward::logits(&model, &Reference, &ids, &team).unwrap();
        let want = want.row(ids.len() - 1);
        let largest = want.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        for split in [1, 17, 39] {
            let mut engine = Engine::load(&model, &Reference, &team, &Silent).unwrap();
            engine.feed(&ids[..split]).unwrap();
            for id in &ids[split..ids.len() - 1] {
                engine.feed(&[*id]).unwrap();
            }
            let got = engine.feed(&ids[ids.len() - 1..]).unwrap().to_vec();
            let worst = want.iter().zip(&got).fold(0.0_f32, |m, (w, g)| m.max((w - g).abs()));
            assert!(worst < 1e-4 * largest, "{name}, split at {split}: {worst} of {largest}");

            // Forgetting a token and reading another one in its place is seen.
            engine.truncate(ids.len() - 2);
            engine.feed(&[5]).unwrap();
            let other = engine.feed(&ids[ids.len() - 1..]).unwrap();
            let moved = want.iter().zip(other).fold(0.0_f32, |m, (w, g)| m.max((w - g).abs()));
            assert!(moved > 1e-2 * largest, "{name}: {moved} of {largest}");
        }
    }
}

#[test]
fn a_token_outside_of_the_vocabulary_is_an_error() {
    let model = util::open(&util::golden().join("llama"));
    let team = Team::new(1);
    let mut engine = Engine::load(&model, &Reference, &team, &Silent).unwrap();
    let error = engine.feed(&[128]).unwrap_err().to_string();
    assert!(error.contains("128"), "{error}");
    assert!(engine.feed(&[]).is_err());
}
