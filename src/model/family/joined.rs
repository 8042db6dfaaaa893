//! Experts that one tensor holds.
use crate::model::{
    role::Role,
    space::Expert,
    spec::{Mlp, ModelSpec, Part, TensorSpec},
};

/// A stored tensor whose bytes are those of several weights, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The weights with their shapes, in order.
    pub parts: Vec<(String, Vec<usize>)>,
}

/// Names inside a block that transformers 5 gives to the stacks of all families, and to the router
/// beside them.
const GATE_UP: &str = "mlp.experts.gate_up_proj";
const DOWN: &str = "mlp.experts.down_proj";
const ROUTER: &str = "mlp.gate.weight";

impl ModelSpec {
    /// The tensors that the experts of a block may be stored in instead of one for each weight:
    /// gates above ups `[experts, 2 · width, hidden]`, downs `[experts, hidden, width]`, and the
    /// router, which has this name where its own may be another. Empty without experts.
    pub fn joined(&self, block: usize) -> Vec<Joined> {
        let Some(Mlp::Experts { count, .. }) = self.blocks.get(block).map(|it| &it.mlp) else {
            return Vec::new();
        };
        let expert = |e, role| self.find(Some(block), role, Some(Expert::Routed(e)), Part::Weight);
        let both = (0..*count).flat_map(|e| [Role::Gate, Role::Up].map(|role| expert(e, role)));
        let downs = (0..*count).map(|e| expert(e, Role::Down));
        let router = self.find(Some(block), Role::Router, None, Part::Weight);
        let parts = |tensors: Vec<&TensorSpec>| -> Vec<(String, Vec<usize>)> {
            tensors.into_iter().map(|it| (it.name.clone(), self.shape(it))).collect()
        };
        let at = |name: &str| format!("model.layers.{block}.{name}");
        let stack = |name: &str, parts: Vec<(String, Vec<usize>)>| {
            let rows: usize = parts.iter().map(|(_, shape)| shape[0]).sum();
            let columns = parts.first().map_or(0, |(_, shape)| shape[1]);
            Joined { name: at(name), shape: vec![*count, rows / count, columns], parts }
        };
        let mut all = vec![
            stack(GATE_UP, parts(both.flatten().collect())),
            stack(DOWN, parts(downs.flatten().collect())),
        ];
        all.extend(router.map(|it| {
            let (name, parts) = (at(ROUTER), parts(vec![it]));
            Joined { name, shape: self.shape(it), parts }
        }));
        all
    }
}
