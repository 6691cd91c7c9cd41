//! Aggregates as commutative monoids with a portable state: init, add, merge, finalize, encode.
