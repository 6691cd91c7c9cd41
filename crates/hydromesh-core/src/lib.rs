//! The pure core of Hydromesh: everything that decides, nothing that touches the world.
#![forbid(unsafe_code)]

pub mod aggregate;
pub mod band;
pub mod check;
pub mod checkpoint;
pub mod compat;
pub mod condition;
pub mod control;
pub mod cost;
pub mod diag;
pub mod drift;
pub mod ids;
pub mod ledger;
pub mod lineage;
pub mod model;
pub mod observe;
pub mod plan;
mod planted;
pub mod slo;
pub mod spread;
pub mod sql;
pub mod syntax;
pub mod tile;
pub mod time;
pub mod trust;
pub mod waiver;
