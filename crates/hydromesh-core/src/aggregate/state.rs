//! The state of one aggregate over one set of rows.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::{
    AggFunction, AggSpec, DecodeError, DistinctCount, ExactSum, Order, Reader, Value, ValueKind, Writer,
};

/// The version of the byte form.
pub const STATE_FORMAT: u8 = 1;

/// The state of an aggregate: an exact function of the multiset of `(value, order)` pairs it saw.
///
/// Nulls count only for `count()`. The neutral element is [`State::init`]; merge is associative and commutative
/// to the bit, so a state may be built row by row, batch by batch or from tiles in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    function: AggFunction,
    every_row: bool,
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Count(u64),
    /// Integers and floats apart, so that a sum of integers stays one.
    Sum {
        ints: i128,
        int_rows: u64,
        floats: ExactSum,
        float_rows: u64,
    },
    Extreme(Option<Value>),
    Distinct(DistinctCount),
    Last(Option<(Order, Value)>),
}

/// Why rows or states do not fit a state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// The aggregate cannot take values of this kind.
    #[error("`{function}` does not take {kind} values")]
    Kind {
        /// The aggregate.
        function: &'static str,
        /// The kind it was given.
        kind: ValueKind,
    },
    /// Two states of different aggregates were merged.
    #[error("a state of `{left}` cannot be merged with one of `{right}`")]
    Mismatch {
        /// The state merged into.
        left: &'static str,
        /// The other one.
        right: &'static str,
    },
}

impl State {
    /// Returns the state of no rows.
    pub fn init(spec: &AggSpec) -> Self {
        Self::empty(spec.function(), spec.column().is_none())
    }

    fn empty(function: AggFunction, every_row: bool) -> Self {
        let content = match function {
            AggFunction::Count => Content::Count(0),
            AggFunction::Sum | AggFunction::Avg => {
                Content::Sum { ints: 0, int_rows: 0, floats: ExactSum::new(), float_rows: 0 }
            }
            AggFunction::Min | AggFunction::Max => Content::Extreme(None),
            AggFunction::ApproxDistinct => Content::Distinct(DistinctCount::new()),
            AggFunction::Last => Content::Last(None),
        };
        Self { function, every_row, content }
    }

    /// Returns whether the state saw no row that matters to it.
    pub fn is_empty(&self) -> bool {
        *self == Self::empty(self.function, self.every_row)
    }

    /// Adds one row; `count()` takes any value.
    ///
    /// # Errors
    /// [`StateError::Kind`] for a sum or average of something that is no number; the state is unchanged.
    pub fn add(&mut self, value: &Value, order: Order) -> Result<(), StateError> {
        if value.is_null() && !self.every_row {
            return Ok(());
        }
        match &mut self.content {
            Content::Count(count) => *count += 1,
            Content::Sum { ints, int_rows, floats, float_rows } => match value {
                Value::Int(int) => {
                    *ints += i128::from(*int);
                    *int_rows += 1;
                }
                Value::Float(float) => {
                    floats.add(*float);
                    *float_rows += 1;
                }
                other => {
                    return Err(StateError::Kind { function: self.function.name(), kind: other.kind() });
                }
            },
            Content::Extreme(extreme) => keep_extreme(self.function, extreme, value),
            Content::Distinct(distinct) => distinct.add(value),
            Content::Last(last) => keep_last(last, order, value),
        }
        Ok(())
    }

    /// Adds everything another state saw.
    ///
    /// # Errors
    /// [`StateError::Mismatch`] when the other state is of another aggregate; this one is unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<(), StateError> {
        let mismatch = StateError::Mismatch { left: self.function.name(), right: other.function.name() };
        if self.function != other.function || self.every_row != other.every_row {
            return Err(mismatch);
        }
        match (&mut self.content, &other.content) {
            (Content::Count(ours), Content::Count(theirs)) => *ours += theirs,
            (
                Content::Sum { ints, int_rows, floats, float_rows },
                Content::Sum {
                    ints: their_ints,
                    int_rows: their_int_rows,
                    floats: their_floats,
                    float_rows: their_float_rows,
                },
            ) => {
                *ints += their_ints;
                *int_rows += their_int_rows;
                floats.merge(their_floats);
                *float_rows += their_float_rows;
            }
            (Content::Extreme(ours), Content::Extreme(Some(value))) => {
                keep_extreme(self.function, ours, value);
            }
            (Content::Distinct(ours), Content::Distinct(theirs)) => ours.merge(theirs),
            (Content::Last(ours), Content::Last(Some((order, value)))) => keep_last(ours, *order, value),
            (Content::Extreme(_), Content::Extreme(None)) | (Content::Last(_), Content::Last(None)) => {}
            _ => return Err(mismatch),
        }
        Ok(())
    }

    /// Returns the answer. Over no rows counts are 0 and everything else is null.
    pub fn finalize(&self) -> Value {
        match &self.content {
            Content::Count(count) => Value::Int(i64::try_from(*count).unwrap_or(i64::MAX)),
            Content::Sum { ints, int_rows, floats, float_rows } => {
                let rows = int_rows + float_rows;
                let total = || {
                    let mut total = floats.clone();
                    total.add_int(*ints);
                    total
                };
                if rows == 0 {
                    Value::Null
                } else if self.function == AggFunction::Avg {
                    Value::Float(total().quotient(rows))
                } else if *float_rows > 0 {
                    Value::Float(total().value())
                } else {
                    #[expect(
                        clippy::cast_precision_loss,
                        reason = "the nearest float is the documented answer"
                    )]
                    i64::try_from(*ints).map_or_else(|_| Value::Float(*ints as f64), Value::Int)
                }
            }
            Content::Extreme(extreme) => extreme.clone().unwrap_or(Value::Null),
            Content::Distinct(distinct) => Value::Int(i64::try_from(distinct.count()).unwrap_or(i64::MAX)),
            Content::Last(last) => last.as_ref().map_or(Value::Null, |(_, value)| value.clone()),
        }
    }

    /// Returns the portable byte form; equal states have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.write(&mut out);
        out.into_bytes()
    }

    /// Returns the state the bytes hold.
    ///
    /// # Errors
    /// [`DecodeError`] on any bytes that [`State::encode`] did not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let state = Self::read(&mut input)?;
        input.finish()?;
        Ok(state)
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.u8(STATE_FORMAT);
        out.u8(match (self.function, self.every_row) {
            (AggFunction::Count, true) => 0,
            (AggFunction::Count, false) => 1,
            (AggFunction::Sum, _) => 2,
            (AggFunction::Avg, _) => 3,
            (AggFunction::Min, _) => 4,
            (AggFunction::Max, _) => 5,
            (AggFunction::ApproxDistinct, _) => 6,
            (AggFunction::Last, _) => 7,
        });
        match &self.content {
            Content::Count(count) => out.u64(*count),
            Content::Sum { ints, int_rows, floats, float_rows } => {
                out.i128(*ints);
                out.u64(*int_rows);
                floats.write(out);
                out.u64(*float_rows);
            }
            Content::Extreme(extreme) => extreme.as_ref().unwrap_or(&Value::Null).write(out),
            Content::Distinct(distinct) => distinct.write(out),
            Content::Last(last) => {
                let (order, value) =
                    last.as_ref().map_or((Order::default(), &Value::Null), |(order, value)| (*order, value));
                value.write(out);
                out.i64(order.event_ms);
                out.i64(i64::from(order.partition));
                out.i64(order.offset);
            }
        }
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let format = input.u8()?;
        if format != STATE_FORMAT {
            return Err(DecodeError::Format { found: format, expected: STATE_FORMAT });
        }
        let (function, every_row) = match input.u8()? {
            0 => (AggFunction::Count, true),
            1 => (AggFunction::Count, false),
            2 => (AggFunction::Sum, false),
            3 => (AggFunction::Avg, false),
            4 => (AggFunction::Min, false),
            5 => (AggFunction::Max, false),
            6 => (AggFunction::ApproxDistinct, false),
            7 => (AggFunction::Last, false),
            tag => return Err(DecodeError::UnknownTag { what: "aggregate", tag }),
        };
        let some = |value: Value| if value.is_null() { None } else { Some(value) };
        let content = match function {
            AggFunction::Count => Content::Count(input.u64()?),
            AggFunction::Sum | AggFunction::Avg => Content::Sum {
                ints: input.i128()?,
                int_rows: input.u64()?,
                floats: ExactSum::read(input)?,
                float_rows: input.u64()?,
            },
            AggFunction::Min | AggFunction::Max => Content::Extreme(some(Value::read(input)?)),
            AggFunction::ApproxDistinct => Content::Distinct(DistinctCount::read(input)?),
            AggFunction::Last => {
                let value = some(Value::read(input)?);
                let event_ms = input.i64()?;
                let partition = i32::try_from(input.i64()?)
                    .map_err(|_| DecodeError::Invalid { what: "source partition" })?;
                let order = Order { event_ms, partition, offset: input.i64()? };
                Content::Last(value.map(|value| (order, value)))
            }
        };
        Ok(Self { function, every_row, content })
    }
}

fn keep_extreme(function: AggFunction, extreme: &mut Option<Value>, value: &Value) {
    let better = extreme.as_ref().is_none_or(|held| match function {
        AggFunction::Min => value < held,
        _ => value > held,
    });
    if better {
        *extreme = Some(value.clone());
    }
}

/// Two rows may claim the same place only when the source repeats itself; the larger value then wins, so
/// that the answer still does not depend on arrival.
fn keep_last(last: &mut Option<(Order, Value)>, order: Order, value: &Value) {
    let later = last.as_ref().is_none_or(|(held, held_value)| (order, value) > (*held, held_value));
    if later {
        *last = Some((order, value.clone()));
    }
}

/// Text forms (JSON) carry the bytes in hexadecimal, so that there is one portable form and not two.
impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write as _;
        let mut text = String::new();
        for byte in self.encode() {
            write!(text, "{byte:02x}").map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| {
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                Some(digit(*pair.first()?)? * 16 + digit(*pair.get(1)?)?)
            })
            .collect();
        let bytes =
            digits.ok_or_else(|| D::Error::custom("a state is an even number of hexadecimal digits"))?;
        Self::decode(&bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [&str; 8] =
        ["count()", "count(x)", "sum(x)", "avg(x)", "min(x)", "max(x)", "approx_distinct(x)", "last(x)"];

    fn state(spec: &str, rows: &[(Value, Order)]) -> State {
        let mut state = State::init(&spec.parse().unwrap());
        for (value, order) in rows {
            state.add(value, *order).unwrap();
        }
        state
    }

    fn rows() -> impl Strategy<Value = Vec<(Value, Order)>> {
        let value = prop_oneof![
            1 => Just(Value::Null),
            3 => (-50_i64..50).prop_map(Value::Int),
            1 => any::<i64>().prop_map(Value::Int),
            4 => any::<f64>().prop_map(Value::Float),
            2 => (-1e6_f64..1e6).prop_map(Value::Float),
        ];
        prop::collection::vec((value, 0_i64..20, 0_i32..2), 0..40).prop_map(|rows| {
            rows.into_iter()
                .zip(0..)
                .map(|((value, event_ms, partition), offset)| (value, Order { event_ms, partition, offset }))
                .collect()
        })
    }

    #[test]
    fn empty_windows_are_zero_or_null() {
        let answers: Vec<String> =
            ALL.iter().map(|spec| format!("{spec} {}", state(spec, &[]).finalize().to_json())).collect();
        insta::assert_snapshot!(answers.join(", "), @"count() 0, count(x) 0, sum(x) null, avg(x) null, min(x) null, max(x) null, approx_distinct(x) 0, last(x) null");
    }

    #[test]
    fn answers_by_hand() {
        let rows: Vec<(Value, Order)> = [Value::Int(5), Value::Null, Value::Int(-2), Value::Int(5)]
            .into_iter()
            .zip([30, 40, 20, 10])
            .map(|(value, event_ms)| (value, Order { event_ms, ..Order::default() }))
            .collect();
        let answers: Vec<String> =
            ALL.iter().map(|spec| format!("{spec} {}", state(spec, &rows).finalize().to_json())).collect();
        insta::assert_snapshot!(answers.join(", "), @"count() 4, count(x) 3, sum(x) 8, avg(x) 2.6666666666666665, min(x) -2, max(x) 5, approx_distinct(x) 2, last(x) 5");
    }

    #[test]
    fn a_sum_of_integers_stays_exact() {
        let order = Order::default();
        let total = state(
            "sum(x)",
            &[(Value::Int(i64::MAX), order), (Value::Int(1), order), (Value::Int(-1), order)],
        );
        assert_eq!(total.finalize(), Value::Int(i64::MAX));
        let beyond = state("sum(x)", &[(Value::Int(i64::MAX), order), (Value::Int(i64::MAX), order)]);
        assert_eq!(beyond.finalize(), Value::Float(18_446_744_073_709_551_614.0));
        let mixed =
            state("sum(x)", &[(Value::Int(9_007_199_254_740_993), order), (Value::Float(-1.0), order)]);
        assert_eq!(mixed.finalize(), Value::Float(9_007_199_254_740_992.0));
    }

    #[test]
    fn wrong_kinds_and_wrong_states_are_refused() {
        let mut sum = state("sum(x)", &[]);
        insta::assert_snapshot!(sum.add(&Value::Str("7".into()), Order::default()).unwrap_err(), @"`sum` does not take text values");
        insta::assert_snapshot!(sum.merge(&state("avg(x)", &[])).unwrap_err(), @"a state of `sum` cannot be merged with one of `avg`");
        assert!(state("count()", &[]).merge(&state("count(x)", &[])).is_err());
        assert!(sum.is_empty());
    }

    #[test]
    fn the_byte_form_is_pinned() {
        let rows = [(Value::Float(1.5), Order { event_ms: 7, partition: 1, offset: 3 })];
        let hex = |spec| serde_json::to_string(&state(spec, &rows)).unwrap();
        insta::assert_snapshot!(hex("sum(x)"), @r#""0102000000000000000000000000000000000000000000000000001000000002000000000000000000060000000000000000000100000000000000""#);
        insta::assert_snapshot!(hex("last(x)"), @r#""010703000000000000f83f070000000000000001000000000000000300000000000000""#);
    }

    proptest! {
        #[test]
        fn any_order_and_merge_tree_gives_equal_bytes(
            rows in rows(),
            keys in prop::collection::vec(any::<u32>(), 40),
            part in 1_usize..12,
        ) {
            for spec in ALL {
                let straight = state(spec, &rows);
                let mut shuffled: Vec<_> = rows.iter().zip(&keys).collect();
                shuffled.sort_by_key(|(_, key)| **key);
                let shuffled: Vec<_> = shuffled.into_iter().map(|(row, _)| row.clone()).collect();
                // Every second part goes through its byte form, as a restart would do it; parts are merged as a tree.
                let mut parts: Vec<State> = shuffled
                    .chunks(part)
                    .enumerate()
                    .map(|(place, rows)| {
                        let state = state(spec, rows);
                        if place % 2 == 0 { State::decode(&state.encode()).unwrap() } else { state }
                    })
                    .collect();
                while parts.len() > 1 {
                    let other = parts.pop().unwrap();
                    let middle = parts.len() / 2;
                    parts[middle].merge(&other).unwrap();
                }
                let merged = parts.pop().unwrap_or_else(|| state(spec, &[]));
                prop_assert_eq!(merged.encode(), straight.encode(), "{}", spec);
                prop_assert_eq!(merged.finalize(), straight.finalize());
                let json = serde_json::to_string(&merged).unwrap();
                prop_assert_eq!(serde_json::from_str::<State>(&json).unwrap(), straight);
            }
        }

        #[test]
        fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..80), tag in 0_u8..8) {
            let _ = State::decode(&bytes);
            let mut framed = vec![STATE_FORMAT, tag];
            framed.extend(bytes);
            if let Ok(state) = State::decode(&framed) {
                prop_assert_eq!(&State::decode(&state.encode()).unwrap(), &state);
                let _ = state.finalize();
            }
        }

        #[test]
        fn a_cut_state_is_refused(rows in rows(), cut in 0_usize..60) {
            for spec in ALL {
                let bytes = state(spec, &rows).encode();
                if cut < bytes.len() {
                    prop_assert!(State::decode(&bytes[..cut]).is_err());
                }
            }
        }
    }
}
