//! Hadamard matrices of order `K·2^m`, made from Paley's constructions and Kronecker products.
//!
//! Sources: R. Paley, *On orthogonal matrices* (1933); Sylvester (1867) for powers of two. No
//! table is stored: the quadratic residues of a finite field give the matrix of order K.
use super::{
    LinalgError,
    elementwise::vectorized,
    residues::{character, prime_power, subtract},
};
use ndarray::{Array2, NdFloat};

/// Widest dense part K: K² numbers are held.
const WIDEST: usize = 2048;

/// An orthogonal matrix `H = (A ⊗ W)/√n` of order `n = K·2^m`: A of order K with entries ±1, W the
/// Walsh–Hadamard matrix of order 2^m. Where no construction gives such an A, A is the cosine
/// transform of the odd part of n: orthogonal still, but not flat.
#[derive(Clone, Debug)]
pub struct Hadamard {
    order: usize,
    part: usize,
    kind: Construction,
    /// `[K, K]`, row-major, rows of norm √K.
    dense: Vec<f64>,
    /// The same in float32.
    dense32: Vec<f32>,
}

/// Where the dense part comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Construction {
    /// A power of two has none.
    Walsh,
    /// Paley's first, over a field of `q ≡ 3 mod 4` elements: order q + 1.
    First(usize),
    /// Paley's second, over a field of `q ≡ 1 mod 4` elements: order 2(q + 1).
    Second(usize),
    /// Kronecker product.
    Product(Box<Self>, Box<Self>),
    /// The cosine transform of an odd order.
    Cosine(usize),
}

impl Hadamard {
    /// The matrix of order `n`, the one with the smallest dense part.
    ///
    /// # Errors
    /// [`LinalgError::Order`] for 0 and where the dense part would be wider than 2048.
    pub fn new(n: usize) -> Result<Self, LinalgError> {
        let kind = Construction::choose(n).ok_or(LinalgError::Order { order: n })?;
        let dense = kind.matrix();
        let (part, dense) = (dense.nrows(), dense.into_iter().collect::<Vec<f64>>());
        let dense32 = dense.iter().map(|x| *x as f32).collect();
        Ok(Self { order: n, part, kind, dense, dense32 })
    }

    /// Whether there is a matrix of order `n`.
    pub fn exists(n: usize) -> bool {
        Construction::choose(n).is_some()
    }

    /// Its order n.
    pub fn order(&self) -> usize {
        self.order
    }

    /// Whether all entries are ±1/√n.
    pub fn is_flat(&self) -> bool {
        !matches!(self.kind, Construction::Cosine(_))
    }

    /// How it is made, e.g. `paley-1(343) ⊗ walsh(32)`.
    pub fn name(&self) -> String {
        match (&self.kind, self.order / self.part) {
            (Construction::Walsh, _) => format!("walsh({})", self.order),
            (kind, 1) => kind.name(),
            (kind, walsh) => format!("{} ⊗ walsh({walsh})", kind.name()),
        }
    }

    /// `x ← H·x`, float32, in a fixed order of operations.
    ///
    /// # Panics
    /// When `x` has another length than the order.
    pub fn apply(&self, x: &mut [f32]) {
        assert_eq!(x.len(), self.order, "order of a Hadamard matrix");
        transform_f32(&self.dense32, self.part, x);
    }

    /// `x ← H·x` in float64.
    ///
    /// # Panics
    /// When `x` has another length than the order.
    pub fn apply_f64(&self, x: &mut [f64]) {
        assert_eq!(x.len(), self.order, "order of a Hadamard matrix");
        transform(&self.dense, self.part, x);
    }
}

vectorized! {
    fn transform_f32<'a>(dense: &'a [f32], part: usize, x: &'a mut [f32]) {
        transform(dense, part, x);
    }
}

/// `x ← (A ⊗ W)·x / √n` with A `[part, part]`.
#[inline(always)]
fn transform<T: NdFloat>(dense: &[T], part: usize, x: &mut [T]) {
    let (order, walsh) = (x.len(), x.len() / part);
    let number = |value: f64| T::from(value).unwrap_or_else(T::zero);
    let scale = number(1.0 / (order as f64).sqrt());
    for block in x.chunks_exact_mut(walsh) {
        let mut half = 1;
        while half < walsh {
            for pair in block.chunks_exact_mut(2 * half) {
                let (left, right) = pair.split_at_mut(half);
                for (a, b) in left.iter_mut().zip(right) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
    }
    if part == 1 {
        scaled(x, scale);
        return;
    }
    let before = x.to_vec();
    for (row, out) in dense.chunks_exact(part).zip(x.chunks_exact_mut(walsh)) {
        out.fill(T::zero());
        for (entry, block) in row.iter().zip(before.chunks_exact(walsh)) {
            for (out, x) in out.iter_mut().zip(block) {
                *out += *entry * *x;
            }
        }
        scaled(out, scale);
    }
}

#[inline(always)]
fn scaled<T: NdFloat>(x: &mut [T], scale: T) {
    for x in x {
        *x *= scale;
    }
}

impl Construction {
    /// The dense part of a matrix of order `n`.
    fn choose(n: usize) -> Option<Self> {
        if n == 0 || n.is_power_of_two() {
            return (n > 0).then_some(Self::Walsh);
        }
        let odd = n >> n.trailing_zeros();
        let parts = (2..=n.trailing_zeros()).map(|shift| odd << shift);
        let covered = parts.take_while(|part| *part <= WIDEST).find_map(Self::of);
        covered.or((odd <= WIDEST).then_some(Self::Cosine(odd)))
    }

    /// How a matrix of order `k`, a multiple of 4, can be made.
    fn of(k: usize) -> Option<Self> {
        let field = |q: usize, rest: usize| q % 4 == rest && prime_power(q).is_some();
        if field(k - 1, 3) {
            return Some(Self::First(k - 1));
        }
        if k.is_multiple_of(2) && field(k / 2 - 1, 1) {
            return Some(Self::Second(k / 2 - 1));
        }
        let factors = (4..).step_by(4).take_while(|a| a * a <= k);
        let factors = factors.filter(|a| k.is_multiple_of(4 * a)).map(|a| (a, k / a));
        let product = |(a, b)| Some(Self::Product(Box::new(Self::of(a)?), Box::new(Self::of(b)?)));
        { factors }.find_map(product)
    }

    fn name(&self) -> String {
        match self {
            Self::Walsh => "walsh(1)".into(),
            Self::First(q) => format!("paley-1({q})"),
            Self::Second(q) => format!("paley-2({q})"),
            Self::Product(a, b) => format!("{} ⊗ {}", a.name(), b.name()),
            Self::Cosine(k) => format!("cosine({k})"),
        }
    }

    /// Its matrix, rows of norm √K.
    fn matrix(&self) -> Array2<f64> {
        match self {
            Self::Walsh => Array2::ones((1, 1)),
            Self::First(q) => first(*q),
            Self::Second(q) => second(*q),
            Self::Product(a, b) => {
                let (a, b) = (a.matrix(), b.matrix());
                let (n, m) = (a.nrows(), b.nrows());
                Array2::from_shape_fn((n * m, n * m), |(i, j)| {
                    a[[i / m, j / m]] * b[[i % m, j % m]]
                })
            }
            Self::Cosine(k) => cosine(*k),
        }
    }
}

/// Paley's first: `I + S` with S the skew matrix of quadratic residues, bordered by ones.
fn first(q: usize) -> Array2<f64> {
    let core = core(q);
    Array2::from_shape_fn((q + 1, q + 1), |(i, j)| match (i, j) {
        (0, _) => 1.0,
        (_, 0) => -1.0,
        (i, j) if i == j => 1.0,
        (i, j) => core[[i - 1, j - 1]],
    })
}

/// Paley's second: the symmetric conference matrix C of order q + 1, its entries made 2 × 2.
fn second(q: usize) -> Array2<f64> {
    let core = core(q);
    let conference = |i: usize, j: usize| match (i, j) {
        _ if i == j => 0.0,
        (0, _) | (_, 0) => 1.0,
        _ => core[[i - 1, j - 1]],
    };
    Array2::from_shape_fn((2 * (q + 1), 2 * (q + 1)), |(i, j)| {
        let entry = conference(i / 2, j / 2);
        match (i % 2, j % 2) {
            (0, 0) => {
                if entry == 0.0 {
                    1.0
                } else {
                    entry
                }
            }
            (1, 1) => {
                if entry == 0.0 {
                    -1.0
                } else {
                    -entry
                }
            }
            _ => {
                if entry == 0.0 {
                    -1.0
                } else {
                    entry
                }
            }
        }
    })
}

/// `χ(i − j)` over the field of `q` elements.
fn core(q: usize) -> Array2<f64> {
    let (p, _) = prime_power(q).expect("only orders of fields come here");
    let squares = character(q);
    Array2::from_shape_fn((q, q), |(i, j)| f64::from(squares[subtract(i, j, p)]))
}

/// √k times the orthogonal cosine transform of order k.
fn cosine(k: usize) -> Array2<f64> {
    Array2::from_shape_fn((k, k), |(i, j)| {
        let angle = std::f64::consts::PI * ((2 * j + 1) * i) as f64 / (2 * k) as f64;
        if i == 0 { 1.0 } else { std::f64::consts::SQRT_2 * angle.cos() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest(a: &Array2<f64>) -> f64 {
        a.iter().fold(0.0, |max, x| max.max(x.abs()))
    }

    /// √n·H, from the images of the unit vectors.
    fn dense(h: &Hadamard) -> Array2<f64> {
        let n = h.order();
        let mut whole = Array2::<f64>::eye(n);
        for mut row in whole.outer_iter_mut() {
            h.apply_f64(row.as_slice_mut().unwrap());
        }
        whole.reversed_axes() * (n as f64).sqrt()
    }

    #[test]
    fn orders_are_made_of_signs_and_are_orthogonal() {
        for k in [12, 20, 24, 28, 36, 44, 52, 60, 76, 84, 100, 108, 140, 144, 148, 252, 344] {
            let kind = Construction::of(k).unwrap();
            let a = kind.matrix();
            assert_eq!(a.dim(), (k, k), "{}", kind.name());
            assert!(a.iter().all(|x| x.abs().to_bits() == 1.0_f64.to_bits()), "{k}");
            // Sums of signs are exact.
            assert_eq!(a.dot(&a.t()), Array2::<f64>::eye(k) * k as f64, "{k}");
        }
        // The twin: a field's own character is needed. 25 is no prime: residues mod 25 do not do.
        let squares: Vec<usize> = (1..25).map(|x| x * x % 25).collect();
        let wrong = Array2::from_shape_fn((25, 25), |(i, j)| {
            if i == j {
                0.0
            } else if squares.contains(&((25 + i - j) % 25)) {
                1.0
            } else {
                -1.0
            }
        });
        assert!(largest(&(wrong.dot(&wrong.t()) - core(25).dot(&core(25).t()))) > 1.0);
    }

    #[test]
    fn names_say_the_construction() {
        let name = |n| Hadamard::new(n).unwrap().name();
        assert_eq!(name(1), "walsh(1)");
        assert_eq!(name(64), "walsh(64)");
        assert_eq!(name(576), "paley-2(17) ⊗ walsh(16)");
        assert_eq!(name(11008), "paley-1(343) ⊗ walsh(32)");
        assert_eq!(name(144), "paley-2(17) ⊗ walsh(4)");
        // 172 needs Williamson's construction, which is not here, and 2 · 43 = 86 has no matrix.
        assert_eq!(name(172), "cosine(43) ⊗ walsh(4)");
        assert_eq!(name(9), "cosine(9)");
        assert!(Hadamard::new(0).is_err());
        let told = Hadamard::new(4099).unwrap_err().to_string();
        assert!(told.contains("4099") && told.contains("hint: "), "{told}");
    }

    #[test]
    fn lengths_and_angles_are_kept_at_the_widths_of_models() {
        for n in [576, 896, 1536, 2560, 3584, 4608, 9216, 11008, 172, 9] {
            let h = Hadamard::new(n).unwrap();
            assert_eq!(h.is_flat(), n > 200, "{n}");
            let wave = |phase: f64| (0..n).map(move |i| (i as f64 * 0.37 + phase).sin());
            let (x, y): (Vec<f64>, Vec<f64>) = (wave(0.0).collect(), wave(1.0).collect());
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (mut hx, mut hy) = (x.clone(), y.clone());
            h.apply_f64(&mut hx);
            h.apply_f64(&mut hy);
            // Sums of n products in float64: n·u of the sum of magnitudes, which is below n.
            let bound = (n * n) as f64 * f64::EPSILON;
            assert!((dot(&hx, &hy) - dot(&x, &y)).abs() < bound, "{n}");
            assert!((dot(&hx, &hx) - dot(&x, &x)).abs() < bound, "{n}");
            let mut narrow: Vec<f32> = x.iter().map(|x| *x as f32).collect();
            h.apply(&mut narrow);
            // Each of the log n or K steps rounds once: below n·u of the largest value, √n.
            let bound = n as f64 * (n as f64).sqrt() * f64::from(f32::EPSILON);
            let off = narrow.iter().zip(&hx).map(|(a, b)| (f64::from(*a) - b).abs());
            assert!(off.fold(0.0, f64::max) < bound, "{n}");
        }
    }

    #[test]
    fn fast_is_dense() {
        for n in [24, 96, 80, 45] {
            let h = Hadamard::new(n).unwrap();
            let whole = dense(&h);
            let bound = (n * n) as f64 * f64::EPSILON;
            assert!(largest(&(whole.dot(&whole.t()) - Array2::<f64>::eye(n) * n as f64)) < bound);
            let walsh = |i: usize, j: usize| {
                if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
            };
            let (part, w) = (h.part, n / h.part);
            for ((i, j), x) in whole.indexed_iter() {
                let want = h.dense[i / w * part + j / w] * walsh(i % w, j % w);
                assert!((x - want).abs() < bound, "{n} {i} {j}");
            }
        }
    }
}
