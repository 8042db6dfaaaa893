//! Where activations stopped being finite.
use super::tap::{Site, Tap};
use crate::model::{ModelSpec, Part, Role};
use ndarray::ArrayView2;

/// Finds the first place in a block with activations that are NaN or infinite: a tap for a second
/// run over a window whose stream came out so.
#[derive(Debug)]
pub struct Fault<'a> {
    spec: &'a ModelSpec,
    block: usize,
    first: Option<Site>,
}

impl<'a> Fault<'a> {
    /// Nothing found yet in block `block`.
    pub fn new(spec: &'a ModelSpec, block: usize) -> Self {
        Self { spec, block, first: None }
    }

    /// Names of the weights that made the first such activations, for people.
    pub fn layer(&self) -> String {
        let roles: &[Role] = match self.first {
            Some(Site::Input(Role::Q, _)) => &[Role::AttnNorm],
            Some(Site::Queries) => &[Role::Q],
            Some(Site::Keys) => &[Role::K],
            Some(Site::Input(Role::O, _)) => &[Role::V],
            Some(Site::Input(Role::Gate | Role::Router, _)) => &[Role::MlpNorm],
            Some(Site::Input(Role::Down, _)) => &[Role::Gate, Role::Up],
            Some(Site::Output(Role::Down)) => &[Role::Down],
            Some(Site::Output(_)) => &[Role::O],
            Some(Site::Input(..)) => return "the residual stream".to_owned(),
            None => return self.before(),
        };
        let expert = match self.first {
            Some(Site::Input(Role::Down, expert)) => Some(expert),
            _ => None,
        };
        let made = self.spec.tensors.iter().filter(|it| {
            let here = it.block == Some(self.block) && it.part == Part::Weight;
            here && roles.contains(&it.role) && expert.is_none_or(|expert| it.expert == expert)
        });
        named(made.map(|it| it.name.as_str()).collect())
    }

    /// What makes the stream that enters the block.
    fn before(&self) -> String {
        let embedding = self.spec.find(None, Role::Embed, None, Part::Weight);
        let embedding = embedding.filter(|_| self.block == 0);
        named(embedding.map(|it| it.name.as_str()).into_iter().collect())
    }
}

impl Tap for Fault<'_> {
    fn see(&mut self, site: Site, x: ArrayView2<'_, f32>) {
        if self.first.is_none() && x.iter().any(|x| !x.is_finite()) {
            self.first = Some(site);
        }
    }
}

fn named(names: Vec<&str>) -> String {
    match names.as_slice() {
        [] => "the residual stream".to_owned(),
        [one] => format!("`{one}`"),
        [one, other] => format!("`{one}` or `{other}`"),
        [one, rest @ ..] => format!("`{one}` or one of {} like it", rest.len()),
    }
}
