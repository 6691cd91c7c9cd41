//! Service level objectives as interval arithmetic over ledger facts.
//!
//! For each objective the state of the world is a function of time with the values good, bad, unknown and excluded. It
//! is piecewise constant, so its breakpoints are kept and not samples: results do not depend on an evaluation
//! interval, a recomputation gives the same bytes, and an evaluator that was down misses nothing.

mod burn;
mod daily;
mod objective;
mod report;
mod timeline;

pub use burn::{BurnAction, BurnLevel, burn_rate, default_levels};
pub use daily::{DayState, daily};
pub use objective::{Facts, Objective, ObjectiveError, ObjectiveKind, Publish, QualityResult};
pub use report::{Burn, Collection, SliReport, report};
pub use timeline::{SliceState, Tally, Timeline, good_bad_intervals};
