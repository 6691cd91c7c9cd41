//! Exact sums of floats: bit-identical in any order and any merge tree.
//!
//! Float addition is not associative, so a batch and a stream that add the same rows in another order differ in
//! the last bits. Here every finite float is an integer multiple of 2^-1074, the least positive one; the sum is
//! kept as that integer, without rounding, and rounded once when it is asked for.

use super::{DecodeError, Reader, Writer};

/// The weight of bit 0: 2^-1074.
const LOWEST_EXPONENT: i32 = -1074;
/// Floats reach bit 2097; 64 bits more hold 2^64 of them. In limbs of 64 bits, with the sign limb: 36.
const MAX_LIMBS: usize = 36;

const NAN: u8 = 1;
const POSITIVE_INFINITY: u8 = 2;
const NEGATIVE_INFINITY: u8 = 4;

/// An exact accumulator over the whole range of `f64`.
///
/// Two's complement in 64-bit limbs from limb `low` upwards; the last limb is pure sign. Values of like magnitude
/// take three or four limbs. Infinities and `NaN` are remembered as flags and win when the sum is read.
#[derive(Debug, Clone, Default)]
pub struct ExactSum {
    low: usize,
    limbs: Vec<u64>,
    special: u8,
}

impl ExactSum {
    /// Returns the sum of nothing.
    pub const fn new() -> Self {
        Self { low: 0, limbs: Vec::new(), special: 0 }
    }

    /// Adds a float.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.special |= if value.is_nan() {
                NAN
            } else if value > 0.0 {
                POSITIVE_INFINITY
            } else {
                NEGATIVE_INFINITY
            };
            return;
        }
        let bits = value.to_bits();
        let exponent = usize::try_from((bits >> 52) & 0x7ff).unwrap_or(0);
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, position) =
            if exponent == 0 { (fraction, 0) } else { (fraction | (1 << 52), exponent - 1) };
        self.add_at(value.is_sign_negative(), mantissa, position);
    }

    /// Adds an integer exactly.
    pub fn add_int(&mut self, value: i128) {
        let [low, high] = halves(value.unsigned_abs());
        let one = LOWEST_EXPONENT.unsigned_abs() as usize;
        self.add_at(value < 0, low, one);
        self.add_at(value < 0, high, one + 64);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.special |= other.special;
        if other.limbs.is_empty() {
            return;
        }
        self.cover(other.low, other.low + other.limbs.len() - 1);
        let sign = other.limbs[other.limbs.len() - 1];
        let start = other.low - self.low;
        let mut carry = false;
        for (index, limb) in self.limbs.iter_mut().enumerate().skip(start) {
            let addend = other.limbs.get(index - start).copied().unwrap_or(sign);
            (*limb, carry) = add_carry(*limb, addend, carry);
        }
        self.restore_sign_limb();
        self.trim();
    }

    /// Returns the sum rounded once, to nearest with ties to even; never negative zero.
    pub fn value(&self) -> f64 {
        self.quotient(1)
    }

    /// Returns the sum divided by `count`, rounded once; `NaN` for a count of zero.
    pub fn quotient(&self, count: u64) -> f64 {
        let both = POSITIVE_INFINITY | NEGATIVE_INFINITY;
        if self.special & NAN != 0 || self.special & both == both || count == 0 {
            return f64::NAN;
        }
        match self.special {
            POSITIVE_INFINITY => return f64::INFINITY,
            NEGATIVE_INFINITY => return f64::NEG_INFINITY,
            _ => {}
        }
        let (negative, mut magnitude) = self.magnitude();
        let mut exponent = LOWEST_EXPONENT + 64 * i32::try_from(self.low).unwrap_or(i32::MAX);
        if count > 1 {
            // 128 bits of fraction decide every rounding: what is not itself halfway between two floats differs from
            // there by at least 1 / (2 count) of a unit, and so by more than 2^-65.
            magnitude.splice(0..0, [0, 0]);
            exponent -= 128;
            let mut remainder = 0_u64;
            for limb in magnitude.iter_mut().rev() {
                let dividend = (u128::from(remainder) << 64) | u128::from(*limb);
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the remainder is below the count, and so the quotient below 2^64"
                )]
                let (digit, rest) =
                    ((dividend / u128::from(count)) as u64, (dividend % u128::from(count)) as u64);
                (*limb, remainder) = (digit, rest);
            }
        }
        let rounded = round(&magnitude, exponent);
        if negative && rounded != 0.0 { -rounded } else { rounded }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        let mut canonical = self.clone();
        canonical.trim();
        out.u8(canonical.special);
        out.u32(u32::try_from(canonical.low).unwrap_or(0));
        out.count(canonical.limbs.len());
        for limb in &canonical.limbs {
            out.u64(*limb);
        }
    }

    pub(super) fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let invalid = DecodeError::Invalid { what: "exact sum" };
        let special = input.u8()?;
        let low = usize::try_from(input.u32()?).unwrap_or(usize::MAX);
        let count = input.count(8)?;
        if special > 7 || low > MAX_LIMBS || count > MAX_LIMBS {
            return Err(invalid);
        }
        let limbs = (0..count).map(|_| input.u64()).collect::<Result<Vec<_>, _>>()?;
        if limbs.last().is_some_and(|top| *top != 0 && *top != u64::MAX) {
            return Err(invalid);
        }
        let mut sum = Self { low, limbs, special };
        sum.trim();
        Ok(sum)
    }

    /// Adds or subtracts `mantissa * 2^(position - 1074)`.
    fn add_at(&mut self, negative: bool, mantissa: u64, position: usize) {
        if mantissa == 0 {
            return;
        }
        let (limb, offset) = (position / 64, position % 64);
        let parts = halves(u128::from(mantissa) << offset);
        self.cover(limb, limb + 2);
        let start = limb - self.low;
        let mut carry = false;
        for (index, limb) in self.limbs.iter_mut().enumerate().skip(start) {
            let part = parts.get(index - start).copied().unwrap_or(0);
            if index >= start + 2 && !carry {
                break;
            }
            (*limb, carry) =
                if negative { subtract_borrow(*limb, part, carry) } else { add_carry(*limb, part, carry) };
        }
        self.restore_sign_limb();
    }

    /// Makes the limbs reach from `first` to at least `last`.
    fn cover(&mut self, first: usize, last: usize) {
        if self.limbs.is_empty() {
            self.low = first;
            self.limbs = vec![0; last - first + 1];
            return;
        }
        if first < self.low {
            self.limbs.splice(0..0, std::iter::repeat_n(0, self.low - first));
            self.low = first;
        }
        let sign = self.sign();
        let wanted = last + 1 - self.low;
        if self.limbs.len() < wanted {
            self.limbs.resize(wanted, sign);
        }
    }

    fn sign(&self) -> u64 {
        if self.limbs.last().is_some_and(|top| top >> 63 == 1) { u64::MAX } else { 0 }
    }

    fn restore_sign_limb(&mut self) {
        let sign = self.sign();
        if self.limbs.last().is_some_and(|top| *top != sign) {
            self.limbs.push(sign);
        }
    }

    /// Brings equal sums to equal limbs.
    fn trim(&mut self) {
        while let [.., below, top] = self.limbs[..] {
            if below != top {
                break;
            }
            self.limbs.pop();
        }
        let zeros = self.limbs.iter().take_while(|limb| **limb == 0).count();
        self.limbs.drain(..zeros);
        self.low = if self.limbs.is_empty() { 0 } else { self.low + zeros };
    }

    fn magnitude(&self) -> (bool, Vec<u64>) {
        let negative = self.sign() != 0;
        let mut limbs = self.limbs.clone();
        if negative {
            let mut carry = true;
            for limb in &mut limbs {
                (*limb, carry) = add_carry(!*limb, 0, carry);
            }
        }
        (negative, limbs)
    }
}

impl PartialEq for ExactSum {
    fn eq(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.clone(), other.clone());
        left.trim();
        right.trim();
        left.low == right.low && left.limbs == right.limbs && left.special == right.special
    }
}

impl Eq for ExactSum {}

/// Returns the low and the high 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "each half takes what the other leaves")]
const fn halves(wide: u128) -> [u64; 2] {
    [wide as u64, (wide >> 64) as u64]
}

const fn add_carry(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let (partial, first) = a.overflowing_add(b);
    let (sum, second) = partial.overflowing_add(carry as u64);
    (sum, first || second)
}

const fn subtract_borrow(a: u64, b: u64, borrow: bool) -> (u64, bool) {
    let (partial, first) = a.overflowing_sub(b);
    let (difference, second) = partial.overflowing_sub(borrow as u64);
    (difference, first || second)
}

/// Returns `limbs * 2^exponent` as the nearest float, ties to even.
fn round(limbs: &[u64], exponent: i32) -> f64 {
    let Some(top_limb) = limbs.iter().rposition(|limb| *limb != 0) else {
        return 0.0;
    };
    let top_bit = i32::try_from(top_limb * 64 + 63).unwrap_or(i32::MAX)
        - i32::try_from(limbs[top_limb].leading_zeros()).unwrap_or(0);
    // The weight of the last bit of the result; subnormal numbers share the lowest.
    let quantum = (top_bit + exponent - 52).max(LOWEST_EXPONENT);
    let shift = quantum - exponent;
    let mut mantissa =
        if shift <= 0 { limbs[0] << shift.unsigned_abs() } else { bits_from(limbs, shift.unsigned_abs()) };
    if shift > 0 {
        let half = shift.unsigned_abs() - 1;
        let above_half = bits_from(limbs, half) & 1 == 1;
        let below_half = any_bit_below(limbs, half);
        if above_half && (below_half || mantissa & 1 == 1) {
            mantissa += 1;
        }
    }
    // The implicit bit of the mantissa adds the last 1 of the exponent field, and so does a carry out of it.
    let field = u64::try_from(quantum - LOWEST_EXPONENT).unwrap_or(0);
    if field >= 2046 {
        return f64::INFINITY;
    }
    f64::from_bits((field << 52) + mantissa)
}

/// Returns the bits from `from` upwards; the caller knows that at most 53 are set.
fn bits_from(limbs: &[u64], from: u32) -> u64 {
    let (limb, offset) = ((from / 64) as usize, from % 64);
    let low = limbs.get(limb).copied().unwrap_or(0) >> offset;
    let high = limbs.get(limb + 1).copied().unwrap_or(0);
    if offset == 0 { low } else { low | (high << (64 - offset)) }
}

fn any_bit_below(limbs: &[u64], bit: u32) -> bool {
    let (limb, offset) = ((bit / 64) as usize, bit % 64);
    limbs.iter().take(limb).any(|one| *one != 0)
        || limbs.get(limb).is_some_and(|one| one & ((1_u64 << offset) - 1) != 0)
}

#[cfg(test)]
#[expect(
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "the claim is that both round to the same float"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::new();
        for value in values {
            sum.add(*value);
        }
        sum
    }

    #[test]
    fn rounds_once() {
        assert_eq!(sum(&[1e308, 1.0, -1e308]).value(), 1.0);
        assert_eq!(sum(&[0.1; 10]).value(), 1.0);
        assert_eq!(sum(&[1e16, 1.0, 1.0]).value(), 10_000_000_000_000_002.0);
        assert_eq!(sum(&[5e-324, 5e-324]).value(), 1e-323);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).value(), f64::INFINITY);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).quotient(2), f64::MAX, "the mean of two is finite");
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]).value(), f64::MAX);
        assert_eq!(sum(&[5e-324]).quotient(2).to_bits(), 0, "a tie goes to even");
        assert_eq!(sum(&[1.5e-323]).quotient(2), 1e-323, "three halves of the least number round to two");
        assert_eq!(sum(&[-0.0]).value().to_bits(), 0);
        assert_eq!(sum(&[]).value().to_bits(), 0);
    }

    #[test]
    fn what_is_not_finite_wins_in_any_order() {
        assert_eq!(sum(&[1.0, f64::INFINITY, -1e308]).value(), f64::INFINITY);
        assert!(sum(&[f64::NEG_INFINITY, 1.0, f64::INFINITY]).value().is_nan());
        assert!(sum(&[f64::NAN, 1.0]).value().is_nan());
    }

    #[test]
    fn carries_reach_every_limb() {
        for start in [5e-324, -5e-324, 1.0, -1.0, 3.0, -7.0] {
            let (mut doubled, mut expected) = (sum(&[start]), start);
            for _ in 0..200 {
                doubled.merge(&doubled.clone());
                expected *= 2.0;
                assert_eq!(doubled.value(), expected);
                assert_eq!(doubled, sum(&[expected]), "one form for one value");
                let mut out = Writer::new();
                doubled.write(&mut out);
                assert_eq!(ExactSum::read(&mut Reader::new(&out.into_bytes())).unwrap(), doubled);
            }
        }
    }

    #[test]
    fn agrees_with_exact_fractions() {
        #[derive(serde::Deserialize)]
        struct Case {
            values: Vec<String>,
            sum: String,
            mean: String,
        }
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../tests-data/exact_sums.json")).unwrap();
        assert!(cases.len() >= 100);
        let float = |hex: &String| f64::from_bits(u64::from_str_radix(hex, 16).unwrap());
        for case in &cases {
            let values: Vec<f64> = case.values.iter().map(float).collect();
            let total = sum(&values);
            assert_eq!(total.value().to_bits(), float(&case.sum).to_bits(), "{values:?}");
            assert_eq!(
                total.quotient(values.len() as u64).to_bits(),
                float(&case.mean).to_bits(),
                "{values:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn order_and_merge_tree_do_not_show(
            pairs in prop::collection::vec((any::<f64>(), any::<u32>()), 0..60),
            parts in 1_usize..9,
        ) {
            let mut shuffled = pairs.clone();
            shuffled.sort_by_key(|(_, key)| *key);
            let straight = sum(&pairs.iter().map(|(value, _)| *value).collect::<Vec<_>>());
            let mut merged = ExactSum::new();
            for part in shuffled.chunks(parts) {
                merged.merge(&sum(&part.iter().map(|(value, _)| *value).collect::<Vec<_>>()));
            }
            prop_assert_eq!(straight.value().to_bits(), merged.value().to_bits());
            prop_assert_eq!(&straight, &merged);
            let bytes = |sum: &ExactSum| { let mut out = Writer::new(); sum.write(&mut out); out.into_bytes() };
            prop_assert_eq!(bytes(&straight), bytes(&merged));
            prop_assert_eq!(ExactSum::read(&mut Reader::new(&bytes(&merged))).unwrap(), straight);
        }

        #[test]
        fn equals_fixed_point_arithmetic(numbers in prop::collection::vec((any::<i64>(), 0_u32..40), 0..50)) {
            // Multiples of 2^-40 in 128-bit integers are an independent exact reference.
            let mut total = ExactSum::new();
            let mut reference = 0_i128;
            for (number, shift) in numbers {
                let mantissa = number >> 11;
                reference += i128::from(mantissa) << (40 - shift);
                total.add(mantissa as f64 * 2_f64.powi(-i32::try_from(shift).unwrap()));
            }
            prop_assert_eq!(total.value(), reference as f64 * 2_f64.powi(-40));
        }

        #[test]
        fn opposite_values_leave_nothing(values in prop::collection::vec(any::<f64>(), 0..30)) {
            let mut total = sum(&values);
            prop_assume!(total.special == 0);
            total.merge(&sum(&values.iter().map(|value| -value).collect::<Vec<_>>()));
            prop_assert_eq!(total, ExactSum::new());
        }

        #[test]
        fn integers_add_exactly(a in any::<i64>(), b in any::<i64>()) {
            let mut total = ExactSum::new();
            total.add_int(i128::from(a) * i128::from(b));
            prop_assert_eq!(total.value(), (i128::from(a) * i128::from(b)) as f64);
        }
    }
}
