//! Static grids of activations: rounding to them, and the ranges that they are made of.
use super::{
    points::Point,
    tap::{Site, Tap},
};
use crate::model::{Expert, Model};
use crate::scheme::ActivationGrid;
use ndarray::{ArrayView2, ArrayViewMut2};
use std::collections::BTreeMap;

/// Static grids by point.
#[derive(Clone, Debug, Default)]
pub(super) struct PointGrids(BTreeMap<(Point, Option<Expert>), ActivationGrid>);

/// All points of blocks.
const INSIDE: [Point; 15] = [
    Point::AttentionNorm,
    Point::Q,
    Point::K,
    Point::V,
    Point::Mixed,
    Point::O,
    Point::PostAttentionNorm,
    Point::MlpNorm,
    Point::Gate,
    Point::Up,
    Point::Silu,
    Point::Hidden,
    Point::Down,
    Point::PostMlpNorm,
    Point::Block,
];

impl PointGrids {
    /// Those of a block; none for most models.
    pub(super) fn of_block(model: &Model, block: usize) -> Option<Self> {
        let all = &model.weights.activations;
        if all.is_empty() {
            return None;
        }
        let experts = model.spec.tensors.iter().filter(|it| it.block == Some(block));
        let experts: std::collections::BTreeSet<_> = experts.map(|it| it.expert).collect();
        let places = experts.iter().flat_map(|expert| INSIDE.map(|point| (point, *expert)));
        let known = places.filter_map(|at| Some((at, *all.get(&at.0.key(Some(block), at.1))?)));
        Some(Self(known.collect()))
    }
}

/// The grid of a point outside of blocks.
pub(super) fn end_grid(model: &Model, point: Point) -> Option<ActivationGrid> {
    model.weights.activations.get(&point.key(None, None)).copied()
}

/// Rounds activations to static grids.
pub(super) struct Rounds<'a>(pub(super) &'a PointGrids);

impl Tap for Rounds<'_> {
    fn see(&mut self, _: Site, _: ArrayView2<'_, f32>) {}

    fn alters(&self) -> bool {
        true
    }

    fn alter(&mut self, (point, expert): (Point, Option<Expert>), mut x: ArrayViewMut2<'_, f32>) {
        if let Some(grid) = self.0.0.get(&(point, expert)) {
            for mut row in x.outer_iter_mut() {
                if let Some(row) = row.as_slice_mut() {
                    grid.round(row);
                }
            }
        }
    }
}

/// Least and largest value of each point.
#[derive(Clone, Debug, Default)]
pub struct Ranges(pub BTreeMap<(Point, Option<Expert>), (f32, f32)>);

impl Ranges {
    /// Takes in values of a point.
    pub fn add(&mut self, point: Point, expert: Option<Expert>, x: ArrayView2<'_, f32>) {
        let range = self.0.entry((point, expert)).or_insert((f32::INFINITY, f32::NEG_INFINITY));
        for x in x {
            *range = (range.0.min(*x), range.1.max(*x));
        }
    }
}

impl Tap for Ranges {
    fn see(&mut self, _: Site, _: ArrayView2<'_, f32>) {}

    fn alters(&self) -> bool {
        true
    }

    fn alter(&mut self, (point, expert): (Point, Option<Expert>), x: ArrayViewMut2<'_, f32>) {
        self.add(point, expert, x.view());
    }
}
