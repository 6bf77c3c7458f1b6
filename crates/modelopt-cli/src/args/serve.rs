//! `modelopt serve`.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use modelopt::runtime::RuntimeKind;
use serde::Deserialize;

/// A setting by flag, by variable of the environment and by key of a file, all of one name.
macro_rules! settings {
    (
        $(#[$outer:meta])*
        $name:ident { $( $(#[$inner:meta])* $field:ident: $ty:ty, )* }
    ) => {
        #[derive(Args, Clone, Debug, Default, Deserialize)]
        #[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
        $(#[$outer])*
        pub(crate) struct $name {
            $( $(#[$inner])* pub(crate) $field: Option<$ty>, )*
        }

        impl $name {
            /// The names of all settings.
            pub(crate) const NAMES: &[&str] = &[$(stringify!($field)),*];

            /// These, and `lower` where nothing is said.
            pub(crate) fn over(self, lower: Self) -> Self {
                $name { $( $field: self.$field.or(lower.$field), )* }
            }
        }
    };
}

#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

settings! {
    /// How the server is reached and what it does.
    ServerArguments {
        /// Model, or folder of models NAME/VERSION/model.onnx; where none is given, what SageMaker, KServe
        /// or Vertex AI have put in place
        #[arg(value_name = "MODEL|FOLDER", env = "MODELOPT_SERVE_MODEL")]
        model: PathBuf,
        /// Address to listen on [default: 127.0.0.1; on those platforms 0.0.0.0]
        #[arg(long, value_name = "ADDRESS", env = "MODELOPT_SERVE_HOST")]
        host: String,
        /// Port; 0 for any that is free [default: 8080]
        #[arg(long, value_name = "N", env = "MODELOPT_SERVE_PORT")]
        port: u16,
        /// Runtime that models run in [default: the embedded one for their size]
        #[arg(long, value_name = "NAME", env = "MODELOPT_SERVE_RUNTIME")]
        runtime: RuntimeKind,
        /// Library of ONNX Runtime, or a folder that holds it
        #[arg(long, value_name = "PATH", env = "MODELOPT_SERVE_ONNXRUNTIME")]
        onnxruntime: PathBuf,
        /// What a single model is called [default: the name of its file]
        #[arg(long, value_name = "NAME", env = "MODELOPT_SERVE_NAME")]
        name: String,
        /// Let clients load and unload models
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", env = "MODELOPT_SERVE_MODEL_CONTROL")]
        model_control: bool,
        /// The model that answers where a route names none [default: the only one]
        #[arg(long, value_name = "NAME", env = "MODELOPT_SERVE_DEFAULT_MODEL")]
        default_model: String,
        /// Read models again when their files change, looked at that often; 0 for never [default: 0]
        #[arg(long, value_name = "S", env = "MODELOPT_SERVE_POLL_SECONDS")]
        poll_seconds: f64,
        /// Largest body of a request [default: 67108864]
        #[arg(long, value_name = "BYTES", env = "MODELOPT_SERVE_MAX_BODY_BYTES", help_heading = "Limits")]
        max_body_bytes: usize,
        /// How long a body may take [default: 30]
        #[arg(long, value_name = "S", env = "MODELOPT_SERVE_BODY_SECONDS", help_heading = "Limits")]
        body_seconds: f64,
        /// How long the head of a request may take [default: 10]
        #[arg(long, value_name = "S", env = "MODELOPT_SERVE_HEADER_SECONDS", help_heading = "Limits")]
        header_seconds: f64,
        /// Refuse inputs that are NaN or infinite
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", env = "MODELOPT_SERVE_REFUSE_NAN", help_heading = "Limits")]
        refuse_nan: bool,
        /// Names of classes, one on each line, for what /predict answers
        #[arg(long, value_name = "FILE", env = "MODELOPT_SERVE_CLASS_NAMES")]
        class_names: PathBuf,
        /// Keep answers: memory, or the address of a Redis (redis://HOST:PORT/DATABASE)
        #[arg(long, value_name = "WHERE", env = "MODELOPT_SERVE_CACHE", hide_env_values = true, help_heading = "Cache")]
        cache: String,
        /// Memory for answers that are kept [default: 268435456]
        #[arg(long, value_name = "BYTES", env = "MODELOPT_SERVE_CACHE_BYTES", help_heading = "Cache")]
        cache_bytes: u64,
        /// How long an answer is kept [default: 300]
        #[arg(long, value_name = "S", env = "MODELOPT_SERVE_CACHE_SECONDS", help_heading = "Cache")]
        cache_seconds: f64,
        /// What bearer tokens are signed by: HS256, RS256 or ES256
        #[arg(long, value_name = "NAME", env = "MODELOPT_SERVE_JWT_ALGORITHM", help_heading = "Security")]
        jwt_algorithm: String,
        /// The secret, or the public key as PEM, that tokens are checked with
        #[arg(long, value_name = "FILE", env = "MODELOPT_SERVE_JWT_KEY", help_heading = "Security")]
        jwt_key: PathBuf,
        /// A set of keys (JWKS) that tokens are checked with
        #[arg(long, value_name = "FILE", env = "MODELOPT_SERVE_JWT_JWKS", help_heading = "Security")]
        jwt_jwks: PathBuf,
        /// Who must have issued tokens
        #[arg(long, value_name = "NAME", env = "MODELOPT_SERVE_JWT_ISSUER", help_heading = "Security")]
        jwt_issuer: String,
        /// For whom tokens must be
        #[arg(long, value_name = "NAME", env = "MODELOPT_SERVE_JWT_AUDIENCE", help_heading = "Security")]
        jwt_audience: String,
        /// Keys that clients send as they are: a line NAME:KEY or NAME:blake3:HASH for each
        #[arg(long, value_name = "FILE", env = "MODELOPT_SERVE_API_KEYS", help_heading = "Security")]
        api_keys: PathBuf,
        /// Requests a second that each client may go on with [default: no limit]
        #[arg(long, value_name = "N", env = "MODELOPT_SERVE_RATE_LIMIT", help_heading = "Security")]
        rate_limit: f64,
        /// Requests that a client may send at once [default: the rate, at least 1]
        #[arg(long, value_name = "N", env = "MODELOPT_SERVE_RATE_BURST", help_heading = "Security")]
        rate_burst: NonZero<u32>,
        /// Certificate chain as PEM; connections are encrypted with it
        #[arg(long, value_name = "FILE", env = "MODELOPT_SERVE_TLS_CERTIFICATE", help_heading = "Security")]
        tls_certificate: PathBuf,
        /// Its private key as PEM
        #[arg(long, value_name = "FILE", env = "MODELOPT_SERVE_TLS_KEY", help_heading = "Security")]
        tls_key: PathBuf,
        /// Tell metrics on a port of their own, and not beside the models
        #[arg(long, value_name = "N", env = "MODELOPT_SERVE_METRICS_PORT", help_heading = "Observation")]
        metrics_port: u16,
        /// Write a line of JSON for each request; - for stdout
        #[arg(long, value_name = "FILE", env = "MODELOPT_SERVE_LOG", help_heading = "Observation")]
        log: PathBuf,
        /// Write what is asked and answered into the log
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", env = "MODELOPT_SERVE_LOG_PREDICTIONS", help_heading = "Observation")]
        log_predictions: bool,
        /// How long requests are still answered after SIGTERM, while it says that it is not ready
        /// [default: 5]
        #[arg(long, value_name = "S", env = "MODELOPT_SERVE_DRAIN_SECONDS", help_heading = "Life")]
        drain_seconds: f64,
        /// When it has ended at the latest after SIGTERM [default: 25]
        #[arg(long, value_name = "S", env = "MODELOPT_SERVE_GRACE_SECONDS", help_heading = "Life")]
        grace_seconds: f64,
    }
}

settings! {
    /// How models are run; in a file also for one model alone, under `[models.NAME]`.
    #[command(next_help_heading = "Models")]
    ModelArguments {
        /// Sessions of each model, with a thread each [default: 1]
        #[arg(long, value_name = "N", env = "MODELOPT_SERVE_SESSIONS")]
        sessions: usize,
        /// Threads of each session; 0 shares the processors that the process may use [default: 0]
        #[arg(long, value_name = "N", env = "MODELOPT_SERVE_THREADS")]
        threads: usize,
        /// Where ONNX Runtime computes: cpu, cuda, … [default: cpu]
        #[arg(long, value_name = "NAME", env = "MODELOPT_SERVE_PROVIDER")]
        provider: String,
        /// Run models in processes of their own: a crash costs the requests in it and nothing else
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", env = "MODELOPT_SERVE_ISOLATE")]
        isolate: bool,
        /// Real inputs, by which models are warmed up and batches checked; invented ones otherwise
        #[arg(long, value_name = "PATH", env = "MODELOPT_SERVE_SAMPLES")]
        samples: PathBuf,
        /// Most rows that run at once; 1 for no batches [default: 8]
        #[arg(long, value_name = "N", env = "MODELOPT_SERVE_MAX_BATCH_SIZE")]
        max_batch_size: usize,
        /// Sizes of which a batch runs as soon as it can be formed
        #[arg(long, value_delimiter = ',', value_name = "N[,N…]", env = "MODELOPT_SERVE_PREFERRED_BATCH_SIZE")]
        preferred_batch_size: Vec<usize>,
        /// How long a request waits for others to share a run with [default: 0]
        #[arg(long, value_name = "US", env = "MODELOPT_SERVE_MAX_QUEUE_DELAY_MICROSECONDS")]
        max_queue_delay_microseconds: u64,
        /// How far a row in a batch may be from the same row alone, relative to the output [default: 1e-4]
        #[arg(long, value_name = "X", env = "MODELOPT_SERVE_BATCH_TOLERANCE")]
        batch_tolerance: f64,
        /// Requests that may wait; more get 503 at once [default: 256]
        #[arg(long, value_name = "N", env = "MODELOPT_SERVE_MAX_QUEUE_SIZE")]
        max_queue_size: usize,
        /// How long a request may take; later ones get 504 [default: no limit]
        #[arg(long, value_name = "MS", env = "MODELOPT_SERVE_TIMEOUT_MS")]
        timeout_ms: u64,
        /// Levels of priority, of which 1 is answered first [default: none]
        #[arg(long, value_name = "N", env = "MODELOPT_SERVE_PRIORITY_LEVELS")]
        priority_levels: u32,
        /// The level of requests that name none [default: the last]
        #[arg(long, value_name = "N", env = "MODELOPT_SERVE_DEFAULT_PRIORITY_LEVEL")]
        default_priority_level: u32,
    }
}

/// The same in a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServeFile {
    pub(crate) server: ServerArguments,
    pub(crate) model: ModelArguments,
    /// Models with settings of their own.
    pub(crate) models: BTreeMap<String, ModelArguments>,
}

impl ServeFile {
    /// Reads a file.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut table: toml::Table = toml::from_str(text)?;
        let models = table.remove("models");
        let is_among = |names: &[&str], key: &str| names.contains(&key.replace('-', "_").as_str());
        let is_known = |key: &&String| {
            is_among(ServerArguments::NAMES, key) || is_among(ModelArguments::NAMES, key)
        };
        if let Some(unknown) = table.keys().find(|key| !is_known(key)) {
            bail!("'{unknown}' is no setting of a server; a key is a flag without its dashes");
        }
        let (of_model, of_server): (toml::Table, toml::Table) =
            table.into_iter().partition(|(key, _)| is_among(ModelArguments::NAMES, key));
        Ok(ServeFile {
            server: of_server.try_into()?,
            model: of_model.try_into()?,
            models: models.map(toml::Value::try_into).transpose()?.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn each_setting_has_a_flag_a_variable_and_a_key() {
        let command = crate::args::Arguments::command();
        let serve = command.find_subcommand("serve").unwrap();
        let names = ServerArguments::NAMES.iter().chain(ModelArguments::NAMES);
        for &name in names {
            let id = |argument: &&clap::Arg| argument.get_id() == name;
            let argument = serve.get_arguments().find(id).expect(name);
            let variable = format!("MODELOPT_SERVE_{}", name.to_uppercase());
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(&*variable));
            let flag = argument.get_long().map(|flag| flag.replace('-', "_"));
            assert_eq!(flag.as_deref().unwrap_or("model"), name);
        }
    }

    #[test]
    fn a_file_has_settings_of_the_server_of_all_models_and_of_one() {
        let text =
            "port = 9000\nmax-batch-size = 4\nisolate = true\n[models.digits]\nsessions = 2\n";
        let file = ServeFile::parse(text).unwrap();
        assert_eq!((file.server.port, file.model.max_batch_size), (Some(9000), Some(4)));
        assert_eq!((file.model.isolate, file.server.host.is_none()), (Some(true), true));
        assert_eq!(file.models["digits"].sessions, Some(2));
        for (text, key) in [
            ("prot = 9000", "prot"),
            ("[models.digits]\nsesions = 2", "sesions"),
            ("[model.digits]\nsessions = 2", "invalid type"),
            ("max_batch_size = 4", "max_batch_size"),
        ] {
            let error = ServeFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
