//! What development and tests need beside the toolkit itself: test models and node tests
//! ([`setup`], [`testdata`]), second opinions from Python ([`oracle`]), runs over other people's
//! tests ([`conformance`]), planted damages ([`sweep`]), all models in all runtimes
//! ([`every_runtime`]), other people's clients ([`clients`]), a browser ([`devtools`]), README's
//! figures ([`results`], [`peers`]), what may come in from outside ([`dependencies`],
//! [`features`]), what depends on the machine ([`machine`]) and the generated operator table
//! ([`schema`]).
//!
//! The crates use this library in their tests; it depends on none of them. Everything it
//! downloads or makes lies under the workspace's target folder.

pub mod clients;
pub mod conformance;
pub mod dependencies;
pub mod devtools;
pub mod every_runtime;
pub mod features;
pub mod machine;
pub mod oracle;
pub mod parallel;
pub mod peers;
mod program;
mod readme;
pub mod results;
pub mod schema;
pub mod setup;
pub mod sweep;
pub mod testdata;
