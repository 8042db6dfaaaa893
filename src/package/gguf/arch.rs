//! Architectures of llama.cpp: their names, and the order of rows that their rotation wants.
//!
//! Add one: a variant of [`Arch`], its name and rotation, and a case in [`accepts`](super::accepts).

/// `general.architecture` of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Llama, Mistral, Mixtral; with biases whatever Qwen2 is.
    Llama,
    /// As Llama, but blocks may differ in heads and widths.
    Deci,
    /// Biases on queries, keys and values; heads fill the residual stream exactly.
    Qwen2,
    /// Queries and keys are normalized per head.
    Qwen3,
    /// Qwen2 with routed experts and a shared one behind a gate.
    Qwen2Moe,
    /// Qwen3 with routed experts.
    Qwen3Moe,
    /// Norms behind both halves, too; a window in all blocks but every nth, which turn by a base of their own.
    Gemma3,
}

impl Arch {
    /// Every architecture.
    pub const ALL: [Self; 7] = [
        Self::Llama,
        Self::Qwen2,
        Self::Qwen3,
        Self::Deci,
        Self::Qwen2Moe,
        Self::Qwen3Moe,
        Self::Gemma3,
    ];

    /// Name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Deci => "deci",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen2Moe => "qwen2moe",
            Self::Qwen3Moe => "qwen3moe",
            Self::Gemma3 => "gemma3",
        }
    }

    /// The architecture of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.name() == name)
    }

    /// Whether the rows of queries and keys are interleaved: llama.cpp rotates neighbours for this
    /// architecture, where Hugging Face rotates halves. Frequency factors are read there only.
    pub fn interleaved(self) -> bool {
        matches!(self, Self::Llama | Self::Deci)
    }
}

/// The row of the file that is row `row` of a checkpoint: in a head of width d, row i of the first
/// half stands at 2i and row i of the second half at 2i + 1.
pub(super) fn interleaved_row(row: usize, head: usize) -> usize {
    let (base, within) = (row / head * head, row % head);
    let half = head / 2;
    base + if within < half { 2 * within } else { 2 * (within - half) + 1 }
}

/// The row of a checkpoint that is row `row` of a file: the inverse of [`interleaved_row`].
pub(super) fn halved_row(row: usize, head: usize) -> usize {
    let (base, within) = (row / head * head, row % head);
    base + within / 2 + within % 2 * (head / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_rows_are_inverse() {
        let of_file: Vec<usize> = (0..8).map(|row| halved_row(row, 4)).collect();
        assert_eq!(of_file, [0, 2, 1, 3, 4, 6, 5, 7]);
        for head in [2, 6, 16] {
            for row in 0..3 * head {
                assert_eq!(interleaved_row(halved_row(row, head), head), row);
            }
        }
    }
}
