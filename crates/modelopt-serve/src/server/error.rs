//! Why a server does not run.

use std::io;

use tokio::task::JoinError;

use crate::cache::RedisError;
use crate::engine::SettingsError;
use crate::http::ListenError;
use crate::security::SecurityError;

/// Why a server does not run, or does not run any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A socket or a certificate cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Files of keys cannot be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The address of a Redis is none.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// Settings contradict themselves.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Not one model answers, and none will come.
    #[error("none of the models can be served")]
    NoModel,
    /// There is no model at all, and none will come.
    #[error("there is no model in the folder")]
    Empty,
    /// Connections cannot be taken any more.
    #[error("connections cannot be taken any more: {0}")]
    Broken(io::Error),
}

impl ServerError {
    /// Why a listener ended that nobody had ended.
    pub(super) fn ended(result: Result<io::Result<()>, JoinError>) -> Self {
        let error = match result {
            Ok(Ok(())) => io::Error::other("the listener ended"),
            Ok(Err(error)) => error,
            Err(error) => io::Error::other(error),
        };
        ServerError::Broken(error)
    }
}
