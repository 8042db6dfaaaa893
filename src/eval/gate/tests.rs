use super::*;
use crate::eval::metric::tests::figures;

fn judged(gate: &str, ppl: f64, kl: f64, top1: f64) -> GateResult {
    let gate: Gate = gate.parse().unwrap();
    let figures = figures(ppl, kl, top1);
    gate.judge(figures.measured(&gate.figure).as_ref()).unwrap()
}

#[test]
fn gates_are_read_as_they_are_written() {
    for text in [
        "kl <= 0.05",
        "ceval >= 0.31 by-interval",
        "hellaswag:acc_norm loss <= 0.01",
        "ceval/law recovery >= 0.95 by-interval",
    ] {
        let gate: Gate = text.parse().unwrap();
        assert_eq!(gate.to_string(), text);
        assert_eq!(serde_json::to_string(&gate).unwrap(), format!("\"{text}\""));
    }
    assert_eq!("a loss <= 1%".parse::<Gate>().unwrap().to_string(), "a loss <= 0.01");
    assert_eq!(
        "ceval/law recovery >= 95%".parse::<Gate>().unwrap().name(),
        "min-ceval/law-recovery"
    );
    for text in
        ["", "kl", "kl <= ", "kl < 1", "kl <= nan", "a loss >= 1%", "a recovery <= 1", "kl <= 1 2"]
    {
        let error = text.parse::<Gate>().unwrap_err().to_string();
        assert!(error.contains("hint"), "{error}");
    }
    let file = "# of the nightly run\n\nkl <= 0.05  # nats\ntop1 >= 93%\n";
    assert_eq!(read_gates(file).unwrap(), [Gate::most("kl", 0.05), Gate::least("top1", 0.93)]);
    assert!(read_gates("kl").is_err());
}

#[test]
fn the_border_is_within_and_a_hair_beyond_is_not() {
    // The figures: increase 0.25, KL 0.125, top-1 0.5, exact in binary.
    let figures = figures(1.25, 0.125, 0.5);
    let passed = |gate: Gate| gate.judge(figures.measured(&gate.figure).as_ref()).unwrap().passed;
    let increase = |limit| passed(Gate::most("ppl-increase", limit));
    let kl = |limit| passed(Gate::most("kl", limit));
    let top1 = |limit| passed(Gate::least("top1", limit));
    assert!(increase(0.25) && !increase(0.25_f64.next_down()));
    assert!(kl(0.125) && !kl(0.125_f64.next_down()));
    assert!(top1(0.5) && !top1(0.5_f64.next_up()));
}

#[test]
fn no_number_fails_every_gate() {
    for gate in ["kl <= 1e300", "ppl-increase <= 1e300", "top1 >= 0"] {
        let it = judged(gate, f64::NAN, f64::NAN, f64::NAN);
        assert!(!it.passed && it.value.is_none(), "{gate}");
    }
    let infinite = |gate| judged(gate, f64::INFINITY, f64::INFINITY, 0.0).passed;
    assert!(
        !infinite("kl <= 1e300") && !infinite("ppl-increase <= 1e300") && infinite("top1 >= 0")
    );
}

#[test]
fn losses_and_recoveries_are_judged_by_point_or_interval() {
    let ratio = |value, low, high| Ratio { value, low: Some(low), high: Some(high) };
    let against = Against {
        loss: ratio(0.02, -0.01, 0.05),
        recovery: ratio(0.96, 0.9, 1.02),
        base: 0.5,
        detectable: 0.04,
        items: 100,
    };
    let measured = Measured { value: ratio(0.48, 0.4, 0.56), against: Some(against), undefined: 0 };
    let judge = |text: &str| text.parse::<Gate>().unwrap().judge(Some(&measured)).unwrap();
    assert!(judge("t >= 0.48").passed && !judge("t >= 0.48 by-interval").passed);
    assert!(judge("t loss <= 0.02").passed && !judge("t loss <= 0.02 by-interval").passed);
    assert!(judge("t loss <= 0.05 by-interval").passed);
    assert!(judge("t recovery >= 95%").passed && !judge("t recovery >= 95% by-interval").passed);
    assert_eq!(judge("t recovery >= 95% by-interval").interval, Some([0.9, 1.02]));
    // A loss of 0.025 of 0.5 is smaller than what 100 items show, one of 0.05 is not.
    assert!(judge("t recovery >= 95%").note.unwrap().contains("100 items"));
    assert!(judge("t recovery >= 90%").note.is_none() && judge("t >= 0.1").note.is_none());
}

#[test]
fn what_was_not_measured_is_an_error() {
    let gate: Gate = "t loss <= 1%".parse().unwrap();
    let point = Ratio { value: 1.0, low: None, high: None };
    let alone = Measured { value: point, against: None, undefined: 0 };
    assert!(matches!(gate.judge(None), Err(EvalError::GateFigure { .. })));
    assert!(matches!(gate.judge(Some(&alone)), Err(EvalError::NoReference { .. })));
    let gate: Gate = "t >= 1 by-interval".parse().unwrap();
    assert!(matches!(gate.judge(Some(&alone)), Err(EvalError::NoInterval { .. })));
}

#[test]
fn gates_without_sense_are_found_before_the_work() {
    let check = |gate: &str, text, reference| {
        gate.parse::<Gate>().unwrap().check(text, &["ceval"], reference)
    };
    assert!(check("kl <= 0.1", true, true).is_ok() && check("ppl <= 30", true, false).is_ok());
    assert!(matches!(check("kl <= 0.1", true, false), Err(EvalError::NoReference { .. })));
    assert!(matches!(check("kl <= 0.1", false, true), Err(EvalError::GateFigure { .. })));
    assert!(matches!(check("kl loss <= 0.1", true, true), Err(EvalError::GateFigure { .. })));
    assert!(matches!(check("kl <= -0.1", true, true), Err(EvalError::Gate { .. })));
    assert!(matches!(check("top1 >= 1.1", true, true), Err(EvalError::Gate { .. })));
    assert!(check("ceval/law:acc >= 0.3", false, false).is_ok());
    assert!(check("ceval loss <= 1%", false, true).is_ok());
    assert!(matches!(check("ceval loss <= 1%", false, false), Err(EvalError::NoReference { .. })));
    assert!(matches!(check("cmmlu >= 0.3", true, true), Err(EvalError::GateFigure { .. })));
}

#[test]
fn no_gate_passes_where_positions_have_no_number() {
    let mut figures = figures(1.0, 0.0, 1.0);
    for (undefined, passes) in [(0, true), (1, false)] {
        figures.undefined = undefined;
        for gate in ["top1 >= 0.9", "top5 >= 0.9", "kl <= 1", "ppl <= 100", "ppl-increase <= 1"] {
            let gate: Gate = gate.parse().unwrap();
            let result = gate.judge(figures.measured(&gate.figure).as_ref()).unwrap();
            assert_eq!(result.passed, passes, "{gate}");
            assert_eq!(result.note.is_some(), !passes, "{gate}");
        }
    }
}
