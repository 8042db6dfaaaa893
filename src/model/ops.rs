//! What a block computes, as data: a list of ops for each half. The runner, the ONNX writer and whoever else
//! follows a model interpret these lists, one function per op; families declare them.
use super::role::Role;

/// A half of a block, `x ← x + f(x)`: f is what its ops make of the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// f is attention.
    Attention,
    /// f is the feed-forward part.
    Mlp,
}

impl Half {
    /// In the order of a block.
    pub const BOTH: [Self; 2] = [Self::Attention, Self::Mlp];
}

/// A step of a half. It takes what the step before gave, the first the residual stream, `[tokens, hidden]`;
/// what the last gives is added to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `y / √(mean(y²) + ε) · gain`, the gain by its role.
    Norm(Role),
    /// Queries, keys and values of all heads side by side, `[tokens, (heads + 2 · kv_heads) · head_dim]`.
    Heads,
    /// The norm of each query and key head, with gains of their own.
    HeadNorms,
    /// `RoPE` of each query and key head, and the online rotation behind it where the model has one.
    Turn,
    /// Causal attention over the window of the block, `softmax(q·kᵀ / √width)·v`, `[tokens, heads · head_dim]`.
    Attend {
        /// The width whose root scores are divided by; `None`: that of a head, also of one that was cut.
        width: Option<usize>,
    },
    /// `act(gate(y)) · up(y)`, `[tokens, MLP width]`.
    Gate(Activation),
    /// A mixture of experts, each of which gates and goes down.
    Experts(Activation),
    /// The layer that leads back to the width of the stream: [`Role::O`] or [`Role::Down`].
    Linear(Role),
}

/// What opens a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e⁻ˣ)`.
    Silu,
    /// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`, the usual approximation of GELU (arXiv 1606.08415).
    GeluTanh,
}
