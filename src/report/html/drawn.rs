//! The charts of the page, each with its numbers as a table.
use super::{
    PageError, Run,
    charts::{self, Caption},
    run::Group,
    views::{main_score, number, task_names},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Groups of a task that a chart shows at most; tables show all.
const GROUPS: usize = 14;

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
