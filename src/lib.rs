//! Hydromesh: a GitOps orchestrator for a hydrated data mesh.
//!
//! The folder list is the flow: `repo -> (core: syntax, model, check, plan) -> policy -> apply -> work -> control -> report, site`.

// Both end the process when their reader has gone: `cli::print`, `cli::say` and `cli::tell` do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod apply;
pub mod backup;
mod child;
pub mod cli;
pub mod clock;
mod confine;
pub mod control;
mod cores;
pub mod demo;
pub mod disk;
pub mod engine;
pub mod fault;
pub mod forge;
pub mod lake;
pub mod notify;
pub mod online;
mod outage;
pub mod policy;
pub mod preview;
mod replay;
pub mod repo;
pub mod report;
pub mod runlog;
pub mod secrets;
pub mod serve;
pub mod site;
pub mod store;
pub mod stream;
mod text;
pub mod traces;
pub mod train;
pub mod vector;
pub mod work;
