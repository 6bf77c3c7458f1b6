//! What can go wrong with a request, and what the client is told.

use std::time::Duration;

/// Why a request was not answered. The text of each is what the client reads under `error`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServeError {
    /// The request is not what the protocol or the model asks for: 400.
    #[error("{0}")]
    Invalid(String),
    /// Nobody said who they are, or not in a way that is believed: 401.
    #[error("{0}")]
    Unauthorized(String),
    /// The client may not do that: 403.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such route, model or version: 404.
    #[error("{0}")]
    NotFound(String),
    /// The route knows other methods: 405.
    #[error("{method} is not a method of {path}")]
    MethodNotAllowed {
        /// The method of the request.
        method: String,
        /// Its path.
        path: String,
    },
    /// The client was slower than it may be: 408.
    #[error("{0}")]
    TooSlow(String),
    /// The body, or what it would become, is larger than allowed: 413.
    #[error("{what} is {bytes} bytes, but at most {limit} are taken")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its bytes, or as many as were seen of them.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// There is more of something than allowed: 413.
    #[error("{what}: {count}, but at most {limit} are taken")]
    TooMany {
        /// What there is too much of.
        what: String,
        /// How many there are, or as many as were seen of them.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// The content type or encoding is none that is read here: 415.
    #[error("{0}")]
    UnsupportedMedia(String),
    /// The client asks more often than it may: 429.
    #[error("too many requests; the next is answered in {} ms", .retry_after.as_millis())]
    RateLimited {
        /// When the next one may come.
        retry_after: Duration,
    },
    /// The runtime failed on inputs that fit the model: 500.
    #[error("{0}")]
    Runtime(String),
    /// The protocol knows it, this server does not: 501.
    #[error("{0}")]
    Unsupported(String),
    /// The queue is full: 503.
    #[error("the queue of model '{model}' is full with {waiting} requests")]
    QueueFull {
        /// The model.
        model: String,
        /// How many wait.
        waiting: usize,
    },
    /// The server or the model does not take requests, or not yet: 503.
    #[error("{0}")]
    NotReady(String),
    /// The deadline passed before there was an answer: 504.
    #[error("the deadline of {} ms passed before the answer was there", .0.as_millis())]
    DeadlineExceeded(Duration),
}

impl ServeError {
    /// The HTTP status it is answered with.
    pub fn status(&self) -> u16 {
        match self {
            ServeError::Invalid(_) => 400,
            ServeError::Unauthorized(_) => 401,
            ServeError::Forbidden(_) => 403,
            ServeError::NotFound(_) => 404,
            ServeError::MethodNotAllowed { .. } => 405,
            ServeError::TooSlow(_) => 408,
            ServeError::TooLarge { .. } | ServeError::TooMany { .. } => 413,
            ServeError::UnsupportedMedia(_) => 415,
            ServeError::RateLimited { .. } => 429,
            ServeError::Runtime(_) => 500,
            ServeError::Unsupported(_) => 501,
            ServeError::QueueFull { .. } | ServeError::NotReady(_) => 503,
            ServeError::DeadlineExceeded(_) => 504,
        }
    }

    /// Whether it is the server's fault rather than the client's.
    pub fn is_ours(&self) -> bool {
        self.status() >= 500
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_status_and_a_message_for_the_client() {
        let full = ServeError::QueueFull { model: "digits".to_owned(), waiting: 8 };
        assert_eq!(full.status(), 503);
        assert_eq!(full.to_string(), "the queue of model 'digits' is full with 8 requests");
        let late = ServeError::DeadlineExceeded(Duration::from_millis(50));
        assert_eq!((late.status(), late.is_ours()), (504, true));
        let large = ServeError::TooLarge { what: "the body", bytes: 9, limit: 8 };
        assert_eq!(large.to_string(), "the body is 9 bytes, but at most 8 are taken");
        assert!(!large.is_ours());
    }
}
