//! The machine over a world in memory, single-threaded, in virtual time.

mod asked;
mod cases;
mod ends;
mod faults;
mod found;
mod hunt;
mod kept;
mod keys;
mod lists;
mod mesh;
mod oracles;
mod preview;
mod signed;
mod simulation;
mod stands;
mod steps;
mod story;
mod tends;
mod turns;
mod windows;
mod world;
