//! Performs one attempt of a step; idempotent and fenced by generation.
