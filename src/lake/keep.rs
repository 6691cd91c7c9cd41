//! Which versions of a table are kept, and letting go of the others.

use super::{LakeError, Table, TableFormat, Version, Writer, delta, iceberg};

/// Versions to keep: the newest ones, and whatever somebody may be reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Every version that was the newest at this time or later (milliseconds since the epoch, by the clock of commits), but
    /// no more than `most`.
    pub since_ms: i64,
    /// How many versions at most, so that a table that is committed to every second does not drag a week of them along.
    pub most: usize,
    /// Every version that was the newest at this time or later, however many: somebody has been reading since then.
    pub read_since_ms: Option<i64>,
    /// The version that readers are given.
    pub published: Version,
}

impl Keep {
    /// Returns the first version to keep, of versions in order with the time from which each was the newest, if it is known.
    #[must_use]
    pub fn first(&self, versions: &[(Version, Option<i64>)]) -> Option<Version> {
        // A version was the newest until the next one came: the last one before a time is the first to keep.
        let newest_at = |time_ms: i64| {
            versions.iter().rposition(|(_, at_ms)| at_ms.is_some_and(|at_ms| at_ms <= time_ms)).unwrap_or(0)
        };
        let wanted = newest_at(self.since_ms).max(versions.len().saturating_sub(self.most.max(1)));
        let read = self.read_since_ms.map_or(wanted, newest_at);
        let (first, _) = versions.get(wanted.min(read))?;
        Some(*first.min(&self.published))
    }
}

impl Table {
    /// Lets go of versions that are not kept: they cannot be read any longer, and [`Table::sweep`] removes their files. What the
    /// newest version shows and what it remembers of commits stays. Returns how many went.
    ///
    /// # Errors
    /// [`LakeError::Fenced`] for a stale writer.
    pub async fn expire(&self, keep: &Keep, writer: Writer) -> Result<u64, LakeError> {
        let attempt = || async {
            match self.format {
                TableFormat::Delta => delta::expire(self, keep, writer).await,
                TableFormat::Iceberg => iceberg::expire(self, keep, writer).await,
            }
        };
        self.beside_others(attempt).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep { since_ms: 35, most: 100, read_since_ms: None, published: Version(9) };

    fn first(keep: Keep) -> Option<i64> {
        let versions: Vec<_> = (1..=9).map(|number| (Version(number), Some(number * 10))).collect();
        keep.first(&versions).map(|version| version.0)
    }

    #[test]
    fn what_was_the_newest_at_a_time_is_kept_and_all_after_it() {
        assert_eq!(first(KEEP), Some(3));
        assert_eq!(first(Keep { since_ms: 30, ..KEEP }), Some(3));
        assert_eq!(first(Keep { since_ms: 5, ..KEEP }), Some(1), "there was none yet");
        assert_eq!(first(Keep { since_ms: 1_000, ..KEEP }), Some(9), "the newest stays, however old");
        assert_eq!(KEEP.first(&[]), None);
    }

    #[test]
    fn readers_and_what_they_are_given_hold_on_to_versions() {
        assert_eq!(first(Keep { most: 2, ..KEEP }), Some(8));
        assert_eq!(first(Keep { most: 0, ..KEEP }), Some(9));
        assert_eq!(first(Keep { most: 2, read_since_ms: Some(55), ..KEEP }), Some(5));
        assert_eq!(first(Keep { read_since_ms: Some(15), ..KEEP }), Some(1));
        assert_eq!(
            first(Keep { read_since_ms: Some(95), ..KEEP }),
            Some(3),
            "it reads a newer one than is kept anyway"
        );
        // Somebody else has committed since.
        assert_eq!(first(Keep { since_ms: 1_000, published: Version(4), ..KEEP }), Some(4));
    }

    #[test]
    fn a_version_of_which_the_time_is_unknown_counts_as_young() {
        let versions = [(Version(1), Some(10)), (Version(2), None), (Version(3), None)];
        assert_eq!(KEEP.first(&versions), Some(Version(1)));
    }
}
