//! Drift statistics: two-sample tests with an effect size and a p-value.
