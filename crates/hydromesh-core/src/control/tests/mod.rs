//! The machine over a world in memory.
