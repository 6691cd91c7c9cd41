//! Delivers the outbox: mail over SMTP, or `.eml` files.
