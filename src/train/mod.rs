//! Trainers that really fit a model, and their registry.
