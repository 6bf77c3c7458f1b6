//! Nothing but features of other crates: see this package's `Cargo.toml`.
