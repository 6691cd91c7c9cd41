//! A hash of rows as a multiset.

use std::sync::Arc;

use arrow::{
    datatypes::{Field, Schema},
    row::{RowConverter, SortField},
};
use datafusion::{catalog::TableProvider, prelude::SessionContext};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use super::{LakeError, types::plain_column};

/// Hashes each row by itself and adds the hashes up, modulo 2^256: a sum knows no order, and
/// unlike an exclusive or it counts repetitions.
pub(super) async fn content_hash(
    provider: Arc<dyn TableProvider>,
    exclude: &[&str],
) -> Result<String, LakeError> {
    let mut names: Vec<String> =
        provider.schema().fields().iter().map(|field| field.name().clone()).collect();
    names.retain(|name| !exclude.contains(&name.as_str()));
    names.sort();
    let context = SessionContext::new();
    let frame = context.read_table(provider)?;
    let columns: Vec<_> = names.iter().map(|name| datafusion::prelude::ident(name.as_str())).collect();
    let mut batches = frame.select(columns)?.execute_stream().await?;

    let mut converter: Option<RowConverter> = None;
    let mut shape = String::new();
    let mut sum = [0u64; 4];
    let mut rows_seen = 0u64;
    while let Some(batch) = batches.try_next().await? {
        let columns = batch.columns().iter().map(plain_column).collect::<Result<Vec<_>, _>>()?;
        let converter = match &mut converter {
            Some(converter) => converter,
            None => {
                let fields = names
                    .iter()
                    .zip(&columns)
                    .map(|(name, column)| Field::new(name, column.data_type().clone(), true));
                shape = format!("{:?}", Schema::new(fields.collect::<Vec<_>>()).fields());
                let fields =
                    columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
                converter.insert(RowConverter::new(fields)?)
            }
        };
        for row in &converter.convert_columns(&columns)? {
            add(&mut sum, &Sha256::digest(row.as_ref()));
            rows_seen += 1;
        }
    }
    let mut whole = Sha256::new();
    // Without rows there is nothing the shape could tell apart.
    if rows_seen > 0 {
        whole.update(shape.as_bytes());
    }
    whole.update(rows_seen.to_le_bytes());
    for limb in sum {
        whole.update(limb.to_le_bytes());
    }
    Ok(hex::encode(whole.finalize()))
}

fn add(sum: &mut [u64; 4], digest: &[u8]) {
    let mut carry = false;
    for (limb, bytes) in sum.iter_mut().zip(digest.chunks_exact(8)) {
        let value = u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
        let (partial, over) = limb.overflowing_add(value);
        let (total, over_again) = partial.overflowing_add(u64::from(carry));
        *limb = total;
        carry = over || over_again;
    }
}
