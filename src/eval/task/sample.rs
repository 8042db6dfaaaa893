//! Small data files that the program carries, written for it in the forms of the benchmarks.
use super::{Data, TaskError};

/// The files, by their places in a data folder.
pub static SAMPLE: Sample = Sample(&[
    ("ceval/dev/law_dev.csv", include_bytes!("sample/ceval/dev/law_dev.csv")),
    ("ceval/val/law_val.csv", include_bytes!("sample/ceval/val/law_val.csv")),
    (
        "ceval/dev/college_physics_dev.csv",
        include_bytes!("sample/ceval/dev/college_physics_dev.csv"),
    ),
    (
        "ceval/val/college_physics_val.csv",
        include_bytes!("sample/ceval/val/college_physics_val.csv"),
    ),
    (
        "cmmlu/dev/chinese_food_culture.csv",
        include_bytes!("sample/cmmlu/dev/chinese_food_culture.csv"),
    ),
    (
        "cmmlu/test/chinese_food_culture.csv",
        include_bytes!("sample/cmmlu/test/chinese_food_culture.csv"),
    ),
    ("mmlu/dev/astronomy_dev.csv", include_bytes!("sample/mmlu/dev/astronomy_dev.csv")),
    ("mmlu/test/astronomy_test.csv", include_bytes!("sample/mmlu/test/astronomy_test.csv")),
    ("hellaswag/hellaswag_val.jsonl", include_bytes!("sample/hellaswag/hellaswag_val.jsonl")),
    ("arc/arc_easy.jsonl", include_bytes!("sample/arc/arc_easy.jsonl")),
    ("arc/arc_challenge.jsonl", include_bytes!("sample/arc/arc_challenge.jsonl")),
    ("piqa/piqa.jsonl", include_bytes!("sample/piqa/piqa.jsonl")),
    ("winogrande/winogrande.jsonl", include_bytes!("sample/winogrande/winogrande.jsonl")),
    ("truthfulqa/TruthfulQA.csv", include_bytes!("sample/truthfulqa/TruthfulQA.csv")),
    ("lambada/lambada_test.jsonl", include_bytes!("sample/lambada/lambada_test.jsonl")),
]);

/// Files in the program.
#[derive(Clone, Copy, Debug)]
pub struct Sample(&'static [(&'static str, &'static [u8])]);

impl Data for Sample {
    fn read(&self, file: &str) -> Result<Option<Vec<u8>>, TaskError> {
        Ok(self.0.iter().find(|(name, _)| *name == file).map(|(_, bytes)| bytes.to_vec()))
    }

    fn shown(&self, file: &str) -> String {
        format!("sample/{file}")
    }
}
