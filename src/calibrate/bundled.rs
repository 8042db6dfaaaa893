//! Text that the program carries, written for it (calibration-data/).

/// A carried text by its name, `builtin:en` or `builtin:zh`.
pub fn bundled(name: &str) -> Option<&'static str> {
    match name {
        "builtin:en" => Some(include_str!("../../calibration-data/en.txt")),
        "builtin:zh" => Some(include_str!("../../calibration-data/zh.txt")),
        _ => None,
    }
}

/// What models are asked to continue, a prompt a line, and its name.
pub const PROMPTS: (&str, &str) =
    ("builtin:prompts", include_str!("../../calibration-data/prompts.txt"));
