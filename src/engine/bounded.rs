//! Functions that make as much as they are told to, held to what a machine has.
//!
//! Most functions make about as much as they are given, and what operators hold is counted by the memory pool. These make of a
//! number as many values: `range(0, 1000000000000)` asks for eight terabytes at once, in one call that nobody counts and
//! nothing can stop, and a request that is not met ends the process.

use std::any::Any;

use arrow::array::{Array, ArrayRef, AsArray as _};
use arrow::compute::{cast, kernels::length::length};
use arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::DataFusionError;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::prelude::SessionContext;

/// Most values that one call may make for one batch of rows: 80 MB of integers, a century of minutes twice over.
const MOST_VALUES: i128 = 10_000_000;
/// Most bytes of text that one call may make for one batch of rows: 256 MiB.
const MOST_BYTES: i128 = 256 << 20;

/// How much a function makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Makes {
    /// The text of the first argument, the second's number of times.
    Copies,
    /// Texts as long as the second argument says.
    Lengths,
    /// As many values as there are steps from one argument to another.
    Steps,
    /// As many values as the second argument says.
    Values,
}

const FUNCTIONS: [(&str, Makes); 7] = [
    ("repeat", Makes::Copies),
    ("lpad", Makes::Lengths),
    ("rpad", Makes::Lengths),
    ("range", Makes::Steps),
    ("generate_series", Makes::Steps),
    ("array_repeat", Makes::Values),
    ("array_resize", Makes::Values),
];

/// Puts bounded functions in the place of those that have no bound.
pub(super) fn bound_functions(context: &SessionContext) {
    for (name, makes) in FUNCTIONS {
        let state = context.state();
        if let Some(inner) = state.scalar_functions().get(name) {
            context.register_udf(ScalarUDF::new_from_impl(Bounded { inner: inner.as_ref().clone(), makes }));
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: ScalarUDF,
    makes: Makes,
}

impl ScalarUDFImpl for Bounded {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.inner().return_field_from_args(arguments)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        // A call of constants alone is made once.
        let (made, most, what) = match self.makes {
            Makes::Copies => (copies(&arrays)?, MOST_BYTES, "bytes of text"),
            Makes::Lengths => (sum(&integers(arrays.get(1))?), MOST_BYTES, "characters"),
            Makes::Steps => (steps(&arrays)?, MOST_VALUES, "values"),
            Makes::Values => (sum(&integers(arrays.get(1))?), MOST_VALUES, "values"),
        };
        if made > most {
            let message = format!(
                "{} would make {made} {what} out of one batch of rows, the limit is {most}",
                self.name()
            );
            return Err(DataFusionError::ResourcesExhausted(message));
        }
        self.inner.inner().invoke_with_args(arguments)
    }
}

/// Returns a column of numbers; what is no number counts as none.
fn integers(array: Option<&ArrayRef>) -> Result<Vec<Option<i128>>> {
    let Some(array) = array else { return Ok(Vec::new()) };
    let numbers = cast(array, &DataType::Int64)?;
    Ok(numbers.as_primitive::<Int64Type>().iter().map(|number| number.map(i128::from)).collect())
}

fn sum(numbers: &[Option<i128>]) -> i128 {
    numbers.iter().flatten().map(|number| (*number).max(0)).sum()
}

fn copies(arrays: &[ArrayRef]) -> Result<i128> {
    let Some(text) = arrays.first().filter(|text| text.data_type() != &DataType::Null) else { return Ok(0) };
    let (lengths, counts) = (integers(Some(&length(text)?))?, integers(arrays.get(1))?);
    let each = lengths.iter().zip(&counts).filter_map(|(length, count)| Some((*length)? * (*count)?.max(0)));
    Ok(each.sum())
}

/// Returns how many steps there are in all rows. A step of no length is the function's own to refuse.
fn steps(arrays: &[ArrayRef]) -> Result<i128> {
    let of_time = |array: &ArrayRef| array.data_type().is_temporal();
    if let [from, to, step] = arrays
        && (of_time(from) || of_time(to))
    {
        let step = cast(step, &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let step = step.as_primitive::<IntervalMonthDayNanoType>();
        let (from, to) = (instants(from)?, instants(to)?);
        return Ok((0..step.len())
            .filter(|row| !step.is_null(*row))
            .filter_map(|row| {
                let length = step.value(row);
                // The shortest month and the shortest day with a clock change: rather one step too many.
                let days = i128::from(length.months) * 28 + i128::from(length.days);
                let nanos = days * 23 * 3_600_000_000_000 + i128::from(length.nanoseconds);
                count((*to.get(row)?)? - (*from.get(row)?)?, nanos)
            })
            .sum());
    }
    let columns = arrays.iter().map(|array| integers(Some(array))).collect::<Result<Vec<_>>>()?;
    let rows = columns.first().map_or(0, Vec::len);
    Ok((0..rows)
        .filter_map(|row| match columns.as_slice() {
            [to] => count(to[row]?, 1),
            [from, to] => count(to[row]? - from[row]?, 1),
            [from, to, step] => count(to[row]? - from[row]?, step[row]?),
            _ => None,
        })
        .sum())
}

/// Nanoseconds since 1970.
fn instants(array: &ArrayRef) -> Result<Vec<Option<i128>>> {
    let millis = cast(array, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
    Ok(integers(Some(&millis))?.into_iter().map(|millis| millis.map(|millis| millis * 1_000_000)).collect())
}

fn count(distance: i128, step: i128) -> Option<i128> {
    distance.checked_div(step).map(|steps| steps.max(-1) + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::TryStreamExt as _;
    use hydromesh_core::ledger::ErrorKind;

    use super::super::{Engine, EngineConfig, EngineError};

    async fn rows(sql: &str) -> std::result::Result<usize, EngineError> {
        let config = EngineConfig { memory_bytes: 64 << 20, spill: std::env::temp_dir() };
        let rows = Engine::new(&config)?.select(sql, BTreeMap::new()).await?;
        let batches: Vec<_> = rows.try_collect().await?;
        Ok(batches.iter().map(arrow::array::RecordBatch::num_rows).sum())
    }

    #[tokio::test]
    async fn as_much_as_a_machine_has_can_be_made() {
        for (sql, expected) in [
            ("SELECT unnest(range(0, 1000000))", 1_000_000),
            ("SELECT unnest(range(5))", 5),
            ("SELECT unnest(range(10, 0, -2))", 5),
            ("SELECT unnest(generate_series(1, 10, 3))", 4),
            ("SELECT unnest(generate_series(DATE '2026-01-01', DATE '2026-12-31', INTERVAL '1 day'))", 365),
            (
                "SELECT unnest(range(TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-02', INTERVAL '1 minute'))",
                1_440,
            ),
            ("SELECT unnest(range(DATE '2026-12-31', DATE '2026-01-01', INTERVAL '1 day'))", 0),
            ("SELECT unnest(array_repeat('x', 1000))", 1_000),
            ("SELECT unnest(list_repeat('x', 7))", 7),
            ("SELECT unnest(array_resize(make_array(1, 2), 9, 0))", 9),
            ("SELECT repeat('ab', 1000) AS a, lpad('x', 100) AS b, rpad('x', 100, 'é') AS c", 1),
            ("SELECT repeat(NULL, 3) AS a, repeat('x', NULL) AS b, lpad('x', NULL) AS c", 1),
            ("SELECT repeat('x', -1) AS a, unnest(range(0, NULL)) AS b", 0),
        ] {
            assert_eq!(rows(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")), expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn what_no_machine_has_is_refused_and_ends_nothing() {
        for sql in [
            "SELECT range(0, 1000000000000)",
            "SELECT range(9223372036854775807)",
            "SELECT generate_series(-9223372036854775807, 9223372036854775807)",
            "SELECT range(1000000000000, 0, -1)",
            "SELECT generate_series(TIMESTAMP '1970-01-01', TIMESTAMP '2100-01-01', INTERVAL '1 microsecond')",
            "SELECT range(DATE '0001-01-01', DATE '9999-01-01', INTERVAL '1 second')",
            "SELECT array_repeat(1, 1000000000000)",
            "SELECT list_repeat('x', 1000000000000)",
            "SELECT array_resize(make_array(1), 1000000000000, 2)",
            "SELECT repeat('x', 1000000000)",
            "SELECT lpad('x', 2000000000, 'y')",
            "SELECT rpad('x', 2000000000, 'y')",
            // Of many rows each makes little.
            "SELECT repeat('some text', v * 1000) FROM (SELECT unnest(range(1, 8000)) AS v)",
            "SELECT range(v * 1000) FROM (SELECT unnest(range(1, 8000)) AS v)",
        ] {
            let error = rows(sql).await.expect_err(sql);
            assert_eq!((error.kind, error.code), (ErrorKind::User, "HM-X002"), "{sql}: {error}");
            assert!(error.message.contains("the limit is"), "{sql}: {error}");
        }
    }
}
