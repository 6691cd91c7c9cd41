//! Aggregates as commutative monoids with a portable state: init, add, merge, finalize, encode.
//!
//! Only two kernels exist: *partial* (rows into a state) and *merge then finalize*. Backfill, stream, lookup and
//! training set all run these, and every state is an exact function of the multiset of rows it saw, so the
//! four answers are equal to the bit whatever the order, batching or merge tree.

mod codec;
mod distinct;
mod exact_sum;
mod spec;
mod state;
mod value;

pub use codec::DecodeError;
pub(crate) use codec::{Reader, Writer};
pub use distinct::{DISTINCT_STANDARD_ERROR, DistinctCount, EXACT_UP_TO, HASH_VERSION};
pub use exact_sum::ExactSum;
pub use spec::{AggFunction, AggSpec, AggSpecError};
pub use state::{STATE_FORMAT, State, StateError};
pub(crate) use value::float_text;
pub use value::{Order, Value, ValueKind};
