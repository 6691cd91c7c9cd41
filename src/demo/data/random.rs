//! A small deterministic generator: the example's bytes must be equal on every machine and in every year.
//!
//! Only integer arithmetic and the exactly rounded floating-point operations (+ - * /) are used. `exp` and
//! `ln` come from the platform's C library and may differ in the last bit, which would change a cent here
//! and there.

/// `SplitMix64` (Steele, Lea, Flood 2014), with its published constants.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// An independent stream for `(seed, index)`: what one customer or minute draws moves no other's.
    pub fn stream(seed: u64, index: u64) -> Self {
        let mut mixed = Self(seed ^ index.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        Self(mixed.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`, from the upper 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `[low, high)`. The bias of the remainder is below 2^-40 for the ranges used here.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        let width = high.abs_diff(low).max(1);
        low + i64::try_from(self.next() % width).unwrap_or(0)
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = usize::try_from(self.next() % items.len().max(1) as u64).unwrap_or(0);
        &items[index]
    }

    /// An index drawn with the given weights.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut rest = self.unit() * weights.iter().sum::<f64>();
        for (index, weight) in weights.iter().enumerate() {
            if rest < *weight {
                return index;
            }
            rest -= weight;
        }
        weights.len().saturating_sub(1)
    }
}
