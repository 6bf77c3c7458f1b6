//! A line of JSON for each request, with the names of OpenTelemetry's log data model.
//!
//! Lines are written by a thread of their own. Where it cannot keep up they are dropped and counted: a full
//! disk or a slow pipe must not slow an answer.

use std::borrow::Cow;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::LoggedValues;
use super::TraceContext;
use super::timestamp::rfc3339;
use crate::cache::{CacheOutcome, InputDigest};
use crate::security::Client;
use crate::{ServeError, Timing};

/// What clients choose is cut to that many bytes.
const LONGEST_TEXT: usize = 256;
const LONGEST_ERROR: usize = 1024;
/// Lines are written together while there are more, up to so many bytes.
const WRITE_AT: usize = 64 * 1024;
const VALUES_SHARE: usize = 16;
/// How long the end waits for the last lines, which a pipe that nobody reads never takes.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How requests are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Whether inputs and outputs may be in it.
    pub values: bool,
    /// Lines that may wait to be written; a sixteenth of that where they have values.
    pub waiting: usize,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings { values: false, waiting: 4096 }
    }
}

/// A model in the log, made once when it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedModel {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// BLAKE3 of its file.
    pub blake3: String,
}

/// What is known of a request when it has been answered.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// When it came.
    pub time: SystemTime,
    /// Its place in a trace.
    pub trace: TraceContext,
    /// HTTP's method; `POST` of gRPC.
    pub method: &'static str,
    /// The route that took it, with names of parameters and not what the client put there.
    pub route: Cow<'static, str>,
    /// The status it was answered with.
    pub status: u16,
    /// From its first byte to its last.
    pub took: Duration,
    /// Bytes of its body.
    pub request_bytes: u64,
    /// Bytes of the body of the answer.
    pub response_bytes: u64,
    /// Why it failed.
    pub error: Option<ServeError>,
    /// What the client calls it.
    pub id: Option<String>,
    /// Who sent it.
    pub client: Option<Client>,
    /// The model that was asked.
    pub model: Option<Arc<LoggedModel>>,
    /// Where the time went.
    pub timing: Option<Timing>,
    /// Where the answer came from.
    pub cache: Option<CacheOutcome>,
    /// The digest of its inputs.
    pub inputs: Option<InputDigest>,
    /// Inputs and outputs, which are only written where the settings say so.
    pub values: Option<LoggedValues>,
}

/// Writes a line for each request.
pub struct RequestLog {
    sender: Option<SyncSender<RequestRecord>>,
    written: Mutex<Receiver<()>>,
    dropped: Arc<AtomicU64>,
    settings: LogSettings,
}

impl RequestLog {
    /// A log that writes to `out`.
    ///
    /// # Errors
    /// If there can be no thread for it.
    pub fn start(out: impl Write + Send + 'static, settings: LogSettings) -> std::io::Result<Self> {
        // A line with values takes many times the memory.
        let share = if settings.values { VALUES_SHARE } else { 1 };
        let (sender, receiver) = sync_channel(settings.waiting.div_ceil(share));
        let (done, written) = sync_channel(1);
        let dropped = Arc::<AtomicU64>::default();
        let lost = Arc::clone(&dropped);
        std::thread::Builder::new().name("request-log".to_owned()).spawn(move || {
            write_all(&receiver, out, &lost);
            // Nobody may be waiting.
            let _ = done.try_send(());
        })?;
        let written = Mutex::new(written);
        Ok(RequestLog { sender: Some(sender), written, dropped, settings })
    }

    /// Whether a record should have its values: making them is not free.
    pub fn wants_values(&self) -> bool {
        self.settings.values
    }

    /// Takes a record to be written, or drops it.
    pub fn write(&self, mut record: RequestRecord) {
        if !self.settings.values {
            record.values = None;
        }
        let sent = self.sender.as_ref().is_some_and(|sender| sender.try_send(record).is_ok());
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were dropped or could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        self.sender = None;
        let written = self.written.get_mut().unwrap_or_else(PoisonError::into_inner);
        if written.recv_timeout(LAST_LINES).is_err() {
            tracing::warn!("the last lines of the request log could not be written");
        }
    }
}

fn write_all(records: &Receiver<RequestRecord>, mut out: impl Write, lost: &AtomicU64) {
    let mut buffer = Vec::new();
    while let Ok(first) = records.recv() {
        buffer.clear();
        let mut lines = append(&mut buffer, &first);
        while buffer.len() < WRITE_AT
            && let Ok(next) = records.try_recv()
        {
            lines += append(&mut buffer, &next);
        }
        if out.write_all(&buffer).and_then(|()| out.flush()).is_err() {
            lost.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

/// Appends a line and says how many that is.
fn append(buffer: &mut Vec<u8>, record: &RequestRecord) -> u64 {
    let before = buffer.len();
    if serde_json::to_writer(&mut *buffer, &Line::of(record)).is_err() {
        buffer.truncate(before);
        return 0;
    }
    buffer.push(b'\n');
    1
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    severity_text: &'static str,
    body: String,
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    #[serde(rename = "service.name")]
    service_name: &'static str,
    #[serde(rename = "service.version")]
    service_version: &'static str,
    #[serde(rename = "http.request.method")]
    method: &'static str,
    #[serde(rename = "http.route")]
    route: &'a str,
    #[serde(rename = "http.response.status_code")]
    status: u16,
    #[serde(rename = "http.request.body.size")]
    request_bytes: u64,
    #[serde(rename = "http.response.body.size")]
    response_bytes: u64,
    duration_ms: f64,
    #[serde(rename = "model.name", skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(rename = "model.version", skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(rename = "model.blake3", skip_serializing_if = "Option::is_none")]
    blake3: Option<&'a str>,
    #[serde(rename = "request.id", skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "batch.rows", skip_serializing_if = "Option::is_none")]
    rows: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compute_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    #[serde(rename = "auth.sub", skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(rename = "input.digest", skip_serializing_if = "Option::is_none")]
    inputs: Option<String>,
    #[serde(rename = "input.values", skip_serializing_if = "Option::is_none")]
    input_values: Option<&'a serde_json::Value>,
    #[serde(rename = "output.values", skip_serializing_if = "Option::is_none")]
    output_values: Option<&'a serde_json::Value>,
}

impl<'a> Line<'a> {
    fn of(record: &'a RequestRecord) -> Self {
        let model = record.model.as_deref();
        let values = record.values.as_ref();
        Line {
            timestamp: rfc3339(record.time),
            severity_text: severity(record.status),
            body: body(record),
            trace_id: record.trace.trace_id(),
            span_id: record.trace.span_id(),
            parent_span_id: record.trace.parent_id(),
            service_name: "modelopt",
            service_version: env!("CARGO_PKG_VERSION"),
            method: record.method,
            route: &record.route,
            status: record.status,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            duration_ms: milliseconds(record.took),
            model: model.map(|model| model.name.as_str()),
            version: model.map(|model| model.version.as_str()),
            blake3: model.map(|model| model.blake3.as_str()),
            id: record.id.as_deref().map(|id| cut(id, LONGEST_TEXT)),
            rows: record.timing.map(|timing| timing.batch_rows),
            queue_ms: record.timing.map(|timing| milliseconds(timing.queue)),
            compute_ms: record.timing.map(|timing| milliseconds(timing.compute)),
            cache: record.cache.map(CacheOutcome::name),
            subject: record.client.as_ref().and_then(Client::name),
            inputs: record.inputs.map(|digest| digest.to_string()),
            input_values: values.map(|values| &values.inputs),
            output_values: values.map(|values| &values.outputs),
        }
    }
}

fn severity(status: u16) -> &'static str {
    match status {
        500.. => "ERROR",
        400..500 => "WARN",
        _ => "INFO",
    }
}

fn body(record: &RequestRecord) -> String {
    match &record.error {
        Some(error) => cut(&error.to_string(), LONGEST_ERROR).to_owned(),
        None => format!("{} {}", record.method, record.route),
    }
}

/// To the microsecond, as a number that is written with no more digits than it has.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// The start of a text, in whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::time::UNIX_EPOCH;

    use indexmap::IndexMap;
    use modelopt_graph::Tensor;
    use serde_json::{Value, json};

    use super::*;
    use crate::Inference;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        fn lines(&self) -> Vec<Value> {
            let bytes = self.0.lock().unwrap();
            let text = std::str::from_utf8(&bytes).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn bare() -> RequestRecord {
        RequestRecord {
            time: UNIX_EPOCH + Duration::from_millis(1_709_251_200_007),
            trace: TraceContext::of(Some(
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )),
            method: "POST",
            route: "/v2/models/{model}/infer".into(),
            status: 404,
            took: Duration::from_micros(1_250),
            request_bytes: 120,
            response_bytes: 40,
            error: Some(ServeError::NotFound("there is no model 'x\ny'".to_owned())),
            id: None,
            client: None,
            model: None,
            timing: None,
            cache: None,
            inputs: None,
            values: None,
        }
    }

    fn one(element: f32) -> IndexMap<String, Tensor> {
        [("x".to_owned(), Tensor::scalar(element))].into_iter().collect()
    }

    fn full() -> RequestRecord {
        let model = LoggedModel {
            name: "digits".to_owned(),
            version: "3".to_owned(),
            blake3: "abc".to_owned(),
        };
        let (queue, compute) = (Duration::from_micros(300), Duration::from_micros(700));
        RequestRecord {
            status: 200,
            error: None,
            id: Some("é".repeat(200)),
            client: Some(Client::Subject("alice".into())),
            model: Some(Arc::new(model)),
            timing: Some(Timing { queue, compute, batch_rows: 4 }),
            cache: Some(CacheOutcome::Miss),
            inputs: Some(InputDigest::of(&Inference::default())),
            values: Some(LoggedValues::of(&one(1.5), Some(&one(0.5)))),
            ..bare()
        }
    }

    fn logged(settings: LogSettings, record: RequestRecord) -> Value {
        let out = Shared::default();
        let log = RequestLog::start(out.clone(), settings).unwrap();
        log.write(record);
        drop(log);
        out.lines().remove(0)
    }

    #[test]
    fn a_line_has_the_fields_that_are_known_and_no_values() {
        let mut line = logged(LogSettings::default(), full());
        let span = line.as_object_mut().unwrap().remove("span_id").unwrap();
        assert_eq!(span.as_str().unwrap().len(), 16);
        let digest = InputDigest::of(&Inference::default()).to_string();
        let expected = json!({
            "timestamp": "2024-03-01T00:00:00.007Z", "severity_text": "INFO",
            "body": "POST /v2/models/{model}/infer",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "parent_span_id": "00f067aa0ba902b7",
            "service.name": "modelopt", "service.version": env!("CARGO_PKG_VERSION"),
            "http.request.method": "POST", "http.route": "/v2/models/{model}/infer",
            "http.response.status_code": 200,
            "http.request.body.size": 120, "http.response.body.size": 40, "duration_ms": 1.25,
            "model.name": "digits", "model.version": "3", "model.blake3": "abc",
            "request.id": "é".repeat(128), "batch.rows": 4, "queue_ms": 0.3, "compute_ms": 0.7,
            "cache": "miss", "auth.sub": "alice", "input.digest": digest,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn values_are_in_it_only_when_asked() {
        let asked = LogSettings { values: true, ..LogSettings::default() };
        let line = logged(asked, full());
        assert_eq!(line["input.values"], json!({ "x": { "shape": [], "data": [1.5] } }));
        assert_eq!(line["output.values"], json!({ "x": { "shape": [], "data": [0.5] } }));
    }

    #[test]
    fn a_request_that_failed_early_has_what_is_known_on_one_line() {
        let line = logged(LogSettings::default(), bare());
        assert_eq!(line["severity_text"], "WARN");
        assert_eq!(line["body"], "there is no model 'x\ny'");
        assert!(line.get("model.name").is_none() && line.get("auth.sub").is_none());
        let error = Some(ServeError::Runtime("a".repeat(5_000)));
        let line = logged(LogSettings::default(), RequestRecord { status: 500, error, ..bare() });
        assert_eq!(line["severity_text"], "ERROR");
        assert_eq!(line["body"].as_str().unwrap().len(), LONGEST_ERROR);
    }

    /// Takes nothing until it is let go.
    struct Stuck(Receiver<()>, Shared);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_hangs_costs_lines_and_not_time() {
        let (go, wait) = sync_channel(0);
        let out = Shared::default();
        let settings = LogSettings { waiting: 10, ..LogSettings::default() };
        let log = RequestLog::start(Stuck(wait, out.clone()), settings).unwrap();
        let start = std::time::Instant::now();
        for _ in 0..1_000 {
            log.write(bare());
        }
        assert!(start.elapsed() < Duration::from_millis(500));
        let dropped = log.dropped();
        // Ten wait, and what the thread took before it hung is under way.
        assert!((900..=990).contains(&dropped), "{dropped}");
        drop(go);
        drop(log);
        assert_eq!(out.lines().len() as u64 + dropped, 1_000);
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted() {
        let log = RequestLog::start(Full, LogSettings::default()).unwrap();
        for _ in 0..20 {
            log.write(bare());
        }
        for _ in 0..200 {
            if log.dropped() == 20 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{}", log.dropped());
    }
}
