//! Goes over windows and scores their positions.
use super::{
    EvalError, Figures, LogitSource, StoredWriter, Window,
    metric::{TokenScore, score_rows},
};
use crate::linalg::Team;
use crate::progress::{Progress, Unit};
use std::io::Write;

/// Bytes that prepared windows may take: more windows are walked in groups.
const GROUP_BYTES: usize = 1 << 30;
/// Rows of logits that are in memory at a time, of each source.
pub(crate) const ROWS: usize = 256;

/// Scores every window. With `save`, the log-probabilities of the reference, or of the model if
/// there is none, are stored on the way. Needs the last block's output of a group of windows (at
/// most 1 GiB, or one window's) and 256 rows of logits of each source.
pub fn measure<W: Write>(
    windows: &[Window],
    model: &mut dyn LogitSource,
    mut reference: Option<&mut dyn LogitSource>,
    mut save: Option<&mut StoredWriter<W>>,
    (team, progress): (&Team, &dyn Progress),
) -> Result<(Figures, Vec<TokenScore>), EvalError> {
    let vocab = model.vocab();
    if let Some(other) = reference.as_ref().map(|it| it.vocab()).filter(|it| *it != vocab) {
        return Err(EvalError::Vocabulary { model: vocab, reference: other });
    }
    let per_token =
        model.bytes_per_token() + reference.as_ref().map_or(0, |it| it.bytes_per_token());
    let mut scores = Vec::new();
    let mut first = 0;
    while first < windows.len() {
        let group = &windows[first..first + group_len(&windows[first..], per_token)];
        if let Some(reference) = reference.as_deref_mut() {
            reference.prepare(first, group)?;
        }
        model.prepare(first, group)?;
        let positions: usize = group.iter().map(|window| window.scored.len()).sum();
        progress.start("score", positions as u64, Unit::Tokens);
        for (i, window) in group.iter().enumerate() {
            for start in window.scored.clone().step_by(ROWS) {
                let targets = start..(start + ROWS).min(window.scored.end);
                // The token at t is predicted by the logits after t - 1.
                let positions = targets.start - 1..targets.end - 1;
                let rows = model.rows(first + i, positions.clone())?;
                let other = match reference.as_deref_mut() {
                    Some(reference) => Some(reference.rows(first + i, positions)?),
                    None => None,
                };
                let targets = &window.ids[targets];
                if let Some(save) = save.as_deref_mut() {
                    save.rows(other.as_ref().unwrap_or(&rows), targets, team)?;
                }
                scores.extend(score_rows(&rows, other.as_ref(), targets, team));
                progress.advance(targets.len() as u64);
            }
        }
        progress.finish();
        first += group.len();
    }
    let counts: Vec<usize> = windows.iter().map(|window| window.scored.len()).collect();
    Ok((Figures::of(&scores, &counts), scores))
}

/// How many of the windows go into one group: at least one.
fn group_len(windows: &[Window], per_token: usize) -> usize {
    let mut left = GROUP_BYTES / per_token.max(1);
    let fits = |window: &&Window| {
        let fits = window.ids.len() <= left;
        left = left.saturating_sub(window.ids.len());
        fits
    };
    windows.iter().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_what_fits_and_at_least_one_window() {
        let window = Window { ids: vec![0; 1024], scored: 1..1024 };
        let windows = vec![window; 10];
        assert_eq!(group_len(&windows, 4), 10);
        assert_eq!(group_len(&windows, GROUP_BYTES / 3000), 2);
        assert_eq!(group_len(&windows, usize::MAX), 1);
    }
}
