//! What does not need a process: rows as they are shown, and what is made of what was said.

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;

use super::*;

fn rows(numbers: &[i64]) -> Arc<dyn TableProvider> {
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from(numbers.to_vec()))),
        (
            "name",
            Arc::new(
                numbers.iter().map(|it| (it % 2 == 0).then(|| format!("a, {it}"))).collect::<StringArray>(),
            ),
        ),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, it)| (name, it, true)))
        .expect("a batch");
    Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("a table"))
}

#[tokio::test]
async fn rows_are_shown_with_their_names_and_also_when_there_are_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = show(&rows(&[1, 2]), RowsFormat::Csv, folder.path()).await.expect("shown");
    let text = std::fs::read_to_string(folder.path().join(name)).expect("a file");
    assert_eq!(text, "id,name\n1,\n2,\"a, 2\"\n");
    // Once for all rules that ask for them so.
    assert_eq!(show(&rows(&[3]), RowsFormat::Csv, folder.path()).await.expect("shown"), name);
    assert_eq!(std::fs::read_to_string(folder.path().join(name)).expect("a file"), text);
    let name = show(&rows(&[1, 2, 3]), RowsFormat::Parquet, folder.path()).await.expect("shown");
    let file = File::open(folder.path().join(name)).expect("a file");
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
    assert_eq!(reader.metadata().file_metadata().num_rows(), 3);

    let empty = tempfile::tempdir().expect("a folder");
    let name = show(&rows(&[]), RowsFormat::Csv, empty.path()).await.expect("shown");
    assert_eq!(std::fs::read_to_string(empty.path().join(name)).expect("a file"), "id,name\n");
}

#[test]
fn the_last_line_is_the_number() {
    assert_eq!(number("looking at 3 rows\n 0.5 \n\n"), Ok(0.5));
    assert_eq!(number("1e3"), Ok(1_000.0));
    for said in ["", "\n", "NaN", "inf", "3 rows", "0\nMara Meier, Berlin"] {
        let error = number(said).expect_err(said);
        assert!(!error.contains("Mara"), "{error}");
    }
}

#[test]
fn a_rule_names_nothing_but_itself() {
    assert_eq!(plain("../../etc/a rule"), "______etc_a_rule");
    assert_eq!(plain(&"a".repeat(200)).len(), 80);
}
