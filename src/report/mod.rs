//! Human, JSON and CI renderings of core values.
