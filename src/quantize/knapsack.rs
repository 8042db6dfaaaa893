//! One choice of each list, so that the sum of losses is small and that of sizes within a budget.
//!
//! The convex hulls of the lists (loss over bytes) are climbed from the smallest choices, the
//! steepest step first: the Lagrangian solution for every price of a byte in turn. It is the best
//! there is for the bytes that it takes; a rest that the next step does not fit into is filled with
//! whatever single change gains most. The loss is above the least by less than one step of a hull.

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) bytes: u64,
    /// Finite.
    pub(super) loss: f64,
}

/// The index of the choice in each list. Of equals the first list and the first choice are taken.
/// When even the smallest choices do not fit, they are taken.
pub(super) fn choose(lists: &[Vec<Item>], budget: u64) -> Vec<usize> {
    let hulls: Vec<Vec<usize>> = lists.iter().map(|items| hull(items)).collect();
    let mut chosen: Vec<usize> = hulls.iter().map(|it| it.first().copied().unwrap_or(0)).collect();
    let taken: u64 =
        lists.iter().zip(&chosen).filter_map(|(it, at)| it.get(*at)).map(|it| it.bytes).sum();
    let mut left = budget.saturating_sub(taken);
    // Steps of all hulls, steepest first; those of one hull stay in order by being convex.
    let mut steps: Vec<(f64, usize, usize)> = Vec::new();
    for (list, hull) in hulls.iter().enumerate() {
        for (at, pair) in hull.windows(2).enumerate() {
            steps.push((gain(lists[list][pair[0]], lists[list][pair[1]]), list, at + 1));
        }
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut stopped = vec![false; lists.len()];
    for (_, list, at) in steps {
        let (from, to) = (lists[list][chosen[list]], hulls[list][at]);
        let more = lists[list][to].bytes - from.bytes;
        if stopped[list] || more > left {
            stopped[list] = true;
            continue;
        }
        left -= more;
        chosen[list] = to;
    }
    while let Some((list, to)) = best_change(lists, &chosen, left) {
        left = left + lists[list][chosen[list]].bytes - lists[list][to].bytes;
        chosen[list] = to;
    }
    chosen
}

/// Loss that a byte more takes away.
fn gain(from: Item, to: Item) -> f64 {
    (from.loss - to.loss) / (to.bytes.saturating_sub(from.bytes).max(1)) as f64
}

/// The single change that takes away most loss within `left` more bytes.
fn best_change(lists: &[Vec<Item>], chosen: &[usize], left: u64) -> Option<(usize, usize)> {
    let mut best: Option<(f64, usize, usize)> = None;
    for (list, items) in lists.iter().enumerate() {
        let Some(now) = items.get(chosen[list]) else { continue };
        for (to, item) in items.iter().enumerate() {
            let less = now.loss - item.loss;
            let fits = item.bytes <= now.bytes + left;
            if fits && less > best.map_or(0.0, |it| it.0) {
                best = Some((less, list, to));
            }
        }
    }
    best.map(|(_, list, to)| (list, to))
}

/// Indices of the choices on the lower convex hull, from the fewest bytes to the least loss.
fn hull(items: &[Item]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|a, b| {
        let (x, y) = (items[*a], items[*b]);
        x.bytes.cmp(&y.bytes).then(x.loss.total_cmp(&y.loss)).then(a.cmp(b))
    });
    let mut hull: Vec<usize> = Vec::new();
    for at in order {
        let item = items[at];
        if hull.last().is_some_and(|last| item.loss >= items[*last].loss) {
            continue;
        }
        while let [.., before, last] = hull.as_slice() {
            if gain(items[*before], items[*last]) > gain(items[*last], item) {
                break;
            }
            hull.pop();
        }
        hull.push(at);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(bytes: u64, loss: f64) -> Item {
        Item { bytes, loss }
    }

    fn total(lists: &[Vec<Item>], chosen: &[usize]) -> (u64, f64) {
        let items = lists.iter().zip(chosen).map(|(items, at)| items[*at]);
        items.fold((0, 0.0), |(bytes, loss), it| (bytes + it.bytes, loss + it.loss))
    }

    #[test]
    fn hand_computed_choices() {
        let lists = [
            vec![item(4, 10.0), item(8, 2.0)],              // 2 a byte
            vec![item(4, 9.0), item(6, 8.0), item(8, 1.0)], // 2 a byte; the middle is no bargain
        ];
        assert_eq!(hull(&lists[1]), [0, 2]);
        assert_eq!(choose(&lists, 16), [1, 2]);
        assert_eq!(choose(&lists, 12), [1, 0], "equal gains: the first list");
        assert_eq!(choose(&lists, 14), [1, 1], "the rest is filled");
        assert_eq!(choose(&lists, 8), [0, 0]);
        assert_eq!(choose(&lists, 0), [0, 0], "nothing smaller is there");
        assert_eq!(choose(&[vec![item(5, 1.0), item(9, 3.0), item(5, 1.0)]], 99), [0]);
    }

    /// Against every combination, with pseudo-random lists.
    #[test]
    fn never_a_step_of_a_hull_above_the_least() {
        let mut state = 1_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut exact = 0;
        for _ in 0..200 {
            let lists: Vec<Vec<Item>> = (0..5)
                .map(|_| (0..4).map(|_| item(1 + next(40), next(1000) as f64)).collect())
                .collect();
            let least: u64 =
                lists.iter().map(|it| it.iter().map(|it| it.bytes).min().unwrap()).sum();
            let budget = least + next(60);
            let (bytes, loss) = total(&lists, &choose(&lists, budget));
            assert!(bytes <= budget);
            let best = (0..1024_usize)
                .map(|code| [0, 2, 4, 6, 8].map(|shift| (code >> shift) % 4))
                .map(|chosen| total(&lists, &chosen))
                .filter(|(bytes, _)| *bytes <= budget)
                .map(|(_, loss)| loss)
                .fold(f64::INFINITY, f64::min);
            let step = |items: &Vec<Item>| {
                let hull = hull(items);
                let steps = hull.windows(2).map(|it| items[it[0]].loss - items[it[1]].loss);
                steps.fold(0.0, f64::max)
            };
            let step = lists.iter().map(step).fold(0.0, f64::max);
            assert!(loss >= best && loss <= best + step, "{loss} {best} {step}");
            exact += usize::from(loss <= best);
        }
        assert!(exact > 100, "{exact} of 200 are the least");
    }
}
