//! Scores as tensors, so that they can be put away and taken up again.
use super::{BlockScores, Tensors, Values};
use crate::{
    model::Expert,
    tensor::{Bytes, Dtype, RawTensor},
};
use ndarray::Array2;
use std::collections::BTreeMap;

impl BlockScores {
    /// Every number in float64.
    pub fn to_tensors(&self) -> Tensors {
        let mut tensors = Tensors::new();
        for (name, scores) in
            [("groups", &self.groups), ("heads", &self.heads), ("pairs", &self.pairs)]
        {
            tensors.insert(name.into(), raw(vec![scores.len()], scores));
        }
        for (expert, scores) in &self.mlp {
            tensors.insert(format!("mlp.{}", name(*expert)), raw(vec![scores.len()], scores));
        }
        for (expert, costs) in &self.costs {
            tensors.insert(format!("costs.{}", name(*expert)), raw(vec![costs.len()], costs));
        }
        for (side, energies) in self.norm_energies.iter().enumerate() {
            tensors.insert(format!("energies.{side}"), raw(vec![energies.len()], energies));
        }
        for (head, values) in self.values.iter().enumerate() {
            match values {
                Values::Channels(channels) => {
                    let channels: Vec<f64> = channels.iter().map(|it| *it as f64).collect();
                    let name = format!("channels.{head:04}");
                    tensors.insert(name, raw(vec![channels.len()], &channels));
                }
                Values::Map { down, up } => {
                    for (side, map) in [("down", down), ("up", up)] {
                        let values: Vec<f64> = map.iter().copied().collect();
                        let shape = map.shape().to_vec();
                        tensors.insert(format!("{side}.{head:04}"), raw(shape, &values));
                    }
                }
            }
        }
        tensors
    }

    /// The scores that [`Self::to_tensors`] was called on; `None` when something is missing.
    pub fn from_tensors(tensors: &Tensors) -> Option<Self> {
        let list = |name: &str| tensors.get(name).and_then(numbers);
        let mut scores = Self {
            groups: list("groups")?,
            heads: list("heads")?,
            pairs: list("pairs")?,
            ..Self::default()
        };
        for (key, tensor) in tensors {
            let (kind, rest) = key.split_once('.').unwrap_or((key, ""));
            match kind {
                "mlp" => place(&mut scores.mlp, rest, numbers(tensor)?)?,
                "costs" => place(&mut scores.costs, rest, numbers(tensor)?)?,
                "energies" => scores.norm_energies.push(numbers(tensor)?),
                "channels" => {
                    let channels = numbers(tensor)?.iter().map(|it| *it as usize).collect();
                    scores.values.push(Values::Channels(channels));
                }
                "down" => {
                    let (down, up) =
                        (matrix(tensor)?, matrix(tensors.get(&format!("up.{rest}"))?)?);
                    scores.values.push(Values::Map { down, up });
                }
                _ => {}
            }
        }
        Some(scores)
    }
}

fn name(expert: Option<Expert>) -> String {
    match expert {
        None => "dense".into(),
        Some(Expert::Shared) => "shared".into(),
        Some(Expert::Routed(e)) => e.to_string(),
    }
}

/// Puts scores where they belong; `None` when that is nowhere.
fn place(of: &mut BTreeMap<Option<Expert>, Vec<f64>>, name: &str, scores: Vec<f64>) -> Option<()> {
    let expert = match name {
        "dense" => None,
        "shared" => Some(Expert::Shared),
        number => Some(Expert::Routed(number.parse().ok()?)),
    };
    of.insert(expert, scores);
    Some(())
}

fn raw(shape: Vec<usize>, values: &[f64]) -> RawTensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    RawTensor { dtype: Dtype::F64, shape, bytes: Bytes::owned(bytes) }
}

fn numbers(raw: &RawTensor) -> Option<Vec<f64>> {
    let number = |bytes: &[u8; 8]| f64::from_le_bytes(*bytes);
    (raw.dtype == Dtype::F64).then(|| raw.bytes.as_chunks::<8>().0.iter().map(number).collect())
}

fn matrix(raw: &RawTensor) -> Option<Array2<f64>> {
    let &[rows, columns] = raw.shape.as_slice() else { return None };
    Array2::from_shape_vec((rows, columns), numbers(raw)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn scores_come_back_as_they_went() {
        let map = Values::Map { down: array![[1.0, -0.5]], up: array![[0.1], [1e-300]] };
        let scores = BlockScores {
            groups: vec![1.0, 2.0],
            heads: vec![0.5; 4],
            pairs: vec![0.25, 3.0],
            values: vec![map, Values::Channels(vec![1])],
            mlp: BTreeMap::from([
                (Some(Expert::Routed(11)), vec![1.0]),
                (Some(Expert::Shared), vec![2.0]),
            ]),
            costs: BTreeMap::from([(None, vec![7.0])]),
            norm_energies: vec![vec![1.0], vec![2.0]],
        };
        // Heads of one kind come back in their order; a block has one kind only.
        let mut tensors = scores.to_tensors();
        let back = BlockScores::from_tensors(&tensors).unwrap();
        assert_eq!(back.mlp, scores.mlp);
        assert_eq!(back.costs, scores.costs);
        assert_eq!(back.norm_energies, scores.norm_energies);
        assert_eq!(
            (back.groups, back.heads, back.pairs),
            (scores.groups, scores.heads, scores.pairs)
        );
        assert!(back.values.contains(&scores.values[0]) && back.values.contains(&scores.values[1]));
        tensors.remove("heads");
        assert_eq!(BlockScores::from_tensors(&tensors), None);
    }
}
