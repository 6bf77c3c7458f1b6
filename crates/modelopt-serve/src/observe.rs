//! What can be seen of the server from outside: metrics, a log line for each request, and the last minute.

mod live;
mod logged_values;
mod metrics;
mod model_metrics;
mod process;
mod request_log;
mod request_metrics;
mod timestamp;
mod traceparent;
mod triton;

pub use live::{Live, LiveFigures};
pub use logged_values::LoggedValues;
pub use metrics::{METRICS_CONTENT_TYPE, Metrics, ModelFacts, Outside};
pub use model_metrics::ModelMetrics;
pub use request_log::{LogSettings, LoggedModel, RequestLog, RequestRecord};
pub use request_metrics::{Protocol, RequestMetrics};
pub use traceparent::TraceContext;
