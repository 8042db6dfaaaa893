//! Prompt lookup: what followed these tokens before may follow them again. Needs no model.
//! Saxena 2023, `prompt-lookup-decoding`; here the longest ending that was seen before decides.
use super::proposer::Proposer;
use crate::forward::ForwardError;

/// Tokens that must be the same: a single one stands in too many places.
const LEAST: usize = 2;

/// Tokens that are compared at most.
const MOST: usize = 16;

/// Offers what followed the longest ending of the text that stands in it before, the last place first.
/// Takes time in proportion to the text, microseconds for thousands of tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lookup;

impl Proposer for Lookup {
    fn offer(&mut self, text: &[u32], most: usize) -> Result<Vec<u32>, ForwardError> {
        let Some(after) = seen_before(text) else { return Ok(Vec::new()) };
        // Behind the end of the text goes on what has been offered: a short loop is offered whole.
        let mut all = text[after..].to_vec();
        let distance = all.len();
        (distance..most).for_each(|at| all.push(all[at - distance]));
        all.truncate(most);
        Ok(all)
    }
}

/// Where that stands which followed the longest ending of `text` seen before.
fn seen_before(text: &[u32]) -> Option<usize> {
    let mut best = (LEAST - 1, None);
    for end in (LEAST..text.len()).rev() {
        let pairs = text[..end].iter().rev().zip(text.iter().rev()).take(MOST);
        let same = pairs.take_while(|(a, b)| a == b).count();
        if same > best.0 {
            best = (same, Some(end));
        }
        if same == MOST {
            break;
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(text: &[u32], most: usize) -> Vec<u32> {
        Lookup.offer(text, most).unwrap()
    }

    #[test]
    fn offers_what_followed_the_longest_ending() {
        assert_eq!(offer(&[1, 2, 3, 4, 5, 1, 2], 2), [3, 4]);
        // `7 1 2` is longer than the later `1 2`.
        assert_eq!(offer(&[7, 1, 2, 3, 8, 1, 2, 4, 7, 1, 2], 1), [3]);
        // The later of two alike.
        assert_eq!(offer(&[1, 2, 3, 8, 1, 2, 4, 9, 1, 2], 1), [4]);
        assert_eq!(offer(&[1, 2, 1, 2], 5), [1, 2, 1, 2, 1], "a loop goes on");
        assert_eq!(offer(&[6, 6, 6], 3), [6, 6, 6]);
        for none in [&[][..], &[1], &[1, 2], &[2, 1, 3, 1]] {
            assert_eq!(offer(none, 4), [0; 0], "{none:?}");
        }
        let long: Vec<u32> = (0..100).chain(0..50).collect();
        assert_eq!(offer(&long, 3), [50, 51, 52]);
    }
}
