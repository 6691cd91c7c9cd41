//! The machine over a world in memory, single-threaded, in virtual time.

mod mesh;
mod simulation;
mod story;
mod world;
