//! Examinations: questions with four options in many subjects, answered by a letter.
mod subjects;

use super::{
    Data, Group, Item, Items, Options, Prompt, Record, Request, Response, Score, Table, Task,
    TaskError, Template, Warnings,
    choice::{best, right},
    data::Seen,
    read_csv,
};
use serde_json::json;
use subjects::Subject;

/// Why a row is not asked.
const OUTSIDE: &str = "answers outside the options, items left out";
const LETTERS: [&str; 4] = ["A", "B", "C", "D"];
/// Columns of files without a header.
const BARE: &[&str] = &["question", "A", "B", "C", "D", "answer"];

/// One benchmark of this form.
pub struct Exam {
    name: &'static str,
    about: &'static str,
    subjects: &'static [Subject],
    /// Ending of a file's name in the folders of examples and of questions.
    dev: (&'static str, &'static str),
    test: (&'static str, &'static str),
    header: bool,
    /// Name of the overlay, empty without one.
    overlay: &'static str,
    /// Of the authors, and of the harness.
    prompts: [Words; 2],
}

/// How a question is put.
struct Words {
    /// With `{}` for the subject.
    head: &'static str,
    before: &'static str,
    after: &'static str,
    /// Between prompt and letter.
    space: &'static str,
    strip: bool,
}

/// C-Eval (Huang et al. 2023, arXiv 2305.08322).
pub(super) static CEVAL: Exam = Exam {
    name: "ceval",
    about: "C-Eval: Chinese examinations, 52 subjects (arXiv 2305.08322), validation split",
    subjects: subjects::CEVAL,
    dev: ("ceval/dev/", "_dev.csv"),
    test: ("ceval/val/", "_val.csv"),
    header: true,
    overlay: "hard",
    prompts: [
        Words {
            head: "以下是中国关于{}考试的单项选择题，请选出其中的正确答案。\n\n",
            before: "",
            after: "\n答案：",
            space: "",
            strip: false,
        },
        Words {
            head: "以下是中国关于{}的单项选择题，请选出其中的正确答案。\n\n",
            before: "",
            after: "\n答案：",
            space: " ",
            strip: true,
        },
    ],
};

/// CMMLU (Li et al. 2023, arXiv 2306.09212).
pub(super) static CMMLU: Exam = Exam {
    name: "cmmlu",
    about: "CMMLU: Chinese knowledge, 67 subjects (arXiv 2306.09212), test split",
    subjects: subjects::CMMLU,
    dev: ("cmmlu/dev/", ".csv"),
    test: ("cmmlu/test/", ".csv"),
    header: true,
    overlay: "China specific",
    prompts: [
        Words {
            head: "以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n",
            before: "题目：",
            after: "\n答案是：",
            space: "",
            strip: false,
        },
        Words {
            head: "以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n",
            before: "",
            after: "\n答案：",
            space: " ",
            strip: true,
        },
    ],
};

/// MMLU (Hendrycks et al. 2021, arXiv 2009.03300).
pub(super) static MMLU: Exam = Exam {
    name: "mmlu",
    about: "MMLU: English knowledge, 57 subjects (arXiv 2009.03300), test split",
    subjects: subjects::MMLU,
    dev: ("mmlu/dev/", "_dev.csv"),
    test: ("mmlu/test/", "_test.csv"),
    header: false,
    overlay: "",
    prompts: [
        Words {
            // The authors' program puts a space before each word of the subject.
            head: "The following are multiple choice questions (with answers) about  {}.\n\n",
            before: "",
            after: "\nAnswer:",
            space: " ",
            strip: false,
        },
        Words {
            head: "The following are multiple choice questions (with answers) about {}.\n\n",
            before: "",
            after: "\nAnswer:",
            space: " ",
            strip: true,
        },
    ],
};

/// A row of a data file.
struct Row {
    id: String,
    question: String,
    options: [String; 4],
    /// Index of the right option.
    right: usize,
}

impl Words {
    fn question(&self, row: &Row) -> String {
        let question = if self.strip { row.question.trim() } else { &row.question };
        let mut text = format!("{}{question}", self.before);
        for (letter, option) in LETTERS.iter().zip(&row.options) {
            text.extend(["\n", letter, ". ", option]);
        }
        text + self.after
    }

    fn letter(&self, at: usize) -> String {
        format!("{}{}", self.space, LETTERS[at])
    }

    fn prompt(&self, subject: &Subject, shots: &[Row], row: &Row) -> Prompt {
        let shot = |shot: &Row| format!("{}{}\n\n", self.question(shot), self.letter(shot.right));
        Prompt {
            head: self.head.replace("{}", subject.shown),
            shots: shots.iter().map(shot).collect(),
            question: self.question(row),
        }
    }
}

impl Exam {
    fn rows(
        &self,
        file: &str,
        bytes: &[u8],
        warnings: &mut Warnings,
    ) -> Result<Vec<Row>, TaskError> {
        let table = read_csv(file, bytes, (!self.header).then_some(BARE))?;
        let question = table.column("question")?;
        let options = LETTERS.map(|letter| table.column(letter));
        let [a, b, c, d] = options;
        let options = [a?, b?, c?, d?];
        let answer = table.column("answer")?;
        let mut rows = Vec::new();
        let mut seen = Seen::default();
        let mut left_out = Vec::new();
        for (at, row) in table.rows().iter().enumerate() {
            let (id, place) = (id(&table, at), format!("{file}, row {}", at + 1));
            let Some(right) = LETTERS.iter().position(|it| *it == row[answer].trim()) else {
                warnings.add(OUTSIDE, place);
                left_out.push(at + 1);
                continue;
            };
            let options = options.map(|column| row[column].clone());
            if row[question].trim().is_empty() {
                warnings.add("empty questions", &place);
            }
            seen.check(&format!("{}{options:?}", row[question]), &place, warnings);
            rows.push(Row { id, question: row[question].clone(), options, right });
        }
        match left_out.as_slice() {
            [row, ..] if rows.is_empty() => Err(TaskError::Unusable {
                file: file.to_owned(),
                reason: OUTSIDE,
                count: left_out.len(),
                row: *row,
            }),
            _ => Ok(rows),
        }
    }

    fn subject(
        &self,
        (subject, words): (&Subject, &Words),
        (data, options): (&dyn Data, &Options),
        all: &mut Items,
    ) -> Result<bool, TaskError> {
        let name = |(folder, ending): (&str, &str)| format!("{folder}{}{ending}", subject.name);
        let file = name(self.test);
        let Some(bytes) = data.read(&file)? else { return Ok(false) };
        let rows = self.rows(&data.shown(&file), &bytes, &mut all.warnings)?;
        let mut shots = Vec::new();
        if options.num_fewshot > 0 {
            let (file, bytes) = data.first(self.name, &[&name(self.dev)])?;
            let file = data.shown(&file);
            shots = self.rows(&file, &bytes, &mut all.warnings)?;
            if shots.len() < options.num_fewshot {
                let (found, wanted) = (shots.len(), options.num_fewshot);
                return Err(TaskError::Shots { file, found, wanted });
            }
            shots.truncate(options.num_fewshot);
        }
        for row in rows.iter().take(options.limit.unwrap_or(usize::MAX)) {
            let prompt = words.prompt(subject, &shots, row);
            let requests = (0..LETTERS.len()).map(|at| Request::LogLikelihood {
                context: prompt.clone(),
                continuation: words.letter(at),
            });
            all.items.push(Item {
                id: row.id.clone(),
                subject: subject.name.to_owned(),
                requests: requests.collect(),
                answer: json!(row.right),
            });
        }
        Ok(true)
    }
}

/// Unique in the task and short: the file's stem and the row.
fn id(table: &Table, at: usize) -> String {
    let file = table.file().rsplit(['/', '\\']).next().unwrap_or_default();
    format!("{}/{at}", file.trim_end_matches(".csv"))
}

impl Task for Exam {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        1
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn main_metric(&self) -> &'static str {
        "acc"
    }

    fn items(&self, data: &dyn Data, options: &Options) -> Result<Items, TaskError> {
        let words = match options.template {
            Template::Official => &self.prompts[0],
            Template::Harness => &self.prompts[1],
        };
        let known = |name: &String| self.subjects.iter().any(|it| it.name == name);
        if let Some(unknown) = options.subjects.iter().find(|name| !known(name)) {
            return Err(TaskError::Subject { task: self.name, found: unknown.clone() });
        }
        let mut all = Items::default();
        let mut missing = Vec::new();
        for subject in self.subjects {
            let wanted = options.subjects.is_empty();
            if !wanted && !options.subjects.iter().any(|it| it == subject.name) {
                continue;
            }
            if !self.subject((subject, words), (data, options), &mut all)? {
                missing.push(subject.name);
            }
        }
        if all.items.is_empty()
            && let Some(first) = missing.first()
        {
            let (folder, ending) = self.test;
            data.first(self.name, &[&format!("{folder}{first}{ending}")])?;
        }
        for name in missing {
            all.warnings.add("subjects without a file, not in the averages", name);
        }
        Ok(all)
    }

    fn score(&self, item: &Item, responses: &[Response]) -> Result<Score, TaskError> {
        let chosen = best(item, responses, |_| 1.0)?;
        let right = right(item, &item.answer)?;
        let letter = |at: usize| LETTERS.get(at).copied().unwrap_or_default().to_owned();
        let mut score = Score::new([("acc", f64::from(u8::from(chosen == right)))]);
        (score.answer, score.right) = (letter(chosen), letter(right));
        Ok(score)
    }

    fn remark(&self, record: &Record) -> Option<&'static str> {
        let long = |it: &Response| matches!(it, Response::LogLikelihood { tokens: 2.., .. });
        record.responses.iter().any(long).then_some(
            "items whose letters have several tokens, scored by the sum of their log-probabilities",
        )
    }

    /// Over everything: the mean of the subjects, as published; then categories, the overlay, and
    /// the mean of all items; then subjects.
    fn aggregate(&self, records: &[Record]) -> Vec<Group> {
        let subjects = Group::by_subject(records);
        let of = |keep: &dyn Fn(&Subject) -> bool| -> Vec<&Group> {
            let kept = self.subjects.iter().filter(|it| keep(it));
            kept.filter_map(|it| subjects.iter().find(|group| group.name == it.name)).collect()
        };
        let mut groups = vec![Group::macro_mean("all", &of(&|_| true))];
        let mut categories: Vec<&str> = Vec::new();
        for subject in self.subjects {
            if !categories.contains(&subject.category) {
                categories.push(subject.category);
            }
        }
        categories.sort_by_key(|name| {
            ["STEM", "Social Science", "Social Sciences", "Humanities", "Other"]
                .iter()
                .position(|it| it == name)
        });
        for category in categories {
            groups.push(Group::macro_mean(category, &of(&|it| it.category == category)));
        }
        groups.push(Group::macro_mean(self.overlay, &of(&|it| it.overlay)));
        groups.push(Group::mean("items", records.iter()));
        groups.retain(|group| group.items > 0);
        groups.extend(subjects);
        groups
    }
}
