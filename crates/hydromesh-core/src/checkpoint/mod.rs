//! The offset-chained commit: which source ranges a stream commit may carry.
