//! Streams one tensor at a time: bands of rows are read, quantized on all threads, written in
//! order, and let go. Bands and pieces depend on the shape alone, so the bytes do too.
use super::{
    PackageError,
    trust::{RowHash, row_hash, values_hash},
};
use crate::{
    checkpoint::{NonFinite, ShardWriter, TensorRecord, find_nonfinite, hex},
    linalg::Team,
    model::part_name,
    progress::Progress,
    quantize::rtn::{Rtn, replace_nonfinite},
    scheme::{PartKind, Rows, Stored, TensorScheme},
    tensor::RawTensor,
};
use sha2::{Digest, Sha256};

/// Bytes of a checkpoint that are in work at a time.
pub(crate) const BAND_BYTES: usize = 16 << 20;
/// Weights that one thread takes at a time.
pub(crate) const PIECE: usize = 256 << 10;

/// What streaming needs.
pub(super) struct Stream<'a> {
    pub(super) writer: &'a mut ShardWriter,
    pub(super) team: &'a Team,
    pub(super) progress: &'a dyn Progress,
    pub(super) allow_nonfinite: bool,
}

/// One piece of a band and where its results go.
struct Piece<'a> {
    bytes: &'a [u8],
    first_row: usize,
    scales: &'a mut [f32],
    zero_points: &'a mut [i8],
    codes: &'a mut Vec<u8>,
    values: &'a mut [RowHash],
    nonfinite: &'a mut Option<NonFinite>,
}

/// Where the scales, zero points and hashes of a band's rows go.
struct Grids<'a> {
    scales: &'a mut [f32],
    zeros: &'a mut [i8],
    values: &'a mut [RowHash],
}

enum Task<'a> {
    Hash(&'a mut Sha256, &'a [u8]),
    Quantize(Piece<'a>),
}

/// A weight and what it becomes.
#[derive(Clone, Copy)]
struct Target<'a> {
    name: &'a str,
    raw: &'a RawTensor,
    columns: usize,
    rtn: Rtn,
    stored: Stored,
}

impl Stream<'_> {
    /// Writes a tensor as it is.
    pub(super) fn copy(&mut self, name: &str, raw: &RawTensor) -> Result<(), PackageError> {
        let (row, rows) = row_bytes(raw);
        let band = (BAND_BYTES / 4 / row.max(1)).max(1);
        for first in (0..rows).step_by(band) {
            let last = (first + band).min(rows);
            let Some(bytes) = raw.bytes.slice(first * row..last * row) else { break };
            self.check(find_nonfinite(name, raw, &bytes, first))?;
            self.writer.write(name, bytes.to_vec())?;
            bytes.release();
            self.progress.advance(bytes.len() as u64);
        }
        Ok(())
    }

    /// Writes the parts of a weight on a grid; returns the hash of what was read, and that of the
    /// values which the codes stand for.
    pub(super) fn quantize(
        &mut self,
        name: &str,
        raw: &RawTensor,
        scheme: TensorScheme,
        rtn: Rtn,
    ) -> Result<(String, String), PackageError> {
        let shape = [raw.shape[0], raw.shape[1]];
        let [rows, columns] = shape;
        let groups = scheme.weights.groups(columns).unwrap_or(1);
        let mut scales = vec![0.0_f32; rows * groups];
        let mut zero_points =
            vec![0_i8; if scheme.weights.symmetric() { 0 } else { rows * groups }];
        let (grid, stored) = (scheme.weights, scheme.stored());
        let target = Target { name, raw, columns, rtn, stored };
        let (mut hash, mut values) = (Sha256::new(), vec![RowHash::default(); rows]);
        let (row, _) = row_bytes(raw);
        let band = (BAND_BYTES / row.max(1)).max(1);
        let parts = scheme.parts(shape).unwrap_or_default();
        let codes_name = part_name(name, parts.first().map_or("weight", |part| part.suffix));
        for first in (0..rows).step_by(band) {
            let last = (first + band).min(rows);
            let Some(bytes) = raw.bytes.slice(first * row..last * row) else { break };
            let here = first * groups..last * groups;
            let zeros = zero_points.get_mut(here.clone()).unwrap_or_default();
            let grid = Grids { scales: &mut scales[here], zeros, values: &mut values[first..last] };
            let pieces = self.band(target, first, &bytes, &mut hash, grid)?;
            for codes in pieces {
                self.writer.write(&codes_name, codes)?;
            }
            bytes.release();
            self.progress.advance(bytes.len() as u64);
        }
        for part in parts {
            let bytes = match part.kind {
                // Weights with outliers or static activations are rounded on text, not streamed.
                PartKind::Codes
                | PartKind::InputScale
                | PartKind::OutlierCodes
                | PartKind::OutlierScale
                | PartKind::OutlierColumns => continue,
                PartKind::Scale => grid.encode_scales(stored, &scales),
                PartKind::ZeroPoint => grid.encode_zero_points(stored, &zero_points, groups),
                PartKind::Shape => shape.iter().flat_map(|n| (*n as i64).to_le_bytes()).collect(),
            };
            self.writer.write(&part_name(name, part.suffix), bytes)?;
        }
        Ok((hex(&hash.finalize()), values_hash(&values)))
    }

    /// Quantizes the rows of a band; the bytes of their codes, in order.
    fn band(
        &self,
        target: Target<'_>,
        first_row: usize,
        bytes: &[u8],
        hash: &mut Sha256,
        grids: Grids<'_>,
    ) -> Result<Vec<Vec<u8>>, PackageError> {
        let Grids { mut scales, zeros: mut zero_points, mut values } = grids;
        let (row, _) = row_bytes(target.raw);
        let piece_rows = (PIECE / target.columns.max(1)).max(1);
        let groups = scales.len() / (bytes.len() / row.max(1)).max(1);
        let count = bytes.len().div_ceil((piece_rows * row).max(1));
        let mut codes = vec![Vec::new(); count];
        let mut found = vec![None; count];
        let mut tasks = vec![Task::Hash(hash, bytes)];
        let slots = codes.iter_mut().zip(&mut found);
        for (i, (bytes, (codes, nonfinite))) in
            bytes.chunks(piece_rows * row).zip(slots).enumerate()
        {
            let n = bytes.len() / row * groups;
            let (scales_here, rest) = std::mem::take(&mut scales).split_at_mut(n);
            scales = rest;
            let zeros = n.min(zero_points.len());
            let (zeros_here, rest) = std::mem::take(&mut zero_points).split_at_mut(zeros);
            zero_points = rest;
            let (values_here, rest) = std::mem::take(&mut values).split_at_mut(bytes.len() / row);
            values = rest;
            tasks.push(Task::Quantize(Piece {
                bytes,
                first_row: first_row + i * piece_rows,
                scales: scales_here,
                zero_points: zeros_here,
                codes,
                values: values_here,
                nonfinite,
            }));
        }
        let keep = self.allow_nonfinite;
        self.team.each(tasks, |_, task| match task {
            Task::Hash(hash, bytes) => hash.update(bytes),
            Task::Quantize(piece) => target.piece(piece, keep),
        });
        self.check(found.into_iter().flatten().next())?;
        Ok(codes)
    }

    /// Refuses numbers that are not finite, unless they are allowed.
    fn check(&self, found: Option<NonFinite>) -> Result<(), PackageError> {
        match found {
            Some(found) if self.allow_nonfinite => {
                tracing::warn!("{found}");
                Ok(())
            }
            Some(found) => Err(PackageError::NonFinite(found)),
            None => Ok(()),
        }
    }
}

impl Target<'_> {
    fn piece(self, piece: Piece<'_>, keep_nonfinite: bool) {
        let Some(float) = self.raw.float_type() else { return };
        *piece.nonfinite = find_nonfinite(self.name, self.raw, piece.bytes, piece.first_row);
        if piece.nonfinite.is_some() && !keep_nonfinite {
            return;
        }
        let mut values = vec![0.0; piece.bytes.len() / float.size()];
        float.decode(piece.bytes, &mut values);
        if piece.nonfinite.is_some() {
            replace_nonfinite(&mut values, self.columns);
        }
        let mut codes = vec![0_i8; values.len()];
        let Piece { scales, zero_points, .. } = piece;
        let rows = Rows { codes: &mut codes, scales, zero_points };
        self.rtn.rows(&values, self.columns, rows);
        self.rtn.grid.encode_codes(self.stored, &codes, self.columns, piece.codes);
        let groups = scales.len() / piece.values.len().max(1);
        let rows = codes.chunks(self.columns.max(1)).zip(values.chunks_mut(self.columns.max(1)));
        for (i, ((codes, values), hash)) in rows.zip(piece.values).enumerate() {
            let here = i * groups..(i + 1) * groups;
            let zero_points = zero_points.get(here.clone()).unwrap_or_default();
            let integers = self.rtn.grid.integers();
            integers.dequantize_row((codes, &scales[here], zero_points), values);
            *hash = row_hash(values);
        }
    }
}

/// Bytes of one row (all inner axes) and number of rows.
fn row_bytes(raw: &RawTensor) -> (usize, usize) {
    let rows = raw.shape.first().copied().unwrap_or(1);
    (raw.bytes.len() / rows.max(1), rows)
}

/// The source's hash: over its tensors, whatever files they lie in.
pub(super) fn source_hash<'a>(
    tensors: impl Iterator<Item = (&'a String, &'a RawTensor, &'a str)>,
) -> String {
    let mut hash = Sha256::new();
    for (name, raw, sha256) in tensors {
        hash.update(format!("{name} {} {:?} {sha256}\n", raw.dtype, raw.shape));
    }
    hex(&hash.finalize())
}

/// Hash of a tensor that was written as it is.
pub(super) fn copied_hash(record: Option<&TensorRecord>) -> String {
    record.map(|record| record.sha256.clone()).unwrap_or_default()
}
