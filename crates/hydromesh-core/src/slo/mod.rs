//! Service level objectives as interval arithmetic over ledger facts.
