//! Which tokens are read once for several questions, and which are run together.
use super::encode::Question;
use crate::forward::Branch;
use std::{iter, ops::Range};

/// Tokens that are run together, unless a single question has more.
const PACK: usize = 512;
/// Logits that are wanted of a run, unless a single question has more.
const WANTED: usize = 256;
/// A common beginning shorter than this is not worth a run of its own.
const SHARED: usize = 24;

/// Neighbouring questions that begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) questions: Range<usize>,
    /// Tokens that all of them begin with and that are read once; each has at least one more.
    pub(super) shared: usize,
}

/// Divides questions into families, in order.
pub(super) fn families(questions: &[Question]) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut at = 0;
    while at < questions.len() {
        let context = |at: usize| questions[at].context.ids.as_slice();
        let room = |at: usize| context(at).len().saturating_sub(1);
        let (first, mut shared, mut end) = (context(at), room(at), at + 1);
        while end < questions.len() {
            let same = first.iter().zip(context(end)).take_while(|(a, b)| a == b).count();
            let same = same.min(shared).min(room(end));
            // A question that has less in common begins another family; the second one decides.
            if same < SHARED || (end > at + 1 && same < shared * 3 / 4) {
                break;
            }
            (shared, end) = (same, end + 1);
        }
        let questions = at..end;
        match families.last_mut() {
            Some(last) if questions.len() == 1 && last.shared == 0 => last.questions.end = end,
            _ => {
                let shared = if questions.len() == 1 { 0 } else { shared };
                families.push(Family { questions, shared });
            }
        }
        at = end;
    }
    families
}

/// Tokens that are run together.
#[derive(Debug, Default)]
pub(super) struct Pack {
    /// Token and position of each row.
    pub(super) tokens: Vec<(u32, usize)>,
    pub(super) branches: Vec<Branch>,
    /// Rows whose logits are wanted.
    pub(super) wanted: Vec<usize>,
    /// Per request: its place, and for each token of its continuation the place in `wanted`.
    pub(super) ends: Vec<(usize, Vec<(usize, u32)>)>,
}

/// The packs of a family whose shared tokens have been read, with its questions.
pub(super) fn packs(questions: &[Question], shared: usize) -> Vec<(Pack, Range<usize>)> {
    let mut packs: Vec<(Pack, Range<usize>)> = Vec::new();
    for (at, question) in questions.iter().enumerate() {
        let (rows, wanted) = size(question, shared);
        let fits =
            |pack: &Pack| pack.tokens.len() + rows <= PACK && pack.wanted.len() + wanted <= WANTED;
        match packs.last_mut() {
            Some((pack, range)) if fits(pack) => {
                pack.add(question, shared);
                range.end = at + 1;
            }
            _ => {
                let mut pack = Pack::default();
                pack.add(question, shared);
                packs.push((pack, at..at + 1));
            }
        }
    }
    packs
}

/// Rows to run and logits to make for a question.
fn size(question: &Question, shared: usize) -> (usize, usize) {
    let more: usize = question.ends.iter().map(|(_, end)| end.len().max(1) - 1).sum();
    (question.context.ids.len() - shared + more, 1 + more)
}

impl Pack {
    fn add(&mut self, question: &Question, shared: usize) {
        let context = &question.context.ids;
        let first = self.tokens.len();
        self.grow(&context[shared..], shared);
        let own = first..self.tokens.len();
        self.branches.push(Branch { rows: own.clone(), past: iter::once(0..shared).collect() });
        let last = self.want(own.end - 1);
        let past = vec![0..shared, shared + own.start..shared + own.end];
        for (request, end) in &question.ends {
            let mut targets: Vec<(usize, u32)> = Vec::with_capacity(end.len());
            targets.extend(end.first().map(|id| (last, *id)));
            if let [read @ .., _] = end.as_slice()
                && !read.is_empty()
            {
                let first = self.tokens.len();
                self.grow(read, context.len());
                self.branches.push(Branch { rows: first..self.tokens.len(), past: past.clone() });
                for (i, id) in end[1..].iter().enumerate() {
                    targets.push((self.want(first + i), *id));
                }
            }
            self.ends.push((*request, targets));
        }
    }

    fn grow(&mut self, ids: &[u32], first: usize) {
        self.tokens.extend(ids.iter().enumerate().map(|(i, id)| (*id, first + i)));
    }

    fn want(&mut self, row: usize) -> usize {
        self.wanted.push(row);
        self.wanted.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::Fitted;
    use super::*;
    use std::slice;

    fn question(context: Vec<u32>, ends: &[&[u32]]) -> Question {
        let context = Fitted { ids: context, ..Fitted::default() };
        Question { context, ends: ends.iter().map(|end| (0, end.to_vec())).collect() }
    }

    #[test]
    fn what_begins_alike_is_one_family() {
        let text = |head: u32, len: u32, tail: u32| {
            question((0..len).map(|i| head + i).chain([tail, tail + 1]).collect(), &[&[1]])
        };
        let all = [text(0, 40, 900), text(0, 40, 910), text(0, 38, 920), text(500, 40, 900)];
        let loose = [text(100, 9, 1), text(200, 9, 1), text(300, 9, 1)];
        let questions: Vec<Question> = all.into_iter().chain(loose).collect();
        let family = |questions, shared| Family { questions, shared };
        assert_eq!(families(&questions), [family(0..3, 38), family(3..7, 0)]);
        // The same question twice: the last token of each is read again for its logits.
        let twice = [text(0, 40, 900), text(0, 40, 900)];
        assert_eq!(families(&twice), [family(0..2, 41)]);
        assert_eq!(families(&[]), []);
    }

    #[test]
    fn a_pack_reads_a_context_once_and_no_last_token() {
        let shared = [7; 30];
        let context = [shared.as_slice(), &[8, 9]].concat();
        let questions = [question(context, &[&[1, 2, 3], &[4], &[]])];
        let packs = packs(&questions, 30);
        let (pack, range) = &packs[0];
        assert_eq!((packs.len(), range.clone()), (1, 0..1));
        assert_eq!(pack.tokens, [(8, 30), (9, 31), (1, 32), (2, 33)]);
        let branch = |rows, past: &[Range<usize>]| Branch { rows, past: past.to_vec() };
        let branches = [branch(0..2, slice::from_ref(&(0..30))), branch(2..4, &[0..30, 30..32])];
        assert_eq!(pack.branches, branches);
        assert_eq!(pack.wanted, [1, 2, 3]);
        assert_eq!(pack.ends, [(0, vec![(0, 1), (1, 2), (2, 3)]), (0, vec![(0, 4)]), (0, vec![])]);
    }

    #[test]
    fn packs_hold_what_fits_and_at_least_one_question() {
        let long = || question(vec![1; PACK + 100], &[&[1]]);
        let short = || question(vec![1; 200], &[&[1]]);
        let packs = packs(&[short(), short(), short(), long(), short()], 0);
        let ranges: Vec<_> = packs.iter().map(|(_, range)| range.clone()).collect();
        assert_eq!(ranges, [0..2, 2..3, 3..4, 4..5]);
    }
}
