//! Counting different values: exact while few, HyperLogLog beyond.
//!
//! The estimate is the improved raw estimator of O. Ertl, "New cardinality estimation algorithms for HyperLogLog
//! sketches" (2017), which needs no bias tables and no switch between ranges; it uses only operations that
//! IEEE 754 rounds correctly, so it is the same on every machine.

use super::value::canonical;
use super::{DecodeError, Reader, Value, Writer};

/// The version of the hash below; sketches of different versions must never meet, so it is part of the
/// fingerprint of every view and of the byte form.
pub const HASH_VERSION: u8 = 1;

/// Up to this many different values the count is exact (but for collisions of a 64-bit hash).
///
/// 512 hashes of 8 bytes take the 4,096 bytes of the registers they are traded for.
pub const EXACT_UP_TO: usize = 512;

/// The standard error of the count beyond [`EXACT_UP_TO`]: 1.04 / sqrt(4096) of the true count.
pub const DISTINCT_STANDARD_ERROR: f64 = 0.016_25;

const PRECISION: u32 = 12;
const REGISTERS: usize = 1 << PRECISION;
/// The largest register value: 64 - 12 bits can all be zero, plus one.
const MAX_RANK: usize = 53;

/// A mergeable count of different values. Its form depends on the set of values alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinctCount(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// Sorted hashes, at most [`EXACT_UP_TO`].
    Sparse(Vec<u64>),
    /// One rank per register.
    Dense(Vec<u8>),
}

impl Default for DistinctCount {
    fn default() -> Self {
        Self::new()
    }
}

impl DistinctCount {
    /// Returns the count of nothing.
    pub const fn new() -> Self {
        Self(Form::Sparse(Vec::new()))
    }

    /// Takes note of a value.
    pub fn add(&mut self, value: &Value) {
        self.add_hash(hash(value));
    }

    /// Takes note of everything the other count saw.
    pub fn merge(&mut self, other: &Self) {
        match &other.0 {
            Form::Sparse(hashes) => hashes.iter().for_each(|hash| self.add_hash(*hash)),
            Form::Dense(theirs) => {
                let ours = self.registers();
                for (our, their) in ours.iter_mut().zip(theirs) {
                    *our = (*our).max(*their);
                }
            }
        }
    }

    /// Returns the number of different values, exact or estimated.
    pub fn count(&self) -> u64 {
        match &self.0 {
            Form::Sparse(hashes) => hashes.len() as u64,
            Form::Dense(registers) => estimate(registers),
        }
    }

    fn add_hash(&mut self, hash: u64) {
        match &mut self.0 {
            Form::Sparse(hashes) => {
                if let Err(place) = hashes.binary_search(&hash) {
                    hashes.insert(place, hash);
                    if hashes.len() > EXACT_UP_TO {
                        self.registers();
                    }
                }
            }
            Form::Dense(registers) => note(registers, hash),
        }
    }

    /// Turns the sparse form into registers and returns them.
    fn registers(&mut self) -> &mut Vec<u8> {
        if let Form::Sparse(hashes) = &self.0 {
            let mut registers = vec![0; REGISTERS];
            for hash in hashes {
                note(&mut registers, *hash);
            }
            self.0 = Form::Dense(registers);
        }
        match &mut self.0 {
            Form::Dense(registers) => registers,
            Form::Sparse(_) => unreachable!("made dense above"),
        }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.u8(HASH_VERSION);
        match &self.0 {
            Form::Sparse(hashes) => {
                out.u8(0);
                out.count(hashes.len());
                for hash in hashes {
                    out.u64(*hash);
                }
            }
            Form::Dense(registers) => {
                out.u8(1);
                out.bytes(registers);
            }
        }
    }

    pub(super) fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = input.u8()?;
        if version != HASH_VERSION {
            return Err(DecodeError::Format { found: version, expected: HASH_VERSION });
        }
        let invalid = DecodeError::Invalid { what: "distinct count" };
        match input.u8()? {
            0 => {
                let count = input.count(8)?;
                let hashes = (0..count).map(|_| input.u64()).collect::<Result<Vec<_>, _>>()?;
                let sorted = hashes.windows(2).all(|pair| pair[0] < pair[1]);
                if sorted && count <= EXACT_UP_TO { Ok(Self(Form::Sparse(hashes))) } else { Err(invalid) }
            }
            1 => {
                let registers = input.bytes()?.to_vec();
                let fits = registers.len() == REGISTERS
                    && registers.iter().all(|rank| usize::from(*rank) <= MAX_RANK);
                if fits { Ok(Self(Form::Dense(registers))) } else { Err(invalid) }
            }
            tag => Err(DecodeError::UnknownTag { what: "form of distinct count", tag }),
        }
    }
}

fn note(registers: &mut [u8], hash: u64) {
    let register = (hash >> (64 - PRECISION)) as usize;
    // The marker bit ends the run of zeros after the 52 bits that are left.
    #[expect(clippy::cast_possible_truncation, reason = "at most 52 zeros and the marker")]
    let rank = ((hash << PRECISION) | (1 << (PRECISION - 1))).leading_zeros() as u8 + 1;
    registers[register] = registers[register].max(rank);
}

fn estimate(registers: &[u8]) -> u64 {
    let mut histogram = [0_u32; MAX_RANK + 1];
    for rank in registers {
        histogram[usize::from(*rank)] += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "a power of two")]
    let m = REGISTERS as f64;
    let mut z = m * tau(1.0 - f64::from(histogram[MAX_RANK]) / m);
    for count in histogram[1..MAX_RANK].iter().rev() {
        z = 0.5 * (z + f64::from(*count));
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and positive; with every register full it is infinite, and the cast gives the largest count"
    )]
    let count = (m * m / (2.0 * std::f64::consts::LN_2 * z)).round() as u64;
    count
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z <= before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}

/// Returns the 64-bit hash of a value, version [`HASH_VERSION`].
///
/// Eight bytes at a time are folded in and passed through a bijective finaliser (that of `MurmurHash3`), so two
/// numbers never collide and every input bit reaches every output bit.
fn hash(value: &Value) -> u64 {
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = |tag: u64, word: u64| mix(mix(SEED ^ tag) ^ word);
    match value {
        Value::Null => mix(SEED),
        Value::Bool(bool) => word(1, u64::from(*bool)),
        Value::Int(int) => word(2, int.cast_unsigned()),
        Value::Float(float) => word(3, canonical(*float).to_bits()),
        Value::Time(at) => word(5, at.cast_unsigned()),
        Value::Str(text) => {
            let mut state = mix(SEED ^ 4);
            for chunk in text.as_bytes().chunks(8) {
                let mut bytes = [0; 8];
                bytes[..chunk.len()].copy_from_slice(chunk);
                state = mix(state ^ u64::from_le_bytes(bytes));
            }
            // Without the length, text padded with zero bytes would collide.
            mix(state ^ text.len() as u64)
        }
    }
}

const fn mix(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "sets of some ten thousand")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: impl IntoIterator<Item = Value>) -> DistinctCount {
        let mut count = DistinctCount::new();
        values.into_iter().for_each(|value| count.add(&value));
        count
    }

    fn text(number: u64) -> Value {
        Value::Str(format!("session-{number}"))
    }

    #[test]
    fn the_hash_of_this_version_never_changes() {
        let hashes = [
            Value::Int(0),
            Value::Int(1),
            Value::Str(String::new()),
            text(7),
            Value::Float(-0.0),
            Value::Time(1),
        ]
        .map(|value| format!("{:016x}", hash(&value)));
        insta::assert_snapshot!(hashes.join(" "), @"b723d3c58110304e 25abcb5c468f3099 801d2bb96a9714ab d0d6fd485754d3ff c6ffe416e9a5dfee 9e2611bd278a11e6");
        assert_eq!(hash(&Value::Float(0.0)), hash(&Value::Float(-0.0)));
        assert_ne!(hash(&Value::Str("a".into())), hash(&Value::Str("a\0".into())));
    }

    #[test]
    fn few_values_are_counted_exactly() {
        for count in [0, 1, 2, 100, 512] {
            assert_eq!(of((0..count).chain(0..count).map(text)).count(), count);
        }
    }

    #[test]
    fn the_declared_error_holds() {
        // Sixty independent sets per size: the root mean square error must match the declared one, and no
        // single answer may be off by more than five standard errors.
        for size in [513_u64, 2_000, 10_000, 20_000, 60_000] {
            let mut squares = 0.0;
            for set in 0..60 {
                let estimate =
                    of((0..size).map(|one| Value::Int((set * 1_000_000 + one).cast_signed()))).count();
                let error = (estimate as f64 - size as f64) / size as f64;
                assert!(error.abs() < 5.0 * DISTINCT_STANDARD_ERROR, "{size}: {estimate}");
                squares += error * error;
            }
            let root = (squares / 60.0_f64).sqrt();
            assert!(root < 1.3 * DISTINCT_STANDARD_ERROR, "{size}: {root}");
        }
    }

    #[test]
    fn text_is_spread_as_well_as_numbers() {
        let estimate = of((0..50_000).map(text)).count() as f64;
        assert!((estimate / 50_000.0 - 1.0).abs() < 4.0 * DISTINCT_STANDARD_ERROR, "{estimate}");
    }

    proptest! {
        #[test]
        fn the_form_depends_on_the_set_alone(
            size in prop_oneof![0_u64..40, 490_u64..540, 900_u64..1200],
            cut in 1_usize..7,
            backwards in any::<bool>(),
        ) {
            let mut numbers: Vec<u64> = (0..size).collect();
            let straight = of(numbers.iter().copied().map(text));
            if backwards { numbers.reverse(); }
            let mut merged = DistinctCount::new();
            for part in numbers.chunks(numbers.len() / cut + 1) {
                merged.merge(&of(part.iter().copied().map(text)));
            }
            prop_assert_eq!(&merged, &straight);
            let mut out = Writer::new();
            merged.write(&mut out);
            prop_assert_eq!(DistinctCount::read(&mut Reader::new(&out.into_bytes())).unwrap(), straight);
        }
    }
}
