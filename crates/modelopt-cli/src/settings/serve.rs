//! Settings of `serve`: flags over the environment over the file over what a platform has put in place.

mod model;
mod platform;

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use modelopt::runtime::RuntimeKind;
use modelopt_serve::cache::CacheLimits;
use modelopt_serve::engine::{EngineSettings, ModelSettings};
use modelopt_serve::http::{BodyLimits, HttpSettings, ListenerSettings, Tls};
use modelopt_serve::observe::{LogSettings, RequestLog};
use modelopt_serve::protocol::{ClassNames, NonFinite, Policy};
use modelopt_serve::security::{
    GuardSettings, KeySource, RateSettings, TokenAlgorithm, TokenSettings,
};
use modelopt_serve::server::{CacheSettings, Life, ServerSettings};
use modelopt_serve::service::ServiceSettings;

use crate::args::{ModelArguments, Serve, ServeFile, ServerArguments};
use crate::ending::Usage;
use crate::files::read_text;

pub(crate) use platform::Platform;

const HOST: &str = "127.0.0.1";
const PORT: u16 = 8080;
/// How long the head of a request may take.
const HEADER_SECONDS: f64 = 10.0;
/// Clients that are told apart by their rate.
const CLIENTS: usize = 100_000;
/// How far clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(60);

/// All that `serve` is told.
pub(crate) struct Serving {
    pub(crate) server: ServerSettings,
    pub(crate) runtime: RuntimeKind,
    pub(crate) library: Option<PathBuf>,
    pub(crate) log: Option<(PathBuf, LogSettings)>,
}

/// What the arguments, a file and the platform say together.
pub(crate) fn serving(args: &Serve, file: Option<&Path>, platform: &Platform) -> Result<Serving> {
    let file = match file {
        Some(path) => {
            let text = read_text(path)?;
            ServeFile::parse(&text).with_context(|| path.display().to_string())?
        }
        None => ServeFile::default(),
    };
    let said = args.server.clone().over(file.server);
    let common = args.model.clone().over(file.model);
    let source = model::source(said.model.as_deref(), said.name.as_deref(), platform)?;
    let of_models = file.models.into_iter().map(|(name, own)| {
        // What a flag says is said for all models.
        let own = args.model.clone().over(own).over(common.clone());
        Ok((name, model_settings(own)?))
    });
    let engine = EngineSettings {
        models: of_models.collect::<Result<_>>()?,
        default: model_settings(common)?,
    };
    let runtime = said.runtime.map_or_else(|| model::embedded(&source), Ok)?;
    let server = ServerSettings {
        listener: ListenerSettings {
            address: address(&said, platform)?,
            header_time: seconds("header-seconds", said.header_seconds, HEADER_SECONDS)?,
            tls: tls(&said)?,
        },
        metrics: said.metrics_port.map(|port| metrics(&said, platform, port)).transpose()?,
        http: http(&said, platform)?,
        source,
        engine,
        service: service(&said)?,
        cache: cache(&said)?,
        guard: guard(&said)?,
        life: life(&said)?,
    };
    let values = said.log_predictions.unwrap_or_default();
    if values && said.log.is_none() {
        return Err(usage("--log-predictions is for the log: name one with --log"));
    }
    let log = said.log.map(|path| (path, LogSettings { values, ..LogSettings::default() }));
    Ok(Serving { server, runtime, library: said.onnxruntime, log })
}

/// Opens the log.
pub(crate) fn open_log(path: &Path, settings: LogSettings) -> Result<RequestLog> {
    let out: Box<dyn Write + Send> = if path == Path::new("-") {
        Box::new(std::io::stdout())
    } else {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        Box::new(file.with_context(|| format!("cannot write the log {}", path.display()))?)
    };
    RequestLog::start(out, settings).context("cannot start the log")
}

fn model_settings(said: ModelArguments) -> Result<ModelSettings> {
    let default = ModelSettings::default();
    let settings = ModelSettings {
        sessions: said.sessions.unwrap_or(default.sessions),
        threads: said.threads.unwrap_or(default.threads),
        provider: said.provider.unwrap_or(default.provider),
        isolate: said.isolate.unwrap_or(default.isolate),
        samples: said.samples,
        max_batch_size: said.max_batch_size.unwrap_or(default.max_batch_size),
        preferred_batch_size: said.preferred_batch_size.unwrap_or(default.preferred_batch_size),
        max_queue_delay_microseconds: said
            .max_queue_delay_microseconds
            .unwrap_or(default.max_queue_delay_microseconds),
        batch_tolerance: said.batch_tolerance.unwrap_or(default.batch_tolerance),
        max_queue_size: said.max_queue_size.unwrap_or(default.max_queue_size),
        priority_levels: said.priority_levels.unwrap_or(default.priority_levels),
        default_priority_level: said
            .default_priority_level
            .unwrap_or(default.default_priority_level),
        default_timeout_microseconds: said.timeout_ms.unwrap_or(0).saturating_mul(1000),
    };
    settings.check().map_err(|error| Usage(error.to_string()))?;
    Ok(settings)
}

fn address(said: &ServerArguments, platform: &Platform) -> Result<SocketAddr> {
    let port = said.port.or(platform.port).unwrap_or(PORT);
    at(said, platform, port)
}

fn metrics(said: &ServerArguments, platform: &Platform, port: u16) -> Result<SocketAddr> {
    let own = address(said, platform)?;
    if port != 0 && port == own.port() {
        return Err(usage("--metrics-port is the port of the models; give it another one"));
    }
    at(said, platform, port)
}

fn at(said: &ServerArguments, platform: &Platform, port: u16) -> Result<SocketAddr> {
    let default = if platform.is_any { "0.0.0.0" } else { HOST };
    let host = said.host.as_deref().unwrap_or(default);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = (host, port).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| usage(&format!("--host {host} is no address of this machine")))
}

fn tls(said: &ServerArguments) -> Result<Option<Tls>> {
    match (&said.tls_certificate, &said.tls_key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            Ok(Some(Tls { certificate: certificate.clone(), key: key.clone() }))
        }
        _ => Err(usage("--tls-certificate and --tls-key belong together")),
    }
}

fn http(said: &ServerArguments, platform: &Platform) -> Result<HttpSettings> {
    let default = BodyLimits::default();
    let body = BodyLimits {
        bytes: said.max_body_bytes.unwrap_or(default.bytes),
        time: seconds("body-seconds", said.body_seconds, default.time.as_secs_f64())?,
    };
    Ok(HttpSettings { body, vertex: platform.vertex.clone(), ..HttpSettings::default() })
}

fn service(said: &ServerArguments) -> Result<ServiceSettings> {
    let non_finite = match said.refuse_nan {
        Some(true) => NonFinite::Refuse,
        _ => NonFinite::Allow,
    };
    let classes = match &said.class_names {
        None => None,
        Some(path) => {
            let text = read_text(path)?;
            let names = text.lines().map(|line| line.trim().to_owned()).collect();
            Some(ClassNames { output: None, names })
        }
    };
    Ok(ServiceSettings {
        policy: Policy { non_finite, ..Policy::default() },
        classes,
        model_control: said.model_control.unwrap_or_default(),
        default_model: said.default_model.clone(),
        ..ServiceSettings::default()
    })
}

fn cache(said: &ServerArguments) -> Result<CacheSettings> {
    let default = CacheLimits::default();
    let bytes = said.cache_bytes.unwrap_or(default.bytes);
    let limits = CacheLimits {
        bytes,
        largest: usize::try_from(bytes).unwrap_or(usize::MAX).min(default.largest),
        time_to_live: seconds(
            "cache-seconds",
            said.cache_seconds,
            default.time_to_live.as_secs_f64(),
        )?,
    };
    match said.cache.as_deref() {
        None | Some("off") => Ok(CacheSettings::Off),
        Some("memory") => Ok(CacheSettings::Embedded(limits)),
        Some(url) if url.contains("://") => Ok(CacheSettings::Redis(url.to_owned(), limits)),
        Some(other) => Err(usage(&format!(
            "--cache {other}: it is memory, or the address of a Redis such as redis://127.0.0.1:6379/0"
        ))),
    }
}

fn guard(said: &ServerArguments) -> Result<GuardSettings> {
    let rate = match (said.rate_limit, said.rate_burst) {
        (None, None) => None,
        (None, Some(_)) => return Err(usage("--rate-burst needs --rate-limit")),
        (Some(per_second), burst) => {
            let burst = burst
                .or_else(|| NonZero::new(per_second.ceil() as u32))
                .unwrap_or(NonZero::<u32>::MIN);
            Some(RateSettings { per_second, burst, clients: CLIENTS })
        }
    };
    Ok(GuardSettings { tokens: tokens(said)?, api_keys: said.api_keys.clone(), rate })
}

fn tokens(said: &ServerArguments) -> Result<Option<TokenSettings>> {
    let keys = match (&said.jwt_key, &said.jwt_jwks) {
        (Some(key), None) => KeySource::File(key.clone()),
        (None, Some(set)) => KeySource::JwkSet(set.clone()),
        (Some(_), Some(_)) => {
            return Err(usage("--jwt-key and --jwt-jwks contradict each other"));
        }
        (None, None) => {
            let more =
                [&said.jwt_algorithm, &said.jwt_issuer, &said.jwt_audience].into_iter().flatten();
            if more.count() > 0 {
                return Err(usage("tokens need a key: --jwt-key or --jwt-jwks"));
            }
            return Ok(None);
        }
    };
    let named = said.jwt_algorithm.as_deref().unwrap_or_default();
    let all = [TokenAlgorithm::Hs256, TokenAlgorithm::Rs256, TokenAlgorithm::Es256];
    let algorithm = all.into_iter().find(|one| one.name().eq_ignore_ascii_case(named));
    let algorithm = algorithm.ok_or_else(|| {
        usage("say what tokens are signed by: --jwt-algorithm HS256, RS256 or ES256")
    })?;
    Ok(Some(TokenSettings {
        algorithm,
        keys,
        issuer: said.jwt_issuer.clone(),
        audience: said.jwt_audience.clone(),
        leeway: LEEWAY,
    }))
}

fn life(said: &ServerArguments) -> Result<Life> {
    let default = Life::default();
    let drain = seconds("drain-seconds", said.drain_seconds, default.drain.as_secs_f64())?;
    let grace = seconds("grace-seconds", said.grace_seconds, default.grace.as_secs_f64())?;
    if drain > grace {
        return Err(usage(
            "--drain-seconds is part of --grace-seconds, and cannot be longer than that",
        ));
    }
    let poll = seconds("poll-seconds", said.poll_seconds, 0.0)?;
    Ok(Life { drain, grace, poll: (!poll.is_zero()).then_some(poll) })
}

/// A number of seconds.
fn seconds(name: &str, said: Option<f64>, default: f64) -> Result<Duration> {
    let number = said.unwrap_or(default);
    let known = Duration::try_from_secs_f64(number).ok();
    let known = known.filter(|time| *time <= Duration::from_secs(365 * 24 * 3600));
    known.ok_or_else(|| usage(&format!("--{name} {number}: it must be a number of seconds from 0")))
}

fn usage(message: &str) -> anyhow::Error {
    Usage(message.to_owned()).into()
}
