//! Vector spaces inside a network and which axis of a tensor lives in which.

/// A vector space. Two axes with the same space are wired together: what is done to one must be
/// done to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// Token ids.
    Vocab,
    /// The residual stream.
    Residual,
    /// Queries and keys of a block, all key/value heads.
    AttnQk(usize),
    /// The coordinates of one query/key head of a block, shared by all its heads (QK-norm gains).
    QkHead(usize),
    /// Values of a block, all key/value heads.
    AttnV(usize),
    /// Hidden units of a block's MLP, or of one of its experts.
    Mlp(usize, Option<Expert>),
    /// The experts of a block (router outputs).
    Experts(usize),
    /// A single number (the gate of a shared expert).
    One,
}

/// One of the parallel MLPs of a mixture-of-experts block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expert {
    /// Chosen by the router.
    Routed(usize),
    /// Sees every token.
    Shared,
}

/// One axis of a tensor. With grouped-query attention each key/value head appears `repeat` times
/// in a row along a query-side axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// The space.
    pub space: Space,
    /// Copies of each head along this axis.
    pub repeat: usize,
}

impl Axis {
    /// An axis that holds its space once.
    pub const fn of(space: Space) -> Self {
        Self { space, repeat: 1 }
    }
}
