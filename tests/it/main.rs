//! The binary on fixture repositories: environment cleared, everything in temporary folders. One binary for all.

mod asked;
mod bad_input;
mod check;
mod commands;
mod crash;
mod cut;
mod diff;
mod gate;
mod help;
mod keys;
mod lists;
mod made;
mod plan;
mod policy;
mod sealed;
mod story;
mod support;
