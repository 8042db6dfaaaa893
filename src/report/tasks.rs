//! Results of benchmarks.
use super::Sheet;
use crate::{
    eval::{
        bench::{Candidate, TaskReport},
        task::{Group, Metric, Paired, Summary},
    },
    shown::line,
};
use comfy_table::{ContentArrangement, Table, presets};

impl TaskReport {
    /// What tables show of it: averages by task, the differences from the base.
    pub fn sheet(&self) -> Sheet<'_> {
        let averages = self.tasks.iter().flat_map(|task| {
            shown_groups(task)
                .map(|group| (format!("{} {}", task.task, group.name), metrics(group)))
        });
        let undefined = self.tasks.iter().filter(|task| task.undefined > 0).map(|task| {
            let of = task.warnings.first().cloned().unwrap_or_default();
            (format!("{}, undefined", task.task), of)
        });
        let differences = self
            .compared
            .iter()
            .map(|it| (format!("{} {}, difference", it.task, it.metric), difference(it)));
        let items: usize = self.tasks.iter().filter_map(|it| Some(it.groups.first()?.items)).sum();
        Sheet {
            model: &self.model,
            reference: self.reference.as_deref(),
            figures: averages.chain(undefined).chain(differences).collect(),
            gates: &self.gates,
            passed: self.passed,
            method: format!("{} tasks, {items} items, {}", self.tasks.len(), self.tool),
        }
    }
}

/// Averages of each task, for people; subjects are left to the JSON form.
pub fn tasks_table(report: &TaskReport) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["task", "over", "items", &line(&report.model)]);
    for task in &report.tasks {
        for (at, group) in shown_groups(task).enumerate() {
            let name = if at == 0 { line(&task.task) } else { "".into() };
            table.add_row([&*name, &line(&group.name), &group.items.to_string(), &metrics(group)]);
        }
    }
    let warnings = report.tasks.iter().flat_map(|task| {
        task.warnings
            .iter()
            .map(move |warning| format!("{}: {}\n", line(&task.task), line(warning)))
    });
    let base = line(report.reference.as_deref().unwrap_or("the base"));
    let differences = report
        .compared
        .iter()
        .map(|it| format!("{} {} against {base}: {}\n", line(&it.task), it.metric, difference(it)));
    format!("{}\n{}", table.trim_fmt(), warnings.chain(differences).collect::<String>())
}

fn difference(it: &Paired) -> String {
    format!(
        "{:+.4} (95 %: {:+.4} to {:+.4}), {} lost, {} won, p {:.4}",
        it.difference, it.low, it.high, it.lost, it.won, it.p_value
    )
}

/// The groups before subjects: categories.
fn shown_groups(task: &Summary) -> impl Iterator<Item = &Group> {
    let last = task.groups.iter().position(|group| group.name == "items");
    task.groups.iter().take(last.map_or(8, |at| at + 1))
}

fn metrics(group: &Group) -> String {
    let metrics = group.metrics.iter().map(|(name, metric)| shown(name, *metric));
    metrics.collect::<Vec<_>>().join(", ")
}

fn shown(name: &str, metric: Metric) -> String {
    match metric.standard_error {
        Some(error) => format!("{name} {:.4} ± {error:.4}", metric.value),
        None => format!("{name} {:.4}", metric.value),
    }
}

/// Candidates and their differences from the base, for people.
pub fn compared_table(all: &[Candidate]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    let base = all.first().map_or("base", |it| it.base.as_str());
    table.set_header([
        "candidate",
        "task",
        "items",
        base,
        "candidate",
        "difference (95 %)",
        "lost, won",
        "p",
        "changed",
    ]);
    for Candidate { name, paired: it, .. } in all {
        table.add_row([
            line(name).into_owned(),
            format!("{} {}", line(&it.task), it.metric),
            it.items.to_string(),
            format!("{:.4}", it.base),
            format!("{:.4}", it.candidate),
            format!("{:+.4} ({:+.4} … {:+.4})", it.difference, it.low, it.high),
            format!("{}, {}", it.lost, it.won),
            format!("{:.4}", it.p_value),
            format!("{:.1} %", 100.0 * it.changed),
        ]);
    }
    let notes = all.iter().map(|Candidate { name, paired: it, .. }| {
        let (name, task) = (line(name), line(&it.task));
        let missing = match it.unpaired {
            0 => String::new(),
            count => format!("{name}, {task}: {count} items are not in both runs\n"),
        };
        format!(
            "{name}, {task}: losses of {:.4} and more would show on {} items (power 80 %, level 5 %)\n{missing}",
            it.detectable, it.items
        )
    });
    table.trim_fmt() + "\n" + &notes.collect::<String>()
}
