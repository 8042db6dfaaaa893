//! Products with weights, norms, and how inputs are rounded.
use super::{
    graph::{Builder, MATMUL_NBITS},
    names::head_of,
    proto::{AttributeProto, DataType},
    stored::{Piece, Source},
};
use crate::{
    model::{Expert, Input, Part, Role, TensorSpec, Weight, WeightError},
    package::format::GraphForm,
    scheme::{Granularity, IntScheme, SplitTensor},
    tensor::FloatType,
};

/// Which weight: block and expert.
pub(super) type Place = (Option<usize>, Option<Expert>);

/// One grid of a weight.
#[derive(Clone, Copy)]
struct Grid<'n> {
    /// Put before `codes`, `scale` and `zero_point`.
    prefix: &'n str,
    scheme: IntScheme,
    /// `[out, in]`.
    shape: [usize; 2],
    piece: Piece,
}

impl<'a> Builder<'a> {
    pub(super) fn find(&self, place: Place, role: Role, part: Part) -> Option<&'a TensorSpec> {
        self.model.spec.find(place.0, role, place.1, part)
    }

    /// `x·Wᵀ + b`.
    pub(super) fn linear(
        &mut self,
        x: &str,
        (place, role): (Place, Role),
        label: &str,
    ) -> Result<String, WeightError> {
        let missing = || WeightError::Missing { name: format!("{role:?}").to_lowercase() };
        let weight = self.find(place, role, Part::Weight).ok_or_else(missing)?;
        let y = self.product(x, weight, label)?;
        let Some(bias) = self.find(place, role, Part::Bias) else { return Ok(y) };
        let bias = self.vector(bias);
        Ok(self.node("Add", &[&y, &bias], &format!("{label}.biased")))
    }

    /// `x·Wᵀ`. Matrices are stored as `[in, out]`, except the embedding.
    fn product(
        &mut self,
        x: &str,
        weight: &'a TensorSpec,
        label: &str,
    ) -> Result<String, WeightError> {
        let product = format!("{label}.product");
        let weights = &self.model.weights;
        let activations = weights.input(&weight.name)?;
        if self.form.fixed().is_some() {
            return Ok(self.fixed_product(x, weight, label));
        }
        if weight.role == Role::Embed {
            let matrix = self.tied_head(weight, label);
            let x =
                if self.form == GraphForm::Qdq { self.rounded(x, activations) } else { x.into() };
            return Ok(self.node("MatMul", &[&x, &matrix], &product));
        }
        if self.form == GraphForm::Float {
            if let Input::Int8Static(scale) = activations {
                self.input_grid(x, scale);
            }
            let matrix = self.matrix(weight, true);
            return Ok(self.node("MatMul", &[x, &matrix], &product));
        }
        let split = weights.quantized.get(&weight.name).is_some_and(|(it, _)| it.outliers > 0);
        if split && let Weight::Split { tensor, .. } = weights.get(&weight.name)? {
            return Ok(self.split_product(x, weight, (&tensor, activations), label));
        }
        let x = self.rounded(x, activations);
        let matrix = self.matrix(weight, true);
        Ok(self.node("MatMul", &[&x, &matrix], &product))
    }

    /// The rows of a table by their numbers `[batch, tokens]`. Engines make numbers of a whole table of codes
    /// for each run of the graph; so codes and scales are looked up, and multiplied behind that.
    pub(super) fn lookup(&mut self, table: &'a TensorSpec, ids: &str, label: &str) -> String {
        let Some(grid) = self.row_grid(table) else {
            let rows = self.matrix(table, false);
            return self.gather((&rows, 0), ids, label);
        };
        let (codes, scale) = self.stored_codes(table, grid, false);
        let codes = self.gather((&codes, 0), ids, &format!("{label}.codes"));
        let codes = self.node_with("Cast", &[&codes], &format!("{label}.steps"), vec![to_float()]);
        let scale = self.gather((&scale, 0), ids, &format!("{label}.scales"));
        let last = self.ints(&[-1]);
        let scale = self.node("Unsqueeze", &[&scale, &last], &format!("{label}.scale"));
        self.node("Mul", &[&codes, &scale], label)
    }

    /// The table as a head, `[in, out]`: of codes, and beside encodings, a copy of its own, since a table that is
    /// looked up is not what engines multiply by.
    fn tied_head(&mut self, table: &'a TensorSpec, label: &str) -> String {
        let Some(grid) = self.row_grid(table) else {
            let weights = &self.model.weights;
            let encoded = !(weights.quantized.is_empty() && weights.activations.is_empty());
            if self.form == GraphForm::Float && encoded {
                return self.matrix(table, true);
            }
            let rows = self.matrix(table, false);
            return self.transpose(&rows, &[1, 0], &format!("{label}.weight"));
        };
        let prefix = head_of(&table.name);
        self.dequantized(table, Grid { prefix: &prefix, ..grid }, true)
    }

    /// The grid of a weight that has one alone, in a graph of codes.
    fn grid(&self, weight: &'a TensorSpec) -> Option<Grid<'a>> {
        let (scheme, shape) = self.model.weights.quantized.get(&weight.name)?;
        (scheme.outliers == 0 && self.form == GraphForm::Qdq).then(|| Grid {
            prefix: &weight.name,
            scheme: scheme.weights.integers(),
            shape: *shape,
            piece: Piece::Base,
        })
    }

    /// That of a table, where it is int8 with a scale per row.
    fn row_grid(&self, table: &'a TensorSpec) -> Option<Grid<'a>> {
        let rows = IntScheme { bits: 8, symmetric: true, granularity: Granularity::Channel };
        self.grid(table).filter(|grid| grid.scheme == rows)
    }

    /// Notes the static scale of a product's input; the largest of those that see the same.
    fn input_grid(&mut self, x: &str, scale: f32) {
        let known = self.input_scales.entry(x.to_owned()).or_insert(scale);
        *known = known.max(scale);
    }

    /// The sum of the products of both grids with their columns of `x`.
    fn split_product(
        &mut self,
        x: &str,
        weight: &'a TensorSpec,
        (tensor, activations): (&SplitTensor, Input),
        label: &str,
    ) -> String {
        let order = tensor.columns.order();
        let (base, outliers) = order.split_at(tensor.columns.base());
        let mut sum = Vec::new();
        for (piece, places, part) in
            [(Piece::Base, base, &tensor.base), (Piece::Outliers, outliers, &tensor.outliers)]
        {
            let end = if piece == Piece::Base { "base" } else { "outliers" };
            let prefix = format!("{}.{end}", weight.name);
            let bytes = places.iter().flat_map(|at| (*at as i64).to_le_bytes()).collect();
            let columns = self.store(
                format!("{prefix}.columns"),
                DataType::Int64,
                vec![places.len()],
                Source::Bytes(bytes),
            );
            let seen = self.gather((x, -1), &columns, &format!("{label}.{end}.input"));
            let seen = self.rounded(&seen, activations);
            let grid = Grid { prefix: &prefix, scheme: part.scheme, shape: part.shape, piece };
            let matrix = self.dequantized(weight, grid, true);
            sum.push(self.node("MatMul", &[&seen, &matrix], &format!("{label}.{end}")));
        }
        self.node("Add", &[&sum[0], &sum[1]], &format!("{label}.product"))
    }

    /// A matrix in float32: stored so, converted, or made of its codes.
    pub(super) fn matrix(&mut self, weight: &'a TensorSpec, turned: bool) -> String {
        let mut shape = self.model.spec.shape(weight);
        let quantized = self.model.weights.quantized.get(&weight.name);
        if let Some(grid) = self.grid(weight) {
            return self.dequantized(weight, grid, turned);
        }
        if turned {
            shape.reverse();
        }
        // The numbers of codes are float32, but where an NPU computes in float16 anyway.
        let exact = quantized.is_some() && self.form.fixed().is_none();
        let (kind, float) = match self.float {
            FloatType::F16 if !exact => (DataType::Float16, FloatType::F16),
            FloatType::Bf16 if !exact => (DataType::Bfloat16, FloatType::Bf16),
            _ => (DataType::Float, FloatType::F32),
        };
        let source = Source::Values { name: &weight.name, turned, float };
        let own = turned && weight.role == Role::Embed;
        let name = if own { head_of(&weight.name) } else { weight.name.clone() };
        let stored = self.store(name, kind, shape, source);
        let name = format!("{stored}.float");
        if kind == DataType::Float {
            return stored;
        }
        if self.first(&name) {
            self.push("Cast", &[&stored], &[&name], vec![to_float()]);
        }
        name
    }

    /// Codes, scales and zero points, and the node that makes numbers of them.
    fn dequantized(&mut self, weight: &'a TensorSpec, grid: Grid<'_>, turned: bool) -> String {
        let Grid { prefix, scheme, shape: [_, columns], piece } = grid;
        let blocks = matches!(scheme.granularity, Granularity::Group(_));
        let (codes, scale) = self.stored_codes(weight, grid, turned);
        let mut inputs = vec![codes, scale];
        if !scheme.symmetric {
            let name = weight.name.as_str();
            let zeros = Source::ZeroPoints { name, piece, turned };
            let (kind, shape) = (DataType::of_codes(scheme.bits), parameters(grid, turned));
            inputs.push(self.store(format!("{prefix}.zero_point"), kind, shape, zeros));
        }
        // Blocks lie along the inputs, channels along the outputs.
        let axis = i64::from(turned != blocks);
        let mut settings = vec![AttributeProto::int("axis", axis)];
        if blocks {
            settings.push(AttributeProto::int("block_size", scheme.group_size(columns) as i64));
        }
        let made = prefix.to_owned();
        if self.first(&made) {
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            self.push("DequantizeLinear", &inputs, &[&made], settings);
        }
        made
    }

    /// The codes and scales of a grid.
    fn stored_codes(
        &mut self,
        weight: &'a TensorSpec,
        grid: Grid<'_>,
        turned: bool,
    ) -> (String, String) {
        let Grid { prefix, scheme, shape: [out, columns], piece } = grid;
        let (name, kind) = (weight.name.as_str(), DataType::of_codes(scheme.bits));
        let shape = if turned { vec![columns, out] } else { vec![out, columns] };
        let codes = Source::Codes { name, piece, turned };
        let codes = self.store(format!("{prefix}.codes"), kind, shape, codes);
        let scales = Source::Scales { name, piece, turned };
        let shape = parameters(grid, turned);
        let scale = self.store(format!("{prefix}.scale"), DataType::Float, shape, scales);
        (codes, scale)
    }

    /// A gain or bias in float32.
    pub(super) fn vector(&mut self, tensor: &'a TensorSpec) -> String {
        let shape = self.model.spec.shape(tensor);
        let source = Source::Values { name: &tensor.name, turned: false, float: FloatType::F32 };
        self.store(tensor.name.clone(), DataType::Float, shape, source)
    }

    /// How a product sees its input; only in a graph of codes.
    fn rounded(&mut self, x: &str, activations: Input) -> String {
        match activations {
            Input::Float => x.to_owned(),
            Input::Int8PerToken => self.per_token(x),
            Input::Int8Static(scale) => {
                let scale_name = self.number(scale);
                let name = format!("{x}.{scale:e}");
                if self.first(&name) {
                    // The codes -128 to 127; engines have integer products for unsigned ones.
                    let zero = Source::Bytes(vec![128]);
                    let zero = self.store("zero.u8.128".into(), DataType::Uint8, vec![], zero);
                    self.round_trip(x, &name, (&scale_name, &zero));
                }
                format!("{name}.rounded")
            }
        }
    }

    /// Rounded to int8 with the scale `max|x| / 127` of each token.
    fn per_token(&mut self, x: &str) -> String {
        let rounded = format!("{x}.per-token");
        if !self.first(&rounded) {
            return rounded;
        }
        let scope = std::mem::take(&mut self.scope);
        let size = self.node("Abs", &[x], &format!("{x}.size"));
        let largest = self.reduce("ReduceMax", &size, &format!("{x}.largest"));
        let (last, least) = (self.number(127.0), self.number(f32::MIN_POSITIVE));
        let scale = self.node("Div", &[&largest, &last], &format!("{x}.step"));
        // A token of zeros would be divided by 0.
        let scale = self.node("Max", &[&scale, &least], &format!("{x}.scale"));
        let codes = self.node("Div", &[x, &scale], &format!("{x}.steps"));
        let codes = self.node("Round", &[&codes], &format!("{x}.codes"));
        self.push("Mul", &[&codes, &scale], &[&rounded], Vec::new());
        self.scope = scope;
        rounded
    }

    /// What a norm multiplies by.
    fn gain(&mut self, gain: &'a TensorSpec, label: &str) -> String {
        let gain = self.vector(gain);
        if self.model.spec.gain_offset == 0.0 {
            return gain;
        }
        let offset = self.number(self.model.spec.gain_offset);
        self.node("Add", &[&gain, &offset], &format!("{label}.gain"))
    }

    /// `x / √(mean(x²) + ε) · gain` over the last axis.
    pub(super) fn norm(&mut self, x: &str, gain: &'a TensorSpec, label: &str) -> String {
        if self.form.fixed().is_some() {
            let gain = self.gain(gain, label);
            let epsilon = AttributeProto::float("epsilon", self.model.spec.norm_eps);
            let settings = vec![AttributeProto::int("axis", -1), epsilon];
            return self.node_with("RMSNormalization", &[x, &gain], label, settings);
        }
        let named = |end: &str| format!("{label}.{end}");
        let square = self.node("Mul", &[x, x], &named("square"));
        let mean = self.reduce("ReduceMean", &square, &named("mean"));
        let eps = self.number(self.model.spec.norm_eps);
        let sum = self.node("Add", &[&mean, &eps], &named("sum"));
        let root = self.node("Sqrt", &[&sum], &named("root"));
        let unit = self.node("Div", &[x, &root], &named("unit"));
        let gain = self.gain(gain, label);
        self.node("Mul", &[&unit, &gain], label)
    }

    /// A product of fixed shapes: of codes as `MatMulNBits`, whose blocks a row's scale is repeated for.
    fn fixed_product(&mut self, x: &str, weight: &'a TensorSpec, label: &str) -> String {
        let (product, name) = (format!("{label}.product"), weight.name.as_str());
        let Some((scheme, [out, columns])) = self.model.weights.quantized.get(name) else {
            let matrix = self.matrix(weight, true);
            return self.node("MatMul", &[x, &matrix], &product);
        };
        let IntScheme { bits, granularity, .. } = scheme.weights.integers();
        let (block, times) = match granularity {
            Granularity::Group(size) => (size, 1),
            Granularity::Channel => {
                let block = block_of(*columns);
                (block, columns / block)
            }
        };
        let (groups, bytes) = (columns / block, block * bits as usize / 8);
        let codes = Source::Unsigned { name };
        let shape = vec![*out, groups, bytes];
        let codes = self.store(format!("{name}.blocks"), DataType::Uint8, shape, codes);
        let scales = Source::Repeated { name, times };
        let shape = vec![*out, groups];
        let scales = self.store(format!("{name}.block_scales"), DataType::Float, shape, scales);
        let number = |name, value: usize| AttributeProto::int(name, value as i64);
        let settings = vec![
            number("K", *columns),
            number("N", *out),
            number("bits", bits as usize),
            number("block_size", block),
            number("accuracy_level", 1),
        ];
        self.node_with(MATMUL_NBITS, &[x, &codes, &scales], &product, settings)
    }

    /// Rows multiplied by the Hadamard matrix of their width.
    pub(super) fn hadamard(&mut self, x: &str, width: usize, label: &str) -> String {
        let name = format!("hadamard.{width}");
        let matrix = self.store(name, DataType::Float, vec![width, width], Source::Hadamard(width));
        self.node("MatMul", &[x, &matrix], label)
    }
}

/// The shape of the scales of a grid: `[out]`, or one for each block.
fn parameters(grid: Grid<'_>, turned: bool) -> Vec<usize> {
    let Grid { scheme, shape: [out, columns], .. } = grid;
    let groups = scheme.groups(columns).unwrap_or(1);
    match scheme.granularity {
        Granularity::Channel => vec![out],
        Granularity::Group(_) if turned => vec![groups, out],
        Granularity::Group(_) => vec![out, groups],
    }
}

/// The setting of a `Cast` to float32.
fn to_float() -> AttributeProto {
    AttributeProto::int("to", i64::from(DataType::Float.id()))
}

/// The largest block of `MatMulNBits` that divides the columns.
pub(super) fn block_of(columns: usize) -> usize {
    BLOCKS.into_iter().rev().find(|block| columns.is_multiple_of(*block)).unwrap_or(columns)
}

/// Blocks that `MatMulNBits` has.
pub(super) const BLOCKS: [usize; 5] = [16, 32, 64, 128, 256];
