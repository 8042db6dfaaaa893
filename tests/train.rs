//! Gradients of the trainer against torch's, through the models that transformers builds, and against what
//! the loss does where its parameters move.
use crate::util;
use milm_compress::{
    forward::{self, Reference},
    linalg::Team,
    model::Model,
    train::{Labels, Learns, Parent, Student, Target},
};
use ndarray::Array2;
use std::{path::Path, process::Command};

const IDS: [u32; 24] =
    [1, 17, 93, 4, 55, 120, 8, 31, 77, 2, 64, 99, 12, 45, 101, 6, 83, 29, 110, 38, 70, 14, 51, 126];

/// The golden checkpoints.
fn trainable() -> impl Iterator<Item = (&'static str, Model)> {
    util::MODELS.into_iter().map(|name| (name, util::open(&util::golden().join(name))))
}

/// The sum of the cross-entropies of the tokens behind the first, the gradients in the student.
pub(crate) fn learn(model: &Model, ids: &[u32], learns: Learns, threads: usize) -> (Student, f64) {
    let window = ids.len() - 1;
    let mut student = Student::load(model, window, learns).unwrap();
    let (team, labels) = (Team::new(threads), Labels(&ids[1..]));
    let loss = student.learn(&[&ids[..window]], &labels, 1.0, &team).unwrap();
    (student, loss)
}

#[test]
fn the_loss_is_that_of_the_forward_pass() {
    for (name, model) in trainable() {
        let (student, loss) = learn(&model, &IDS, Learns::Everything, 2);
        let team = Team::new(1);
        let logits = forward::logits(&model, &Reference, &IDS[..IDS.len() - 1], &team).unwrap();
        let each = logits.outer_iter().zip(&IDS[1..]).map(|(row, id)| {
            let sum: f64 = row.iter().map(|z| f64::from(*z).exp()).sum();
            sum.ln() - f64::from(row[*id as usize])
        });
        let want: f64 = each.sum();
        // Logits of both are within 1e-4 of the largest (tests/golden.rs), here below 40; each loss moves by
        // twice as much.
        let tolerance = 2.0 * 1e-4 * 40.0 * IDS.len() as f64;
        assert!((loss - want).abs() < tolerance, "{name}: {loss} {want}");
        let windows: [&[u32]; 1] = [&IDS[..IDS.len() - 1]];
        let again = student.loss(&windows, &Labels(&IDS[1..]), &team).unwrap();
        assert!((again - loss).abs() <= 0.0, "{name}: {again} {loss}");
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit_of_a_gradient() {
    for (name, model) in trainable().take(3) {
        let [(one, _), (two, _), (five, _)] =
            [1, 2, 5].map(|threads| learn(&model, &IDS, Learns::Everything, threads));
        for ((one, two), five) in one.parameters().zip(two.parameters()).zip(five.parameters()) {
            for ((one, two), five) in one.list.iter().zip(&two.list).zip(&five.list) {
                assert_eq!(one.gradient, two.gradient, "{name} {}", one.name);
                assert_eq!(one.gradient, five.gradient, "{name} {}", one.name);
            }
        }
    }
}

/// |got − sign · want| / |want| over all parameters of a model that learn, and the parameter it is worst for.
fn difference(student: &Student, torch: &Path, sign: f32) -> (f64, String) {
    let want = util::tensors(torch);
    let mut worst = (0.0, String::new());
    let learnt = student.parameters().flat_map(|it| &it.list).filter(|it| it.learns());
    let mut compared = 0;
    for parameter in learnt {
        let want = want[&parameter.name].to_f32().unwrap();
        let norm: f64 = want.iter().map(|x| f64::from(*x).powi(2)).sum();
        let off = parameter.gradient.iter().zip(&want);
        let off: f64 = off.map(|(got, want)| f64::from(got - sign * want).powi(2)).sum();
        // A bias that softmax takes away again (of keys) has a gradient of rounding errors alone.
        let found = if norm < 1e-12 { 0.0 } else { (off / norm).sqrt() };
        compared += usize::from(norm >= 1e-12);
        if found > worst.0 {
            worst = (found, parameter.name.clone());
        }
    }
    assert!(compared > 9, "{compared}");
    worst
}

#[test]
fn gradients_of_every_family_are_those_of_torch() {
    let Some(python) = util::engines() else { return };
    let temp = tempfile::tempdir().unwrap();
    let ids: Vec<String> = IDS.iter().map(ToString::to_string).collect();
    let out = |name: &str| temp.path().join(format!("{name}.safetensors"));
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/transformers_gradients.py");
    let mut command = Command::new(python);
    command.arg(script).args(["--ids", &ids.join(",")]);
    for (name, _) in trainable() {
        command.arg(util::golden().join(name)).arg(out(name));
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for (name, model) in trainable() {
        let (student, loss) = learn(&model, &IDS, Learns::Everything, 2);
        let want = f64::from(util::tensors(&out(name))["loss"].to_f32().unwrap()[0]);
        assert!((loss - want).abs() < 1e-5 * want, "{name}: {loss} {want}");
        // Some 300 products of up to 128 terms one after the other, each term off by 2⁻²⁴, and sums that
        // cancel: a gradient keeps four digits.
        let (found, parameter) = difference(&student, &out(name), 1.0);
        assert!(found < 1e-4, "{name}: {parameter}: {found}");
        // The twin: the other sign is seen, in the parameter where it is seen least.
        let (found, _) = difference(&student, &out(name), -1.0);
        assert!(found > 1.9, "{name}: {found}");
    }
}

/// KL(parent ‖ model) and its gradient by the logits, T·(q − p), in float64 beside ours.
#[test]
fn the_divergence_to_a_parent_is_that_of_float64() {
    let parent = util::open(&util::golden().join("llama"));
    let head = forward::Head::load(&parent, &Reference).unwrap();
    let (team, vocab) = (Team::new(2), parent.spec.vocab);
    let wave = |rows: usize, columns: usize, step: f32| {
        Array2::from_shape_fn((rows, columns), |(t, i)| 3.0 * ((t * 37 + i) as f32 * step).sin())
    };
    let (stream, logits) = (wave(3, parent.spec.hidden, 0.7), wave(3, vocab, 1.3));
    let wanted = head.logits(stream.view(), &team);
    for temperature in [1.0, 2.0] {
        let t = f64::from(temperature);
        let distribution = |z: ndarray::ArrayView1<'_, f32>| {
            let e: Vec<f64> = z.iter().map(|z| (f64::from(*z) / t).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.into_iter().map(|e| e / sum).collect::<Vec<f64>>()
        };
        let target = Parent { head: &head, stream: stream.view(), temperature };
        let mut gradient = logits.clone();
        let loss = target.gradient(0..3, &mut gradient, &team);
        let mut want = 0.0;
        for (row, (z, above)) in logits.outer_iter().zip(wanted.outer_iter()).enumerate() {
            let (q, p) = (distribution(z), distribution(above));
            want += t * t * p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
            for ((found, p), q) in gradient.row(row).iter().zip(&p).zip(&q) {
                // Each probability is off by some 2⁻²² of itself: exponential, sum, product.
                assert!((f64::from(*found) - t * (q - p)).abs() < 1e-6, "{row}: {found} {p} {q}");
            }
        }
        // Terms of up to 8 nats whose sum is off by some 2⁻²² of them, three rows.
        assert!((loss - want).abs() < 1e-5 * t * t, "{loss} {want}");
        assert!(want > 0.1, "there is something to see: {want}");
    }
}
