//! What the page shows, as data of the template.
use super::{Run, run::Record};
use crate::report::rows;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Items that are shown of each candidate at most.
const WORST: usize = 12;

/// Characters of an answer that are shown.
const ANSWER: usize = 600;

pub(super) fn number(value: Option<f64>, digits: usize) -> String {
    value.filter(|it| it.is_finite()).map_or_else(|| "–".into(), |it| format!("{it:.digits$}"))
}

fn percent(value: Option<f64>) -> String {
    let shown = value.filter(|it| it.is_finite());
    shown.map_or_else(|| "–".into(), |it| format!("{:.2} %", 100.0 * it))
}

/// One row per run: size, perplexity, divergence, tasks, gates.
pub(super) fn overview(runs: &[Run]) -> Value {
    let base = runs[0].bytes;
    let tasks = task_names(runs);
    let rows: Vec<Value> = runs
        .iter()
        .map(|run| {
            let it = run.evaluation.as_ref();
            let share = run.bytes.zip(base).map(|(own, base)| own as f64 / base as f64);
            let all = run.gates().count();
            let kept = run.gates().filter(|it| it.passed).count();
            let cells = [
                run.bytes.map_or_else(|| "–".into(), |it| format!("{:.1}", it as f64 / 1e6)),
                percent(share),
                number(it.and_then(|it| it.ppl), 3),
                percent(it.and_then(|it| it.ppl_increase)),
                number(it.and_then(|it| it.kl_mean), 4),
                percent(it.and_then(|it| it.top1_agreement)),
            ];
            let scores = tasks.iter().map(|task| match main_score(run, task) {
                Some((value, Some(error))) => format!("{value:.4} ± {error:.4}"),
                Some((value, None)) => format!("{value:.4}"),
                None => "–".into(),
            });
            let cells: Vec<String> = cells.into_iter().chain(scores).collect();
            let verdict = match all {
                0 => "–".into(),
                all => format!("{kept} of {all}"),
            };
            json!({ "name": run.name, "cells": cells, "gates": verdict, "failed": kept < all })
        })
        .collect();
    json!({ "tasks": tasks, "rows": rows })
}

/// Names of tasks in the order in which runs name them.
pub(super) fn task_names(runs: &[Run]) -> Vec<&str> {
    let mut names: Vec<&str> = vec![];
    for run in runs {
        let told = run.tasks.iter().map(|it| it.task.as_str());
        for name in told.chain(run.records.iter().map(|it| it.task.as_str())) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// The task's main metric over everything, with its error.
pub(super) fn main_score(run: &Run, task: &str) -> Option<(f64, Option<f64>)> {
    let metric = run.main_metric(task)?;
    if let Some(told) = run.tasks.iter().find(|it| it.task == task) {
        let found = told.groups.first()?.metrics.get(metric)?;
        return Some((found.value?, found.standard_error));
    }
    let of_task = run.records.iter().filter(|it| it.task == task);
    let values: Vec<f64> = of_task.filter_map(|it| it.metrics.get(metric).copied()).collect();
    Some((values.iter().sum::<f64>() / values.len() as f64, None))
}

/// Every gate of every run.
pub(super) fn gates(runs: &[Run]) -> Vec<Value> {
    let of = |run: &Run| {
        let name = run.name.clone();
        run.gates()
            .map(move |gate| {
                json!({
                    "run": name,
                    "gate": gate.gate,
                    "bound": rows::bound(gate),
                    "value": rows::value(gate),
                    "passed": gate.passed,
                })
            })
            .collect::<Vec<_>>()
    };
    runs.iter().flat_map(of).collect()
}

fn cut(text: &str) -> String {
    if text.chars().count() <= ANSWER {
        return text.to_owned();
    }
    text.chars().take(ANSWER).chain(['…']).collect()
}

/// Items on which a candidate lost most against the base, both answers beside each other.
pub(super) fn worst(runs: &[Run]) -> Vec<Value> {
    let base = &runs[0];
    let known: BTreeMap<(&str, &str, &str), &Record> = base
        .records
        .iter()
        .map(|it| ((it.task.as_str(), it.id.as_str(), it.item.as_str()), it))
        .collect();
    let mut out = vec![];
    for run in &runs[1..] {
        let mut lost: Vec<(f64, &Record, &Record)> = run
            .records
            .iter()
            .filter_map(|own| {
                let before =
                    *known.get(&(own.task.as_str(), own.id.as_str(), own.item.as_str()))?;
                let metric = base.main_metric(&own.task)?;
                let loss = before.metrics.get(metric)? - own.metrics.get(metric)?;
                (loss > 0.0).then_some((loss, before, own))
            })
            .collect();
        // Stable: items that lost alike keep their order.
        lost.sort_by(|a, b| b.0.total_cmp(&a.0));
        let rows: Vec<Value> = lost
            .iter()
            .take(WORST)
            .map(|(loss, before, own)| {
                json!({
                    "item": format!("{} {}", own.task, own.id),
                    "loss": format!("{loss:.3}"),
                    "right": cut(&own.right),
                    "before": cut(&before.answer),
                    "after": cut(&own.answer),
                })
            })
            .collect();
        if !rows.is_empty() {
            out.push(json!({
                "run": run.name, "base": base.name, "rows": rows, "count": lost.len(),
            }));
        }
    }
    out
}

/// Recipes of packages, as they resolved.
pub(super) fn recipes(runs: &[Run]) -> Vec<Value> {
    let of = |run: &Run| {
        let recipe = run.recipe.as_ref()?;
        let text = serde_json::to_string_pretty(recipe).unwrap_or_default();
        Some(json!({ "run": run.name, "made_by": run.made_by, "text": text }))
    };
    runs.iter().filter_map(of).collect()
}

/// How each run was measured.
pub(super) fn methods(runs: &[Run]) -> Value {
    let measured: Vec<_> =
        runs.iter().filter_map(|run| Some((run, run.evaluation.as_ref()?))).collect();
    let mut keys: Vec<&String> = vec![];
    for (_, evaluation) in &measured {
        for key in evaluation.method.keys().filter(|key| *key != "join") {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    let names: Vec<&str> = measured.iter().map(|(run, _)| run.name.as_str()).collect();
    let shown = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "–".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let row = |key: &str, cells: Vec<String>| {
        let differs = cells.windows(2).any(|pair| pair[0] != pair[1]);
        json!({ "key": key, "cells": cells, "differs": differs })
    };
    let mut rows = vec![
        row("program", measured.iter().map(|(_, it)| it.tool.clone()).collect()),
        row(
            "reference",
            measured.iter().map(|(_, it)| it.reference.clone().unwrap_or("–".into())).collect(),
        ),
        row("scored tokens", measured.iter().map(|(_, it)| it.tokens.to_string()).collect()),
    ];
    rows.extend(
        keys.into_iter().map(|key| {
            row(key, measured.iter().map(|(_, it)| shown(it.method.get(key))).collect())
        }),
    );
    json!({ "names": names, "rows": rows })
}

/// What tasks warned of.
pub(super) fn warnings(runs: &[Run]) -> Vec<String> {
    let of = |run: &Run| {
        let name = run.name.clone();
        let all = run.tasks.iter().flat_map(|task| {
            task.warnings.iter().map(|it| format!("{}: {it}", task.task)).collect::<Vec<_>>()
        });
        all.map(|it| format!("{name}, {it}")).collect::<Vec<_>>()
    };
    runs.iter().flat_map(of).collect()
}
