//! Everything that reads files: whole meshes, and the standards' own examples.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "the fences are for the core; its tests read files and measure time"
)]

mod attacks;
mod codes;
mod fault_cases;
mod meshes;
mod standards;
mod support;
