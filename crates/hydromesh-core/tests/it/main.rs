//! Everything that reads files: whole meshes, and the standards' own examples.

mod codes;
mod meshes;
mod standards;
mod support;
