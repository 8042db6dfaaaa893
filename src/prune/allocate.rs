//! Spreads a budget of hidden units over blocks.
use super::{BlockScores, BlockShape, PruneError, Settings, plan::default_multiple};
use std::{cmp::Ordering, collections::BinaryHeap};

/// Shapes whose dense MLPs have as many hidden units in all as those of `shapes`, but where they
/// cost least to lose; `scores` are those of the whole blocks. Experts of a mixture keep their
/// widths: a block has one for all of them.
pub fn allocated(
    shapes: &[BlockShape],
    scores: &[BlockScores],
    settings: &Settings,
) -> Result<Vec<BlockShape>, PruneError> {
    let costs = |scores: &BlockScores| scores.costs.get(&None).cloned();
    let Some(costs) = scores.iter().map(costs).collect::<Option<Vec<_>>>() else {
        return Err(PruneError::Setting {
            name: "--allocate",
            found: "blocks without a dense MLP that is cut".into(),
            expected: "narrower dense MLPs in every block".into(),
        });
    };
    let widths: Vec<usize> =
        shapes.iter().map(|shape| shape.mlp.get(&None).copied().unwrap_or(0)).collect();
    let whole = costs.iter().map(Vec::len).max().unwrap_or(0);
    let multiple = settings.multiple.unwrap_or_else(|| default_multiple(whole));
    let widths = allocate(&costs, &widths, multiple);
    let mut shapes = shapes.to_vec();
    for (shape, width) in shapes.iter_mut().zip(widths) {
        shape.mlp.insert(None, width);
    }
    Ok(shapes)
}

/// The next run of units that a block may lose.
struct Offer {
    cost: f64,
    block: usize,
}

/// Widths for blocks with the same total as `widths`, so that what is lost costs little.
///
/// `costs` are what each hidden unit of each block is worth, in any order, on a scale that is
/// common to all blocks (its share of the block's influence). From all units,
/// runs of `multiple` of a block's cheapest ones go, the cheapest run first (of equal ones that of
/// the first block), until no run fits into what has still to go; every block keeps at least one
/// run. `widths` must be reachable by whole runs, else what is left over stays.
pub fn allocate(costs: &[Vec<f64>], widths: &[usize], multiple: usize) -> Vec<usize> {
    let multiple = multiple.max(1);
    let total: usize = costs.iter().map(Vec::len).sum();
    let mut excess = total.saturating_sub(widths.iter().sum());
    let sorted: Vec<Vec<f64>> = costs
        .iter()
        .map(|costs| {
            let mut costs = costs.clone();
            costs.sort_by(f64::total_cmp);
            costs
        })
        .collect();
    let mut left: Vec<usize> = costs.iter().map(Vec::len).collect();
    // A width that is no multiple loses the odd part first.
    let run = |left: usize| match left % multiple {
        0 => multiple,
        odd => odd,
    };
    let offer = |block: usize, left: usize| {
        let (gone, count) = (sorted[block].len() - left, run(left));
        // Per unit, so that odd runs compare with whole ones.
        let cost = sorted[block][gone..gone + count].iter().sum::<f64>() / count as f64;
        (left > count).then_some(Offer { cost, block })
    };
    let mut offers: BinaryHeap<Offer> =
        left.iter().enumerate().filter_map(|(block, left)| offer(block, *left)).collect();
    while let Some(Offer { block, .. }) = offers.pop() {
        let count = run(left[block]);
        if count > excess {
            continue;
        }
        excess -= count;
        left[block] -= count;
        offers.extend(offer(block, left[block]));
    }
    left
}

impl Ord for Offer {
    /// The heap gives the greatest first: the cheapest, then the first block.
    fn cmp(&self, other: &Self) -> Ordering {
        other.cost.total_cmp(&self.cost).then(other.block.cmp(&self.block))
    }
}

impl PartialOrd for Offer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Offer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Offer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cheap_runs_go_first() {
        // Runs of two, cheapest first: 3, 7 | 20, 40 | 2, 300: 3 and 2 go, then 7, then 20.
        let costs =
            [vec![1.0, 4.0, 2.0, 3.0], vec![10.0, 30.0, 10.0, 10.0], vec![1.0, 1.0, 299.0, 1.0]];
        assert_eq!(allocate(&costs, &[4, 4, 4], 2), [4, 4, 4]);
        assert_eq!(allocate(&costs, &[2, 4, 4], 2), [4, 4, 2]);
        assert_eq!(allocate(&costs, &[2, 2, 4], 2), [2, 4, 2]);
        // Every block keeps a run.
        assert_eq!(allocate(&costs, &[2, 2, 2], 2), [2, 2, 2]);
        assert_eq!(allocate(&costs, &[0, 0, 0], 2), [2, 2, 2]);
    }

    #[test]
    fn equal_costs_take_the_first_block() {
        let costs = vec![vec![1.0; 6]; 3];
        assert_eq!(allocate(&costs, &[4, 6, 6], 2), [4, 6, 6]);
        assert_eq!(allocate(&costs, &[6, 6, 4], 2), [4, 6, 6]);
    }

    #[test]
    fn odd_widths_lose_their_odd_part_first() {
        assert_eq!(allocate(&[vec![1.0; 5], vec![9.0; 4]], &[4, 4], 2), [4, 4]);
        assert_eq!(allocate(&[vec![1.0; 5], vec![9.0; 4]], &[2, 4], 2), [2, 4]);
    }
}
