//! Embedding providers and vector stores.
