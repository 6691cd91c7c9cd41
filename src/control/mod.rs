//! Turns the world into events and performs the effects that core decides.
