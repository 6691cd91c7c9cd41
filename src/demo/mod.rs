//! The demo: plays a story through the public verbs, git pushes and the clock.
//!
//! It has no code path of its own: the controller is [`crate::control::up`], commits go into a bare repository, events
//! into a topic, and what the story waits for is read from the ledger.

pub mod data;
mod prepare;
mod story;
mod summary;

pub use prepare::{Prepared, prepare};
pub use story::{Ended, Stage, StoryOptions, play};
pub use summary::{Site, Summary, summary};
