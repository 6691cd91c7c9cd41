//! The demo: plays a story through the public verbs, git pushes and the clock.
