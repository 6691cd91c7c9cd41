//! The gate: regorus and opa-wasm behind one interface that fails closed.
