//! Everything over HTTP: routes, bodies, answers, and the listener.
//!
//! | file | what |
//! |---|---|
//! | `router.rs` | which path is answered by what |
//! | `exchange.rs` | what every request goes through: admitted, timed, counted, logged, compressed |
//! | `body.rs` | reads a body within limits of size and time, and unpacks it |
//! | `respond.rs` | answers, and errors as the protocol writes them |
//! | `health.rs`, `metadata.rs`, `repository.rs` | what is not an inference |
//! | `infer.rs` | the Open Inference Protocol |
//! | `people.rs`, `platforms.rs` | `/predict`, and the routes of SageMaker and Vertex AI |
//! | `openapi.rs` | the description of all routes |
//! | `page.rs` | the page at `/`, and the figures that it shows |
//! | `listener.rs` | sockets, TLS, and the end |

mod body;
mod exchange;
mod health;
mod infer;
mod listener;
mod metadata;
mod openapi;
mod page;
mod people;
mod platforms;
mod repository;
mod respond;
mod router;
#[cfg(test)]
mod tests;

pub use body::BodyLimits;
pub use listener::{Control, ListenError, Listener, ListenerSettings, Tls};
pub use platforms::VertexRoutes;
pub use router::{HttpSettings, metrics_router, router};
