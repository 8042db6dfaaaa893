//! What the codes of a weight stand for, as one hash: it tells whether two files hold the same
//! weights whatever form they lie in, and whether a reader decodes as the writer did.
use crate::{linalg::Team, model::Weight, tensor::hex};
use sha2::{Digest, Sha256};

/// SHA-256 of one row.
pub(in crate::package) type RowHash = [u8; 32];

/// SHA-256 of a row's values, little-endian float32.
pub(in crate::package) fn row_hash(values: &[f32]) -> RowHash {
    let mut hash = Sha256::new();
    let mut bytes = [0_u8; 4096];
    for values in values.chunks(bytes.len() / 4) {
        for (to, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *to = value.to_le_bytes();
        }
        hash.update(&bytes[..values.len() * 4]);
    }
    hash.finalize().into()
}

/// The hash of a weight: SHA-256 over the hashes of its rows, in order. Rows can be hashed at the
/// same time.
pub(in crate::package) fn values_hash(rows: &[RowHash]) -> String {
    hex(&Sha256::digest(rows.as_flattened()))
}

/// The hash of a weight that was decoded.
pub(in crate::package) fn weight_hash(weight: &Weight, team: &Team) -> String {
    let [rows, columns] = match weight.shape() {
        [rows, columns] => [*rows, *columns],
        other => [1, other.iter().product()],
    };
    let mut hashes = vec![RowHash::default(); rows];
    let per_task = ((1 << 18) / columns.max(1)).max(1);
    let tasks = hashes.chunks_mut(per_task).enumerate().collect();
    team.each(tasks, |_, (i, hashes)| {
        let mut values = vec![0.0; columns];
        for (row, hash) in hashes.iter_mut().enumerate() {
            weight.row(i * per_task + row, &mut values);
            *hash = row_hash(&values);
        }
    });
    values_hash(&hashes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Input,
        scheme::{Granularity, IntScheme, QTensor},
        tensor::{RawTensor, sha256},
    };

    /// Two rows by hand; the same as a dense weight; another at any number of threads only where a
    /// code differs.
    #[test]
    fn a_weight_is_the_hash_of_the_hashes_of_its_rows() {
        let scheme = IntScheme { bits: 4, symmetric: true, granularity: Granularity::Group(2) };
        let weight = |code| Weight::Quantized {
            tensor: QTensor {
                scheme,
                shape: [2, 4],
                codes: vec![1, -2, 3, 4, -8, 7, 0, code],
                scales: vec![0.5, 2.0, 1.0, 0.25],
                zero_points: vec![],
            },
            activations: Input::Float,
        };
        let rows = [[0.5_f32, -1.0, 6.0, 8.0], [-8.0, 7.0, 0.0, 1.25]];
        let bytes = |row: [f32; 4]| row.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let both: Vec<u8> = rows.iter().flat_map(|row| Sha256::digest(bytes(*row))).collect();
        let by_hand = sha256(&both);
        assert_eq!(weight_hash(&weight(5), &Team::new(1)), by_hand);
        assert_eq!(weight_hash(&weight(5), &Team::new(3)), by_hand);
        assert_ne!(weight_hash(&weight(4), &Team::new(1)), by_hand);
        let dense = Weight::Dense(RawTensor::from_f32(vec![2, 4], rows.as_flattened()));
        assert_eq!(weight_hash(&dense, &Team::new(1)), by_hand);
    }

    /// Rows longer than the buffer are hashed whole.
    #[test]
    fn a_long_row() {
        let values: Vec<f32> = (0..5000).map(|i| i as f32 * 0.1).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(hex(&row_hash(&values)), sha256(&bytes));
        assert_ne!(row_hash(&values[1..]), row_hash(&values));
    }
}
