//! What a trainer that is a program is shown, and what it answers: rows of a training set, and a score for each.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;

use super::TrainError;
use super::set::Example;

/// The column of the label. No feature has its name: those end with their window.
pub const LABEL: &str = "label";

/// A line of scores is a number of at most 17 digits; with sign, point, exponent and spaces this is more than enough.
const MOST_LINE_BYTES: u64 = 64;

/// Returns rows of a training set as a program is shown them: a column per feature, named, with nulls where there is no value, and
/// the label if it is to be seen. A feature without a place has no value in any row.
///
/// # Errors
/// When two features have one name.
pub fn example_rows(
    features: &[(&str, Option<usize>)],
    rows: &[Example],
    labelled: Labels,
) -> Result<RecordBatch, ArrowError> {
    let column = |place: Option<usize>| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row.values[place?]).collect::<Float64Array>())
    };
    let mut fields: Vec<Field> =
        features.iter().map(|(name, _)| Field::new(*name, DataType::Float64, true)).collect();
    let mut columns: Vec<ArrayRef> = features.iter().map(|(_, place)| column(*place)).collect();
    if labelled == Labels::Shown {
        fields.push(Field::new(LABEL, DataType::Int64, false));
        columns.push(Arc::new(rows.iter().map(|row| i64::from(row.positive)).collect::<Int64Array>()));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Whether a program sees labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// It is to fit them.
    Shown,
    /// It is to be measured against them.
    Hidden,
}

/// Returns the scores that a program wrote: one from 0 to 1 a line, as many as rows.
///
/// # Errors
/// [`TrainError::NoScores`]. What stands there instead is not told: it may be a row.
pub fn read_scores(path: &Path, rows: usize) -> Result<Vec<f64>, TrainError> {
    let failed = |why: String| TrainError::NoScores { why };
    let about = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(failed("it wrote no file at HYDROMESH_SCORES".to_owned()));
        }
        about => about.map_err(|error| failed(error.to_string()))?,
    };
    if !about.is_file() {
        return Err(failed("what it left at HYDROMESH_SCORES is no plain file".to_owned()));
    }
    let most = (rows as u64).saturating_add(1).saturating_mul(MOST_LINE_BYTES);
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(most.saturating_add(1)).read_to_string(&mut text));
    let read = read.map_err(|_| failed("its file is no text".to_owned()))?;
    if read as u64 > most {
        return Err(failed(format!("its file is longer than {rows} lines of one number each")));
    }
    let lines: Vec<&str> = text.trim_end().lines().collect();
    if lines.len() != rows {
        let word = if lines.len() == 1 { "line" } else { "lines" };
        return Err(failed(format!("{} {word} for {rows} rows", lines.len())));
    }
    let score = |(number, line): (usize, &&str)| {
        let score = line.trim().parse::<f64>().ok().filter(|score| (0.0..=1.0).contains(score));
        score.ok_or_else(|| failed(format!("line {} is no number from 0 to 1", number + 1)))
    };
    lines.iter().enumerate().map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_one_probability_a_row_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores");
        let read = |text: &str, rows| {
            std::fs::write(&path, text).unwrap();
            read_scores(&path, rows).map_err(|error| format!("{}: {error}", error.code()))
        };
        assert_eq!(read("0\n 0.25 \n1\n", 3), Ok(vec![0.0, 0.25, 1.0]));
        assert_eq!(read("1e-3", 1), Ok(vec![0.001]));
        for (text, says) in [
            ("", "0 lines for 2 rows"),
            ("0.5\n", "1 line for 2 rows"),
            ("0.5\n0.5\n0.5\n", "3 lines for 2 rows"),
            ("0.5\n1.5\n", "line 2 is no number from 0 to 1"),
            ("-0.1\n0.5\n", "line 1 is no number"),
            ("0.5\nNaN\n", "line 2 is no number"),
            ("0.5\nMara Meier, Berlin\n", "line 2 is no number"),
            (&"x".repeat(500), "longer than 2 lines"),
        ] {
            let error = read(text, 2).unwrap_err();
            assert!(error.starts_with("HM-T016: ") && error.contains(says), "{text}: {error}");
            assert!(!error.contains("Mara"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(read_scores(&path, 2).unwrap_err().to_string().contains("wrote no file"));
        // What lies elsewhere is not read, whatever it is.
        std::fs::write(folder.path().join("elsewhere"), "0\n1\n").unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(read_scores(&path, 2).unwrap_err().to_string().contains("no plain file"));
    }

    #[test]
    fn rows_have_the_names_of_features_and_labels_only_where_they_are_fitted() {
        let row = |value, positive| Example { event_ms: 0, values: vec![Some(1.0), value], positive };
        let rows = [row(Some(2.0), true), row(None, false)];
        let features = [("spend_7d", Some(1)), ("gone_7d", None)];
        let text = |labels| {
            let batch = example_rows(&features, &rows, labels).unwrap();
            let mut text = Vec::new();
            arrow::csv::Writer::new(&mut text).write(&batch).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(text(Labels::Shown), "spend_7d,gone_7d,label\n2.0,,1\n,,0\n");
        assert_eq!(text(Labels::Hidden), "spend_7d,gone_7d\n2.0,\n,\n");
    }
}
