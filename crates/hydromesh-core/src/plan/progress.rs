//! How far a product's partitions are, and when they will all be there.

use crate::ids::PortId;
use crate::ledger::LedgerState;

/// Publications that say how fast it goes: enough to even out chunks, few enough to follow a change of pace.
const PACE_OF: usize = 32;
/// A longer pause than this is no part of the same work, milliseconds.
const PAUSE_MS: i64 = 10 * 60_000;

/// How far the partitions of a port are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The port.
    pub port: PortId,
    /// Partitions to compute.
    pub left: u64,
    /// Partitions that have ended.
    pub of: u64,
    /// How long the rest takes at the pace of the last publications, milliseconds; unknown before the second one, and while
    /// nothing can begin.
    pub left_ms: Option<i64>,
}

/// Returns how long so many more publications of a port take at the pace of the last ones.
pub(super) fn at_this_pace(ledger: &LedgerState, port: &PortId, left: u64, now_ms: i64) -> Option<i64> {
    let times: Vec<i64> =
        ledger.ports.get(port)?.publishes.iter().rev().take(PACE_OF).map(|(at_ms, _)| *at_ms).collect();
    let newest = *times.first().filter(|newest| now_ms - **newest <= PAUSE_MS)?;
    let steady = times.windows(2).take_while(|pair| pair[0] - pair[1] <= PAUSE_MS).count();
    let oldest = *times.get(steady).filter(|_| steady > 0)?;
    let gaps = i64::try_from(steady).ok()?;
    Some((newest - oldest).saturating_mul(i64::try_from(left).ok()?) / gaps)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ledger::PortState;

    fn pace(times: &[i64], left: u64, now_ms: i64) -> Option<i64> {
        let port: PortId = "shop/orders.orders".parse().expect("a port");
        let mut state = PortState::default();
        state.publishes.extend(times.iter().map(|at_ms| (*at_ms, None)));
        let mut ledger = LedgerState::default();
        ledger.ports.insert(port.clone(), Arc::new(state));
        at_this_pace(&ledger, &port, left, now_ms)
    }

    #[test]
    fn the_last_publications_say_how_long_the_rest_takes() {
        assert_eq!(pace(&[0, 2_000, 4_000], 10, 5_000), Some(20_000));
        assert_eq!(pace(&[0], 10, 5_000), None, "one says nothing");
        assert_eq!(pace(&[0, 2_000], 10, PAUSE_MS + 2_001), None, "that was another time");
        // Yesterday's pace is not today's.
        assert_eq!(pace(&[0, 1, 90_000_000, 90_003_000], 2, 90_004_000), Some(6_000));
        assert_eq!(pace(&[0, 90_000_000], 2, 90_004_000), None);
        let many: Vec<i64> = (0..100).map(|at| if at < 50 { at } else { at * 1_000 }).collect();
        assert_eq!(pace(&many, 7, 100_000), Some(7_000));
    }
}
