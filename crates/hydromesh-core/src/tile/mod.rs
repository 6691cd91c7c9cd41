//! Hopping tiles and sawtooth windows over partial aggregates.

use serde::{Deserialize, Serialize};

/// The features of one pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewSpec {}
