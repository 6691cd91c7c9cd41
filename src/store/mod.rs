//! The ledger's store: append with an expected epoch, read, snapshot, lease.
