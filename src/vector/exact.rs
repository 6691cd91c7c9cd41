//! Exact nearest neighbours by scanning every vector: recall is 1 by construction.
//!
//! A scan reads `4 * dimensions` bytes per vector in order and is bound by the memory's bandwidth: 200,000 vectors of 384
//! are 307 MB, at 10 GB/s 31 ms. Well beyond that an approximate store is worth its loss of recall.

use std::cmp::Ordering;

/// Why a vector is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It has another length than the index.
    #[error("a vector of {found} numbers, where {expected} are expected")]
    Dimensions {
        /// Of the index.
        expected: usize,
        /// Of the vector.
        found: usize,
    },
    /// It holds a NaN or an infinity, or nothing but zeros, so that it points nowhere.
    #[error("a vector without direction")]
    NoDirection,
}

/// Unit vectors, one after the other.
#[derive(Debug, Clone)]
pub struct ExactIndex {
    dimensions: usize,
    data: Vec<f32>,
}

/// A vector of the index and how near it is to the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its number, in the order of [`ExactIndex::push`].
    pub row: usize,
    /// Cosine of the angle to the query, -1 to 1.
    pub score: f32,
}

impl Neighbour {
    /// Nearest first, then lower number: a total order, so that equal scores come out alike everywhere.
    fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}

impl ExactIndex {
    /// Returns an empty index.
    #[must_use]
    pub fn new(dimensions: usize) -> Self {
        Self { dimensions, data: Vec::new() }
    }

    /// Returns how many vectors it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len().checked_div(self.dimensions).unwrap_or(0)
    }

    /// Returns whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Adds a vector, scaled to unit length.
    ///
    /// # Errors
    /// [`IndexError`]; the index is unchanged.
    pub fn push(&mut self, vector: &[f32]) -> Result<(), IndexError> {
        self.check(vector)?;
        self.data.extend_from_slice(&unit(vector)?);
        Ok(())
    }

    /// Returns the cosine of every vector with the query, in the order of the vectors.
    ///
    /// # Errors
    /// [`IndexError`] for a query that is no vector of this index.
    pub fn scores(&self, query: &[f32]) -> Result<Vec<f32>, IndexError> {
        self.check(query)?;
        let query = unit(query)?;
        Ok(self.data.chunks_exact(self.dimensions.max(1)).map(|vector| dot(vector, &query)).collect())
    }

    /// Returns the `k` nearest vectors, nearest first.
    ///
    /// # Errors
    /// See [`ExactIndex::scores`].
    pub fn search(&self, query: &[f32], k: usize) -> Result<Vec<Neighbour>, IndexError> {
        let all = self.scores(query)?.into_iter().enumerate().map(|(row, score)| Neighbour { row, score });
        Ok(nearest(all.collect(), k))
    }

    fn check(&self, vector: &[f32]) -> Result<(), IndexError> {
        if vector.len() == self.dimensions {
            return Ok(());
        }
        Err(IndexError::Dimensions { expected: self.dimensions, found: vector.len() })
    }
}

/// Returns the first `k` in order, without sorting the rest.
pub(super) fn nearest(mut all: Vec<Neighbour>, k: usize) -> Vec<Neighbour> {
    if k == 0 {
        return Vec::new();
    }
    if k < all.len() {
        all.select_nth_unstable_by(k, Neighbour::order);
        all.truncate(k);
    }
    all.sort_unstable_by(Neighbour::order);
    all
}

/// Returns the vector scaled to length 1. One that has it within rounding stays as it is, to the bit.
///
/// # Errors
/// [`IndexError::NoDirection`].
pub(super) fn unit(vector: &[f32]) -> Result<Vec<f32>, IndexError> {
    let square: f64 = vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    if !square.is_finite() || square == 0.0 {
        return Err(IndexError::NoDirection);
    }
    // Rounding each of n numbers to 24 bits moves the squared length by less than 2^-22.
    if (square - 1.0).abs() < 1e-6 {
        return Ok(vector.to_vec());
    }
    let length = square.sqrt();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "components of a unit vector, rounded to the index's precision"
    )]
    Ok(vector.iter().map(|value| (f64::from(*value) / length) as f32).collect())
}

/// Sums in eight lanes, which the compiler keeps in one register; the order of additions is fixed, so that the result
/// does not depend on the machine.
fn dot(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut lanes = [0.0_f32; LANES];
    let (left_blocks, right_blocks) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest = left_blocks.remainder().iter().zip(right_blocks.remainder());
    let rest: f32 = rest.map(|(left, right)| left * right).sum();
    for (left, right) in left_blocks.zip(right_blocks) {
        for lane in 0..LANES {
            lanes[lane] += left[lane] * right[lane];
        }
    }
    // Adding a positive zero leaves no negative one, which would rank below it.
    lanes.iter().sum::<f32>() + rest + 0.0
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "ties are equal scores")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_scores_come_in_order_of_rows() {
        let mut index = ExactIndex::new(2);
        for vector in [[0.0, 1.0], [3.0, 0.0], [1.0, 0.0], [-1.0, 0.0]] {
            index.push(&vector).expect("a direction");
        }
        let found = index.search(&[2.0, 0.0], 3).expect("a query");
        assert_eq!(
            found.iter().map(|it| (it.row, it.score)).collect::<Vec<_>>(),
            vec![(1, 1.0), (2, 1.0), (0, 0.0)]
        );
        assert!(index.search(&[1.0, 0.0], 0).expect("a query").is_empty());
        assert_eq!(index.search(&[1.0, 0.0], usize::MAX).expect("a query").len(), 4);
    }

    #[test]
    fn vectors_without_direction_or_of_another_length_are_refused() {
        let mut index = ExactIndex::new(2);
        assert_eq!(index.push(&[0.0, 0.0]), Err(IndexError::NoDirection));
        assert_eq!(index.push(&[f32::NAN, 1.0]), Err(IndexError::NoDirection));
        assert_eq!(index.push(&[f32::INFINITY, 1.0]), Err(IndexError::NoDirection));
        assert_eq!(index.push(&[1.0]), Err(IndexError::Dimensions { expected: 2, found: 1 }));
        assert!(index.is_empty());
        assert_eq!(index.search(&[1.0, 1.0, 1.0], 1), Err(IndexError::Dimensions { expected: 2, found: 3 }));
    }

    fn vectors() -> impl Strategy<Value = (Vec<Vec<f32>>, Vec<f32>)> {
        (1_usize..40).prop_flat_map(|dimensions| {
            let vector = proptest::collection::vec(-4_i8..=4, dimensions)
                .prop_filter("a direction", |values| values.iter().any(|value| *value != 0))
                .prop_map(|values| values.into_iter().map(f32::from).collect::<Vec<f32>>());
            (proptest::collection::vec(vector.clone(), 0..60), vector)
        })
    }

    proptest! {
        /// Against cosines in double precision, fully sorted: whatever the scan leaves out is no nearer than what it
        /// returns. Components are small integers, so that ties are frequent.
        #[test]
        fn finds_what_a_naive_search_finds((vectors, query) in vectors(), k in 0_usize..70) {
            let mut index = ExactIndex::new(query.len());
            for vector in &vectors {
                index.push(vector).expect("a direction");
            }
            let cosine = |left: &[f32], right: &[f32]| -> f64 {
                let of = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
                of(left, right) / (of(left, left) * of(right, right)).sqrt()
            };
            let naive: Vec<f64> = vectors.iter().map(|vector| cosine(vector, &query)).collect();
            let found = index.search(&query, k).expect("a query");
            prop_assert_eq!(found.len(), k.min(vectors.len()));
            for pair in found.windows(2) {
                prop_assert!(pair[0].score > pair[1].score || (pair[0].score == pair[1].score && pair[0].row < pair[1].row));
            }
            let worst = found.last().map_or(f64::NEG_INFINITY, |last| f64::from(last.score));
            for (row, score) in naive.iter().enumerate() {
                match found.iter().find(|neighbour| neighbour.row == row) {
                    Some(neighbour) => prop_assert!((f64::from(neighbour.score) - score).abs() < 1e-5),
                    None => prop_assert!(k == 0 || *score <= worst + 1e-5),
                }
            }
        }
    }
}
