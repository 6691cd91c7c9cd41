//! Hopping tiles and sawtooth windows over partial aggregates.
