//! What the page shows, as data of the template.
use super::{
    PageError, Run,
    charts::{self, Caption},
    run::{Group, Record},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Groups of a task that a chart shows at most; tables show all.
const GROUPS: usize = 14;

/// Items that are shown of each candidate at most.
const WORST: usize = 12;

/// Characters of an answer that are shown.
const ANSWER: usize = 600;

fn number(value: Option<f64>, digits: usize) -> String {
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
            let gates = it.map_or(&[][..], |it| &it.gates);
            let kept = gates.iter().filter(|it| it.passed).count();
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
            let verdict = match gates.len() {
                0 => "–".into(),
                all => format!("{kept} of {all}"),
            };
            json!({ "name": run.name, "cells": cells, "gates": verdict, "failed": kept < gates.len() })
        })
        .collect();
    json!({ "tasks": tasks, "rows": rows })
}

/// Names of tasks in the order in which runs name them.
fn task_names(runs: &[Run]) -> Vec<&str> {
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
fn main_score(run: &Run, task: &str) -> Option<(f64, Option<f64>)> {
    let metric = run.main_metric(task)?;
    if let Some(told) = run.tasks.iter().find(|it| it.task == task) {
        let found = told.groups.first()?.metrics.get(metric)?;
        return Some((found.value?, found.standard_error));
    }
    let of_task = run.records.iter().filter(|it| it.task == task);
    let values: Vec<f64> = of_task.filter_map(|it| it.metrics.get(metric).copied()).collect();
    Some((values.iter().sum::<f64>() / values.len() as f64, None))
}

fn chart(caption: &Caption, svg: String, rows: Vec<Vec<String>>, head: &[&str]) -> Value {
    json!({
        "title": caption.title,
        "text": caption.text,
        "svg": svg,
        "head": head,
        "rows": rows,
    })
}

/// All charts that the runs have data for, each with its numbers as a table.
pub(super) fn charts(runs: &[Run]) -> Result<Vec<Value>, PageError> {
    let mut out = vec![];
    out.extend(size(runs)?);
    out.extend(tasks(runs)?);
    out.extend(groups(runs)?);
    out.extend(layers(runs)?);
    out.extend(divergence(runs)?);
    Ok(out)
}

/// Quality against size: the perplexity, or the first task.
fn size(runs: &[Run]) -> Result<Option<Value>, PageError> {
    let task = task_names(runs).first().copied();
    let by_ppl = runs.iter().any(|it| it.evaluation.as_ref().is_some_and(|it| it.ppl.is_some()));
    let quality = |run: &Run| {
        if by_ppl { run.evaluation.as_ref()?.ppl } else { Some(main_score(run, task?)?.0) }
    };
    let points: Vec<(usize, &str, f64, f64)> = runs
        .iter()
        .enumerate()
        .filter_map(|(at, run)| {
            Some((at, run.name.as_str(), run.bytes? as f64 / 1e6, quality(run)?))
        })
        .collect();
    if points.is_empty() {
        return Ok(None);
    }
    let what = if by_ppl { "Perplexity (lower is better)" } else { task.unwrap_or_default() };
    let caption = Caption {
        title: "Quality against size".into(),
        text: format!("{what} of each run over the size of its weights."),
        x: "Weights, MB".into(),
        y: what.into(),
    };
    let row = |it: &(usize, &str, f64, f64)| {
        vec![it.1.to_owned(), format!("{:.1}", it.2), format!("{:.4}", it.3)]
    };
    let rows = points.iter().map(row).collect();
    let svg = charts::scatter(&caption, &points)?;
    Ok(Some(chart(&caption, svg, rows, &["Run", "Weights, MB", what])))
}

/// Bars of several values of each run.
fn bars(
    caption: &Caption,
    names: &[String],
    runs: &[Run],
    value: impl Fn(&Run, usize) -> Option<f64>,
) -> Result<Value, PageError> {
    let values: Vec<(usize, Vec<Option<f64>>)> = runs
        .iter()
        .enumerate()
        .map(|(at, run)| (at, (0..names.len()).map(|it| value(run, it)).collect()))
        .collect();
    let largest =
        values.iter().flat_map(|it| it.1.iter().flatten()).fold(0.0_f64, |a, b| a.max(*b));
    let most = if largest <= 1.0 { 1.0 } else { largest };
    let rows = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let of_run = values.iter().map(|it| number(it.1[at], 4));
            std::iter::once(name.clone()).chain(of_run).collect()
        })
        .collect();
    let head: Vec<&str> =
        std::iter::once("").chain(runs.iter().map(|it| it.name.as_str())).collect();
    let svg = charts::bars(caption, (names, most), &values)?;
    Ok(chart(caption, svg, rows, &head))
}

/// The main metric of every task, when there are several.
fn tasks(runs: &[Run]) -> Result<Option<Value>, PageError> {
    let names: Vec<String> = task_names(runs).into_iter().map(str::to_owned).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let caption = Caption {
        title: "Tasks".into(),
        text: "The main metric of each task, for each run.".into(),
        x: "Score".into(),
        y: String::new(),
    };
    bars(&caption, &names, runs, |run, at| main_score(run, &names[at]).map(|it| it.0)).map(Some)
}

/// Groups of each task that has some.
fn groups(runs: &[Run]) -> Result<Vec<Value>, PageError> {
    let mut out = vec![];
    for task in task_names(runs) {
        let of = |run: &Run| {
            let found = run.tasks.iter().find(|it| it.task == task);
            found.map_or(vec![], |it| it.groups.clone())
        };
        let Some(first) = runs.iter().map(of).find(|it| it.len() > 1) else { continue };
        let names: Vec<String> =
            first.iter().skip(1).take(GROUPS).map(|it| it.name.clone()).collect();
        let left = first.len() - 1 - names.len();
        let more =
            if left > 0 { format!(" {left} more groups are not drawn.") } else { String::new() };
        let caption = Caption {
            title: format!("{task} by category"),
            text: format!("The main metric of {task} in each category, for each run.{more}"),
            x: "Score".into(),
            y: String::new(),
        };
        let value = |run: &Run, at: usize| {
            let groups: Vec<Group> = of(run);
            let group = groups.into_iter().find(|it| it.name == names[at] && it.items > 0)?;
            let metric = group.metrics.get(run.main_metric(task)?);
            metric.or_else(|| group.metrics.values().next())?.value
        };
        out.push(bars(&caption, &names, runs, value)?);
    }
    Ok(out)
}

/// Mean relative error of the layers of each block.
fn layers(runs: &[Run]) -> Result<Option<Value>, PageError> {
    let mut series = vec![];
    let mut worst = vec![];
    for (at, run) in runs.iter().enumerate() {
        let mut blocks: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for layer in &run.layers {
            let Some((block, error)) = layer.block.zip(layer.error) else { continue };
            let (sum, count) = blocks.entry(block).or_default();
            (*sum, *count) = (*sum + error, *count + 1.0);
        }
        if !blocks.is_empty() {
            let mean = |(block, (sum, count)): (usize, (f64, f64))| (block as f64, sum / count);
            series.push((at, blocks.into_iter().map(mean).collect::<Vec<_>>()));
        }
        let mut sorted: Vec<_> = run.layers.iter().filter(|it| it.error.is_some()).collect();
        sorted.sort_by(|a, b| b.error.partial_cmp(&a.error).unwrap_or(std::cmp::Ordering::Equal));
        worst.extend(sorted.iter().take(5).map(|layer| {
            vec![
                run.name.clone(),
                layer.tensor.clone(),
                format!("{:.3e}", layer.error.unwrap_or(0.0)),
            ]
        }));
    }
    if series.is_empty() {
        return Ok(None);
    }
    let caption = Caption {
        title: "Error by block".into(),
        text:
            "Mean relative error of the outputs of a block's layers on calibration text; the table \
               names the five worst layers of each run."
                .into(),
        x: "Block".into(),
        y: "Relative error".into(),
    };
    let svg = charts::log_lines(&caption, &series)?;
    Ok(Some(chart(&caption, svg, worst, &["Run", "Layer", "Relative error"])))
}

/// KL divergence of single positions, where it was recorded.
fn divergence(runs: &[Run]) -> Result<Option<Value>, PageError> {
    let mut series = vec![];
    let mut rows = vec![];
    for (at, run) in runs.iter().enumerate() {
        let Some(against) = run.evaluation.as_ref().map(|it| &it.figures["divergence"]) else {
            continue;
        };
        let counts = against["kl_histogram"].as_array();
        let counts: Vec<f64> = counts.into_iter().flatten().filter_map(Value::as_f64).collect();
        let total: f64 = counts.iter().sum();
        if counts.len() == 32 && total > 0.0 {
            series.push((at, counts.iter().map(|it| it / total).collect::<Vec<_>>()));
            let of = |name: &str| number(against["kl"][name].as_f64(), 5);
            let row = ["median", "p90", "p99", "p99_9", "max"].map(of);
            rows.push(std::iter::once(run.name.clone()).chain(row).collect::<Vec<_>>());
        }
    }
    if series.is_empty() {
        return Ok(None);
    }
    let edges: Vec<f64> = (0..32).map(|at| -6.25 + 0.25 * f64::from(at)).collect();
    let caption = Caption {
        title: "KL divergence by token".into(),
        text: "Share of positions with a KL divergence from the reference in each quarter of a \
               decade; the first bin holds all that is smaller, the last all that is larger."
            .into(),
        x: "KL, nats".into(),
        y: "Positions".into(),
    };
    let svg = charts::histogram(&caption, &edges, &series)?;
    Ok(Some(chart(&caption, svg, rows, &["Run", "Median", "90 %", "99 %", "99.9 %", "Largest"])))
}

/// Every gate of every run.
pub(super) fn gates(runs: &[Run]) -> Vec<Value> {
    let of = |run: &Run| {
        let gates = run.evaluation.iter().flat_map(|it| it.gates.clone());
        let name = run.name.clone();
        gates
            .map(move |gate| {
                let sign = if gate.gate.starts_with("min") { "≥" } else { "≤" };
                json!({
                    "run": name,
                    "gate": gate.gate,
                    "bound": format!("{sign} {}", gate.limit),
                    "value": gate.value.map_or_else(|| "not a number".into(), |it| it.to_string()),
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
