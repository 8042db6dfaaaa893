//! Rows that are verified, offers that are accepted: no bit of a text depends on them.
use crate::util;
use milm_compress::{
    forward::{Backend, Reference},
    linalg::Team,
    model::Model,
    progress::Silent,
    runtime::{Engine, Kernels, Sequence},
    scheme::KvPrecision,
};

const KV: [KvPrecision; 3] = [KvPrecision::Float, KvPrecision::Int8, KvPrecision::Int4];

fn ids(first: u32, count: u32) -> Vec<u32> {
    (0..count).map(|i| 3 + (first * 11 + i * 37) % 120).collect()
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

/// Logits after each of `ids`, fed alone behind a prompt.
fn alone(engine: &mut Engine<'_>, prompt: &[u32], ids: &[u32]) -> Vec<Vec<u32>> {
    engine.truncate(0);
    engine.feed(prompt).unwrap();
    ids.iter().map(|id| bits(engine.feed(&[*id]).unwrap())).collect()
}

/// As [`alone`], read in passes of `rows` tokens with as many wrong ones behind, which are forgotten.
fn verified(
    engine: &mut Engine<'_>,
    prompt: &[u32],
    (ids, rows): (&[u32], usize),
) -> Vec<Vec<u32>> {
    engine.truncate(0);
    engine.feed(prompt).unwrap();
    let mut all = Vec::new();
    for part in ids.chunks(rows) {
        let wrong = vec![9; rows];
        let logits = engine.verify(&[part, wrong.as_slice()].concat()).unwrap();
        engine.truncate(engine.len() - wrong.len());
        all.extend(logits.outer_iter().take(part.len()).map(|row| bits(row.to_slice().unwrap())));
    }
    all
}

fn assert_verified(name: &str, model: &Model, backend: &dyn Backend) {
    let (prompt, ids) = (ids(0, 9), ids(1, 8));
    for threads in [1, 2] {
        let team = Team::new(threads);
        let mut engine = Engine::load(model, backend, &team, &Silent).unwrap();
        let want = alone(&mut engine, &prompt, &ids);
        for rows in [1, 2, 3, 8] {
            let got = verified(&mut engine, &prompt, (&ids, rows));
            assert!(got == want, "{name} {:?} {threads}: {rows}", model.spec.kv_cache);
        }
        let mut other = ids.clone();
        other[2] = 9;
        let got = verified(&mut engine, &prompt, (&other, 8));
        assert!(got[..2] == want[..2] && got[2..] != want[2..], "{name}, the twin: an other row");
    }
}

#[test]
fn verified_rows_have_the_bits_of_rows_alone() {
    for name in util::MODELS {
        for kv_cache in KV {
            let mut model = util::open(&util::golden().join(name));
            model.spec.kv_cache = kv_cache;
            assert_verified(name, &model, &Reference);
            assert_verified(name, &model, &Kernels::new());
        }
    }
}

#[test]
fn rows_of_several_texts_are_verified_together() {
    let mut model = util::open(&util::golden().join("llama"));
    for kv_cache in KV {
        model.spec.kv_cache = kv_cache;
        let team = Team::new(2);
        let mut engine = Engine::load(&model, &Kernels::new(), &team, &Silent).unwrap();
        let texts = [(ids(0, 5), ids(4, 3)), (ids(1, 12), ids(5, 1)), (ids(2, 2), ids(6, 6))];
        let want: Vec<_> =
            texts.iter().flat_map(|(prompt, ids)| alone(&mut engine, prompt, ids)).collect();
        let mut sequences: Vec<Sequence> = texts.iter().map(|_| engine.sequence()).collect();
        for (sequence, (prompt, _)) in sequences.iter_mut().zip(&texts) {
            engine.feed_to(sequence, prompt).unwrap();
        }
        let rows = sequences.iter_mut().zip(texts.iter().map(|(_, ids)| ids.as_slice()));
        let got = engine.step(rows.collect()).unwrap();
        let got: Vec<_> = got.outer_iter().map(|row| bits(row.to_slice().unwrap())).collect();
        assert!(got == want, "{kv_cache:?}");
        let lengths: Vec<usize> = sequences.iter().map(Sequence::len).collect();
        assert_eq!(lengths, [8, 13, 8]);
    }
}
