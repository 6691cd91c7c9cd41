//! The machine over a world in memory, single-threaded, in virtual time.

mod mesh;
mod story;
mod world;
