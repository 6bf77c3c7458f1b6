//! What a server says while it runs.

mod curl;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use modelopt::runtime::{RuntimeError, RuntimeKind};
use modelopt_serve::engine::{Batching, ServedModel};
use modelopt_serve::http::ListenError;
use modelopt_serve::server::{Event, Example, ServerError, ServerSettings};
use modelopt_serve::service::Service;

/// How a client reaches the server.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    url: String,
    metrics: Option<String>,
    /// The certificate, where connections are encrypted.
    certificate: Option<PathBuf>,
    /// Whether a client has to say who it is: by a token, or by a key.
    tokens: bool,
    api_keys: bool,
}

impl Reached {
    /// What settings say of it.
    pub(crate) fn by(settings: &ServerSettings) -> Self {
        Reached {
            url: String::new(),
            metrics: None,
            certificate: settings.listener.tls.as_ref().map(|tls| tls.certificate.clone()),
            tokens: settings.guard.tokens.is_some(),
            api_keys: settings.guard.api_keys.is_some(),
        }
    }

    /// The same at these addresses.
    pub(crate) fn at(self, address: SocketAddr, metrics: Option<SocketAddr>) -> Self {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", named(address, self.certificate.is_some()));
        let metrics = metrics.map(|metrics| format!("http://{}/metrics", named(metrics, false)));
        Reached { url, metrics, ..self }
    }
}

/// An address as a client on this machine writes it. Certificates are for names, mostly.
fn named(address: SocketAddr, by_name: bool) -> String {
    let (ip, port) = (address.ip(), address.port());
    if by_name && (ip.is_loopback() || ip.is_unspecified()) {
        return format!("localhost:{port}");
    }
    if ip.is_unspecified() {
        return if ip.is_ipv6() { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") };
    }
    address.to_string()
}

/// Puts what a server tells into words.
pub(crate) struct Told {
    reached: Reached,
    runtime: RuntimeKind,
    service: Arc<Service>,
    since: Instant,
}

impl Told {
    pub(crate) fn new(reached: Reached, runtime: RuntimeKind, service: Arc<Service>) -> Self {
        Told { reached, runtime, service, since: Instant::now() }
    }

    /// Before any model is there.
    pub(crate) fn listening(&self) -> String {
        let Reached { url, metrics, .. } = &self.reached;
        match metrics {
            None => format!("listening on {url}\n"),
            Some(metrics) => format!("listening on {url}\nmetrics are at {metrics}\n"),
        }
    }

    /// What to warn of, and what to say.
    pub(crate) fn event(&mut self, event: Event) -> (Option<String>, String) {
        let silent = String::new();
        match event {
            Event::Loaded(model) => (None, loaded(&model, self.runtime)),
            Event::Failed(failed) => {
                let (name, error) = (failed.name, failed.error);
                (Some(format!("model '{name}' cannot be served: {error}")), silent)
            }
            Event::Unreadable(error) => {
                (Some(format!("the folder of models cannot be read: {error}")), silent)
            }
            Event::Started { not_ready: None } => (None, self.started()),
            Event::Started { not_ready: Some(why) } => {
                (Some(format!("the server is not ready: {why}")), self.started())
            }
            Event::Reloaded => (None, "models were read again\n".to_owned()),
            Event::Trouble(trouble) => (Some(trouble), silent),
            Event::Draining => {
                (None, "ending: requests are still answered for a while\n".to_owned())
            }
            _ => (None, silent),
        }
    }

    fn started(&self) -> String {
        let took = self.since.elapsed().as_secs_f64();
        match self.examples().into_values().next() {
            None => format!("started in {took:.2} s\n"),
            Some(example) => format!("started in {took:.2} s\nask it:\n{example}\n"),
        }
    }

    /// A line of `curl` for each model that answers.
    fn examples(&self) -> BTreeMap<String, String> {
        let models = self.service.models().into_iter();
        let lines = models.filter_map(|chosen| {
            let name = chosen.model.identity().name.clone();
            let line = curl::line(&self.reached, &name, &Example::of(&chosen.model)?);
            Some((name, line))
        });
        lines.collect()
    }

    /// The same for programs, on one line.
    pub(crate) fn document(&self) -> String {
        let models: Vec<serde_json::Value> =
            self.service.repository().models().iter().map(|model| described(model)).collect();
        let not_ready = self.service.not_ready().map(|error| error.to_string());
        let document = serde_json::json!({
            "schema": "modelopt.serve/1",
            "url": self.reached.url,
            "metrics": self.reached.metrics,
            "ready": not_ready.is_none(),
            "not_ready": not_ready,
            "runtime": self.runtime.name(),
            "models": models,
            "examples": self.examples(),
        });
        format!("{document}\n")
    }
}

fn described(model: &ServedModel) -> serde_json::Value {
    let identity = model.identity();
    let batching = model.batching();
    serde_json::json!({
        "name": identity.name,
        "version": identity.version,
        "blake3": identity.digest,
        "batching": matches!(batching, Batching::On(_)),
        "why": said(model, &batching),
    })
}

fn loaded(model: &ServedModel, runtime: RuntimeKind) -> String {
    let (identity, settings) = (model.identity(), model.settings());
    let threads = settings.session_threads();
    let sessions = settings.sessions;
    let (some, each) = (plural(sessions, "session"), plural(threads, "thread"));
    let batching = said(model, &model.batching());
    format!(
        "model {} version {} answers: {runtime}, {some} of {each}; {batching}\n",
        identity.name, identity.version
    )
}

/// Whether requests share runs, and why not.
fn said(model: &ServedModel, batching: &Batching) -> String {
    match batching {
        Batching::On(evidence) => format!(
            "up to {} rows run at once, which changed no row by more than {:.1e}",
            model.settings().max_batch_size,
            evidence.largest_difference
        ),
        Batching::Off(objection) => format!("requests run one by one: {objection}"),
        Batching::Stopped => {
            "requests run one by one: an output had no row for each row".to_owned()
        }
    }
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Why a server does not start, and what to try.
pub(crate) fn refused(error: &ServerError) -> anyhow::Error {
    let hint = match error {
        ServerError::Listen(ListenError::Address { source, .. }) => match source.kind() {
            ErrorKind::AddrInUse => {
                "; another program has it: --port N takes another one, --port 0 any"
            }
            ErrorKind::PermissionDenied => {
                "; ports below 1024 are not for everybody: --port N takes another one"
            }
            ErrorKind::AddrNotAvailable => {
                "; --host names an address of this machine, 0.0.0.0 for all of them"
            }
            _ => "",
        },
        _ => "",
    };
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !message.contains(&said) {
            message = format!("{message}: {said}");
        }
        cause = inner.source();
    }
    anyhow!("{message}{hint}")
}

/// Why there is no library of a runtime, and how to get one.
pub(crate) fn no_library(error: &RuntimeError) -> anyhow::Error {
    let install = RuntimeKind::by_library().find_map(RuntimeKind::install).unwrap_or_default();
    anyhow!("{error}; give one with --onnxruntime PATH, or install it with `{install}`")
}
