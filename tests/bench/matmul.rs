//! How fast are the integer products? Plain and fast kernels side by side, on one thread.
//!
//! Elements per second are operations for 512 tokens (two per weight and token) and bytes of
//! packed weights for one token, where memory is the limit.
#![allow(missing_docs, clippy::unwrap_used, reason = "bench")]
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use milm_compress::linalg::Team;
use milm_compress::runtime::kernel::{Isa, PackedLinear};
use milm_compress::scheme::{Granularity, IntScheme, QTensor};
use ndarray::Array2;
use std::time::Duration;

/// `[out, in]` of `SmolLM2`-135M: up, down, head.
const SHAPES: [[usize; 2]; 3] = [[1536, 576], [576, 1536], [49152, 576]];

fn weights(bits: u32, granularity: Granularity, shape: [usize; 2]) -> PackedLinear {
    let scheme = IntScheme { bits, symmetric: true, granularity };
    let groups = scheme.groups(shape[1]).unwrap();
    let range = 2 * scheme.max_code() as usize + 1;
    let code = |i: usize| (i * 7919 % range) as i32 - scheme.max_code();
    let codes = (0..shape[0] * shape[1]).map(|i| code(i) as i8).collect();
    let scales = vec![0.01; shape[0] * groups];
    PackedLinear::new(&[QTensor { scheme, shape, codes, scales, zero_points: vec![] }]).unwrap()
}

fn products(c: &mut Criterion) {
    let schemes = [("w8a8", 8, Granularity::Channel), ("w4a8-g64", 4, Granularity::Group(64))];
    let team = Team::new(1);
    for (name, bits, granularity) in schemes {
        for shape in SHAPES {
            let w = weights(bits, granularity, shape);
            for tokens in [1, 512] {
                let x = Array2::from_shape_fn((tokens, shape[1]), |(t, c)| ((t + c) as f32).sin());
                let mut y = Array2::zeros((tokens, shape[0]));
                let mut group = c.benchmark_group(format!("{name}/{}x{}", shape[0], shape[1]));
                group.throughput(match tokens {
                    1 => Throughput::Bytes(w.bytes() as u64),
                    _ => Throughput::Elements((2 * tokens * shape[0] * shape[1]) as u64),
                });
                for (isa_name, isa) in Isa::available() {
                    let work = tokens * shape[0] * shape[1];
                    if isa == Isa::SCALAR && work > 1 << 26 {
                        continue;
                    }
                    group.bench_function(BenchmarkId::new(isa_name, tokens), |b| {
                        b.iter(|| w.forward_int8(x.view(), y.view_mut(), &team, (isa, None)));
                    });
                }
            }
        }
    }
}

fn config() -> Criterion {
    let (warm_up, time) = (Duration::from_millis(300), Duration::from_secs(1));
    Criterion::default().warm_up_time(warm_up).measurement_time(time).sample_size(20)
}

criterion_group! { name = benches; config = config(); targets = products }
criterion_main!(benches);
