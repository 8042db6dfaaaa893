//! Names and shapes of statistics in a file.
use super::Request;
use crate::{
    checkpoint::TensorPlan,
    model::{Expert, Mlp, ModelSpec, Part, Role},
    tensor::Dtype,
};

/// What a file holds of each block.
pub(super) struct Layout {
    pub(super) blocks: Vec<BlockLayout>,
    request: Request,
}

/// What a file holds of one block.
pub(super) struct BlockLayout {
    /// Inputs of linear layers with their widths.
    pub(super) inputs: Vec<(Role, Option<Expert>, usize)>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// Roles whose inputs are seen; gate and down in each expert.
const ROLES: [Role; 5] = [Role::Q, Role::O, Role::Router, Role::Gate, Role::Down];

impl Layout {
    pub(super) fn new(spec: &ModelSpec, request: &Request) -> Self {
        let blocks = (0..spec.blocks.len()).map(|b| BlockLayout::new(spec, b)).collect();
        Self { blocks, request: request.clone() }
    }

    /// Whether the covariance of the inputs of a layer is there.
    pub(super) fn covariance(&self, role: Role) -> bool {
        self.request.covariance.contains(&role)
    }

    /// Whether products with a reference model's inputs are there.
    pub(super) fn cross(&self, role: Role, expert: Option<Expert>) -> bool {
        self.request.has_cross(role, expert)
    }

    /// Every tensor in the order of the file.
    pub(super) fn plan(&self) -> Vec<TensorPlan> {
        (0..self.blocks.len()).flat_map(|b| self.block(b)).collect()
    }

    /// The tensors of a block in the order of the file.
    pub(super) fn block(&self, b: usize) -> Vec<TensorPlan> {
        let block = &self.blocks[b];
        let mut plan = Vec::new();
        let mut add = |name: String, dtype, shape| {
            plan.push(TensorPlan { name: format!("blocks.{b}.{name}"), dtype, shape });
        };
        for (role, expert, width) in &block.inputs {
            let name = format!("inputs.{}", input_name(*role, *expert));
            add(format!("{name}.tokens"), Dtype::U64, vec![1]);
            add(format!("{name}.sum"), Dtype::F64, vec![*width]);
            add(format!("{name}.sum_squares"), Dtype::F64, vec![*width]);
            add(format!("{name}.abs_max"), Dtype::F32, vec![*width]);
            if self.covariance(*role) {
                let triangle = width * (width + 1) / 2;
                add(format!("{name}.covariance"), Dtype::F32, vec![triangle]);
            }
            if self.cross(*role, *expert) {
                add(format!("{name}.cross"), Dtype::F32, vec![*width, *width]);
            }
        }
        let half = block.head_dim / 2;
        add("queries".into(), Dtype::F64, vec![block.heads * half]);
        add("keys".into(), Dtype::F64, vec![block.kv_heads * half]);
        if self.request.heads {
            let triangle = block.head_dim * (block.head_dim + 1) / 2;
            add("heads".into(), Dtype::F32, vec![block.heads, triangle]);
        }
        add("stream".into(), Dtype::F64, vec![3]);
        plan
    }
}

impl BlockLayout {
    fn new(spec: &ModelSpec, b: usize) -> Self {
        let block = &spec.blocks[b];
        let experts: Vec<Option<Expert>> = match &block.mlp {
            Mlp::Dense { .. } => vec![None],
            Mlp::Experts { count, shared, .. } => (0..*count)
                .map(Expert::Routed)
                .chain(shared.map(|_| Expert::Shared))
                .map(Some)
                .collect(),
        };
        let mut inputs = Vec::new();
        for role in ROLES {
            let inside = matches!(role, Role::Gate | Role::Down);
            let places = if inside { experts.as_slice() } else { &[None] };
            for expert in places {
                let tensor = spec.find(Some(b), role, *expert, Part::Weight);
                let width = tensor.and_then(|tensor| spec.shape(tensor).get(1).copied());
                inputs.extend(width.map(|width| (role, *expert, width)));
            }
        }
        Self { inputs, heads: block.heads, kv_heads: block.kv_heads, head_dim: block.head_dim }
    }
}

fn input_name(role: Role, expert: Option<Expert>) -> String {
    match expert {
        None => role.name().to_owned(),
        Some(Expert::Routed(expert)) => format!("{}.{expert}", role.name()),
        Some(Expert::Shared) => format!("{}.shared", role.name()),
    }
}

/// The inputs that names of tensors speak of: layer, expert, and that part of the name.
pub(super) fn inputs<'a>(
    names: impl Iterator<Item = &'a String>,
    prefix: &str,
) -> Vec<(Role, Option<Expert>, String)> {
    names
        .filter_map(|name| {
            let name =
                name.strip_prefix(prefix)?.strip_prefix("inputs.")?.strip_suffix(".tokens")?;
            let (role, expert) = match name.split_once('.') {
                None => (name, None),
                Some((role, "shared")) => (role, Some(Expert::Shared)),
                Some((role, number)) => (role, Some(Expert::Routed(number.parse().ok()?))),
            };
            let role = ROLES.into_iter().find(|it| it.name() == role)?;
            Some((role, expert, name.to_owned()))
        })
        .collect()
}
