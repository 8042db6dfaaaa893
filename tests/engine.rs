//! Reading token by token gives what reading all at once gives.
use crate::util;
use milm_compress::{
    forward::{self, Branch, Reference},
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

/// Texts with a common beginning, read as a tree, have the logits of each read alone; and if a
/// branch saw its neighbour, it would not.
#[test]
fn branches_do_not_see_each_other() {
    let team = Team::new(2);
    let stem: Vec<u32> = (0..9).map(|i| 3 + (i * 37) % 120).collect();
    let fork: Vec<u32> = (0..7).map(|i| 5 + (i * 29) % 120).collect();
    let twigs: [Vec<u32>; 3] = [vec![11, 12, 13, 14, 15, 16], vec![77], vec![90, 4, 55]];
    for name in ["llama", "mistral-sliding", "qwen3-moe", "llama-rope-yarn"] {
        let model = util::open(&util::golden().join(name));
        let mut engine = Engine::load(&model, &Reference, &team, &Silent).unwrap();
        let (shared, own) = (stem.len(), stem.len()..stem.len() + fork.len());
        let mut tokens: Vec<(u32, usize)> = fork.iter().copied().zip(own.clone()).collect();
        let past = std::slice::from_ref(&(0..shared)).to_vec();
        let mut branches = vec![Branch { rows: 0..fork.len(), past }];
        for twig in &twigs {
            let first = tokens.len();
            tokens.extend(twig.iter().copied().zip(own.end..));
            let past = vec![0..shared, own.clone()];
            branches.push(Branch { rows: first..tokens.len(), past });
        }
        let wanted: Vec<usize> = branches.iter().map(|branch| branch.rows.end - 1).collect();
        let mut read = |branches: &[Branch]| {
            engine.truncate(0);
            engine.feed(&stem).unwrap();
            engine.feed_branches(&tokens, branches, &wanted).unwrap()
        };
        let got = read(&branches);
        let again = read(&branches);
        assert_eq!(got, again, "{name}: forgotten branches leave nothing behind");
        let mut open = branches.clone();
        open[2].past.push(branches[1].rows.start + shared..branches[1].rows.end + shared);
        let mixed = read(&open);
        for (at, twig) in [vec![]].iter().chain(&twigs).enumerate() {
            let ids = [stem.as_slice(), &fork, twig].concat();
            let alone = forward::logits(&model, &Reference, &ids, &team).unwrap();
            let want = alone.row(ids.len() - 1);
            let largest = want.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            let off = |rows: &ndarray::Array2<f32>| {
                want.iter().zip(rows.row(at)).fold(0.0_f32, |m, (w, g)| m.max((w - g).abs()))
            };
            assert!(off(&got) < 1e-4 * largest, "{name}, branch {at}: {}", off(&got));
            // The window of the sliding model and the positions stay, the neighbour is seen.
            assert!(at != 2 || off(&mixed) > 1e-3 * largest, "{name}: {}", off(&mixed));
        }
    }
}
