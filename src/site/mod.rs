//! The static status site: templates in, files out, published atomically.
