//! Who asks, and how often they may.
//!
//! [`Guard`] lets a request in or refuses it. It knows headers as text and addresses as addresses, so that
//! all protocols share it.

mod api_keys;
mod error;
mod guard;
mod rate;
#[cfg(test)]
mod testing;
mod token_keys;
mod tokens;
mod verified;
mod watched;

pub use error::SecurityError;
pub use guard::{Client, Credentials, Guard, GuardSettings};
pub use rate::RateSettings;
pub use token_keys::{KeySource, TokenAlgorithm};
pub use tokens::TokenSettings;
