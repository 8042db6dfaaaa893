//! Which elements of a finite field are squares. Element `e` of a field of `p^k` elements stands
//! for the polynomial whose coefficients are the digits of `e` in base p.

/// `(p, k)` when `q = p^k` with a prime p.
pub(super) fn prime_power(q: usize) -> Option<(usize, u32)> {
    let divisors = (2..).take_while(|p| p * p <= q);
    let p = { divisors }.find(|p| q.is_multiple_of(*p)).unwrap_or(q);
    if p < 2 {
        return None;
    }
    let (mut rest, mut k) = (q, 0);
    while rest.is_multiple_of(p) {
        (rest, k) = (rest / p, k + 1);
    }
    (rest == 1).then_some((p, k))
}

/// `a − b` in a field of characteristic `p`.
pub(super) fn subtract(a: usize, b: usize, p: usize) -> usize {
    digitwise(a, b, p, |a, b| (a + p - b) % p)
}

/// The quadratic character of each element of the field of `q` elements, q an odd prime power:
/// 0 of 0, 1 of squares, −1 of the others.
///
/// The powers of a generator run through all elements but 0, squares at even exponents. The
/// polynomial x is a generator modulo a primitive polynomial `x^k − c`, which is looked for.
pub(super) fn character(q: usize) -> Vec<i8> {
    let (p, _) = prime_power(q).expect("the order of a field");
    for reduction in 1..q {
        let mut signs = vec![0_i8; q];
        let (mut power, mut sign, mut found) = (1, 1, 0);
        while signs[power] == 0 && power != 0 {
            signs[power] = sign;
            (power, sign, found) = (times_x(power, reduction, p, q), -sign, found + 1);
        }
        if found == q - 1 {
            return signs;
        }
    }
    unreachable!("every finite field has a generator")
}

/// `x·a` modulo `x^k − reduction`.
fn times_x(a: usize, reduction: usize, p: usize, q: usize) -> usize {
    let top = a / (q / p);
    let shifted = a % (q / p) * p;
    digitwise(shifted, reduction, p, |a, b| (a + top * b) % p)
}

fn digitwise(mut a: usize, mut b: usize, p: usize, f: impl Fn(usize, usize) -> usize) -> usize {
    let (mut result, mut place) = (0, 1);
    while a > 0 || b > 0 {
        result += f(a % p, b % p) * place;
        (a, b, place) = (a / p, b / p, place * p);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prime_powers_are_seen() {
        assert_eq!(prime_power(343), Some((7, 3)));
        assert_eq!(prime_power(25), Some((5, 2)));
        assert_eq!(prime_power(251), Some((251, 1)));
        assert_eq!([0, 1, 6, 171, 85].map(prime_power), [None; 5]);
    }

    #[test]
    fn squares_are_squares() {
        assert_eq!(character(7), [0, 1, 1, -1, 1, -1, -1]);
        for q in [9, 25, 49, 27, 343, 13] {
            let signs = character(q);
            assert_eq!(signs.iter().filter(|s| **s == 1).count(), (q - 1) / 2);
            assert_eq!(signs.iter().filter(|s| **s == -1).count(), (q - 1) / 2);
            // In these fields −1 is a square exactly when q ≡ 1 mod 4.
            let (p, _) = prime_power(q).unwrap();
            assert_eq!(signs[subtract(0, 1, p)] == 1, q % 4 == 1, "{q}");
        }
    }
}
