//! DataFusion: describes SQL offline and executes it over pinned inputs.
