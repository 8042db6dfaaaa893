//! Columns of weights that are kept at int8: chosen, stored, read back, refused.
use crate::{
    adaptive::{Job, kl, with},
    prune::golden,
    util::MODELS,
};
use milm_compress::{
    linalg::Team,
    model::{Role, Weight},
    package,
    progress::Silent,
    quantize::CodeChoice,
    transform,
};
use std::{fs, path::Path};

/// A package of a golden model with outliers, in the coordinates of `rotate`.
fn write(name: &str, rotate: transform::Rotate, target: &Path) {
    let opened = golden(name);
    let mut job = Job::new(&opened, with(|it| it.outliers = Some(0.125)));
    job.transform.rotate = Some(rotate);
    job.write(target).unwrap();
}

#[test]
fn every_family_keeps_outliers_and_is_read_back() {
    for name in MODELS {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        write(name, transform::Rotate::None, &target);
        let package = package::open(target.to_str().unwrap()).unwrap();
        let spec = &package.model.spec;
        let linears = spec.tensors.iter().filter(|it| it.role.is_block_linear());
        for tensor in linears.filter(|it| it.input.is_some()) {
            let weight = package.model.weights.get(&tensor.name).unwrap();
            let Weight::Split { tensor: split, .. } = weight else {
                panic!("{name}: {} is not split", tensor.name)
            };
            let columns = split.columns.total();
            let wanted = ((columns + 32) / 64).max(1) * 8; // an eighth, in eights
            assert_eq!(split.columns.places().len(), wanted, "{name}: {}", tensor.name);
            if tensor.role == Role::Down {
                assert!(split.columns.are_last(), "{name}: hidden units change places for free");
            }
        }
        let verified = package::verify(target.to_str().unwrap(), &Team::new(1), &Silent);
        assert!(verified.unwrap().problems.is_empty(), "{name}");
    }
}

#[test]
fn outliers_lower_the_loss_in_every_basis() {
    let opened = golden("llama");
    for rotate in [transform::Rotate::None, transform::Rotate::Hadamard, transform::Rotate::Resq] {
        let loss = |outliers| {
            let mut job = Job::new(&opened, with(|it| it.outliers = outliers));
            job.transform.rotate = Some(rotate);
            kl(&job)
        };
        let (without, with) = (loss(None), loss(Some(0.25)));
        assert!(with < without, "{rotate:?}: {with} {without}");
    }
}

#[test]
fn damaged_outliers_are_named() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    write("llama", transform::Rotate::None, &target);
    let name = target.to_str().unwrap();
    let package = package::open(name).unwrap();
    let part = "model.layers.0.self_attn.q_proj.outliers.columns";
    let places = package.model.weights.raw[part].bytes.to_vec();
    drop(package);
    let file = target.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(places.len()).position(|it| it == places).unwrap();
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let model = package::open(name).unwrap().model;
    let mut damaged = 0;
    for weight in model.weights.quantized.keys() {
        if let Err(error) = model.weights.get(weight) {
            let error = error.to_string();
            assert!(error.contains(weight) && error.contains("outliers.columns"), "{error}");
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    // Only the manifest says which columns are apart.
    fs::remove_file(target.join("milm.json")).unwrap();
    let error = package::open(name).unwrap_err().to_string();
    assert!(error.contains("outliers without milm.json"), "{error}");
}

#[test]
fn what_cannot_be_kept_apart_is_refused_before_the_work() {
    let opened = golden("llama");
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let refused = |settings| Job::new(&opened, settings).write(&target).unwrap_err().to_string();
    for share in [0.0, -0.1, 0.6, f64::NAN] {
        let error = refused(with(|it| it.outliers = Some(share)));
        assert!(error.contains("`outliers`: expected a number above 0 and up to 0.5"), "{error}");
    }
    let nearest = with(|it| {
        (it.outliers, it.rounding) = (Some(0.1), Some(CodeChoice::Nearest));
    });
    assert!(refused(nearest).contains("--rounding adaptive"));
    let budget = with(|it| (it.outliers, it.avg_bits) = (Some(0.1), Some(5.0)));
    assert!(refused(budget).contains("budget"));
    assert!(fs::read_dir(top.path()).unwrap().next().is_none(), "nothing is left behind");
}
