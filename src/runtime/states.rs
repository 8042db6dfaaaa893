//! What the head multiplied of rows that were read, for those who guess from it.
use ndarray::{ArrayView2, s};

/// Which states a proposer wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// None; they cost nothing then.
    #[default]
    Nothing,
    /// That of the last row, which what is written next is chosen by.
    Last,
    /// Those of all rows, `4 · hidden` bytes each until they are taken.
    All,
}

/// States of rows that follow each other: the stream behind the last norm, as the head multiplies it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct States {
    first: usize,
    hidden: usize,
    values: Vec<f32>,
}

impl States {
    /// The place in its text of the token that the first row belongs to.
    pub fn first(&self) -> usize {
        self.first
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.hidden.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The place behind the last row.
    pub fn end(&self) -> usize {
        self.first + self.len()
    }

    /// The rows, `[rows, hidden]`.
    pub fn rows(&self) -> ArrayView2<'_, f32> {
        let shape = (self.len(), self.hidden);
        ArrayView2::from_shape(shape, &self.values).expect("whole rows")
    }

    /// The last row, `[hidden]`.
    pub fn last(&self) -> Option<&[f32]> {
        self.values.rchunks(self.hidden.max(1)).next()
    }

    /// Forgets the rows of all places but those before `end`.
    pub fn truncate(&mut self, end: usize) {
        self.values.truncate(end.saturating_sub(self.first) * self.hidden);
    }

    /// Forgets the first `count` rows.
    pub fn skip(&mut self, count: usize) {
        let count = count.min(self.len());
        self.values.drain(..count * self.hidden);
        self.first += count;
    }

    /// Adds rows whose first has the place `first`: rows from there on are forgotten, and all where
    /// they would not join.
    pub fn push(&mut self, first: usize, rows: ArrayView2<'_, f32>) {
        self.truncate(first);
        if self.is_empty() || self.end() != first || self.hidden != rows.ncols() {
            *self = Self { first, hidden: rows.ncols(), values: std::mem::take(&mut self.values) };
            self.values.clear();
        }
        self.values.extend(rows.iter());
    }
}

/// The states of a sequence that nobody has taken yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) wanted: Wanted,
    pub(super) states: States,
}

impl Kept {
    /// Of `x`, rows from the place `first` on, keeps what is wanted of their states.
    pub(super) fn read(
        &mut self,
        (first, x): (usize, ArrayView2<'_, f32>),
        state: impl FnOnce(ArrayView2<'_, f32>) -> ndarray::Array2<f32>,
    ) {
        let before = match self.wanted {
            Wanted::Nothing => return,
            Wanted::Last => x.nrows().saturating_sub(1),
            Wanted::All => 0,
        };
        self.states.push(first + before, state(x.slice(s![before.., ..])).view());
    }

    /// Keeps the states of rows of which some may be forgotten.
    pub(super) fn verified(&mut self, first: usize, states: ArrayView2<'_, f32>) {
        if self.wanted != Wanted::Nothing {
            self.states.push(first, states);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    fn rows(first: usize, count: usize) -> Array2<f32> {
        Array2::from_shape_fn((count, 2), |(row, column)| (10 * (first + row) + column) as f32)
    }

    #[test]
    fn rows_join_or_begin_anew() {
        let mut states = States::default();
        assert_eq!((states.len(), states.last()), (0, None));
        states.push(3, rows(3, 4).view());
        states.truncate(5);
        assert_eq!((states.first(), states.end()), (3, 5));
        states.push(5, rows(5, 1).view());
        assert_eq!(states.rows(), rows(3, 3));
        states.push(4, rows(4, 1).view());
        assert_eq!((states.rows(), states.last()), (rows(3, 2).view(), Some(&[40.0, 41.0][..])));
        states.skip(1);
        assert_eq!((states.first(), states.rows()), (4, rows(4, 1).view()));
        states.push(9, rows(9, 2).view());
        assert_eq!((states.first(), states.rows()), (9, rows(9, 2).view()), "a gap");
        states.truncate(2);
        assert!(states.is_empty());
    }
}
