//! Everything that reads files: whole meshes, and the standards' own examples.

mod meshes;
mod standards;
mod support;
