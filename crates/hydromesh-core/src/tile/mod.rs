//! Hopping tiles and sawtooth windows over partial aggregates.
//!
//! The window of length W seen at time q is `[floor((q - W) / h) * h, q)`: its head slides, its tail hops by the step
//! h that the declared tail error allows, and an event at exactly q is outside. One definition, four uses: the
//! backfill and the stream run [`partial`], a lookup merges the tiles of a [`TileStore`], a training set is
//! swept by [`point_in_time`]; all of them are the two kernels of [`crate::aggregate`].

mod bitemporal;
mod partial;
mod point_in_time;
mod spec;
mod store;

pub use bitemporal::{BitemporalLog, Head};
pub use partial::{Row, TileDelta, TileKey, partial};
pub use point_in_time::{SpineRow, point_in_time};
pub use spec::{Column, FeatureSpec, Tail, TailError, TileError, ViewSpec, choose_step};
pub use store::TileStore;
