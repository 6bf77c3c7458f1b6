//! Settings: the file, then what the arguments say.

mod metric;
pub(crate) mod serve;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use modelopt::runtime::worker::WorkerPool;
use modelopt::runtime::{LibrarySearch, parse_dim};
use modelopt::{Config, Enforcement, rewrite};

use crate::args::{self, Common};
use crate::ending::Usage;
use crate::files::read_text;

use metric::apply_metric;

/// The hidden command that makes this program a worker.
const WORKER: &str = "worker";

/// How long a worker may load a model, or run it once.
const PATIENCE: Duration = Duration::from_mins(10);

/// The settings file, or the defaults, in the environment of this process.
pub(crate) fn settings(common: &Common) -> Result<Config> {
    settings_over(&Config::default(), common)
}

/// The settings file over these defaults, in the environment of this process.
pub(crate) fn settings_over(defaults: &Config, common: &Common) -> Result<Config> {
    let default = Path::new("modelopt.toml");
    let path = match &common.config {
        Some(path) => Some(path.as_path()),
        None => default.is_file().then_some(default),
    };
    let config = match path {
        Some(path) => {
            let text = read_text(path)?;
            defaults.with_toml(&text).with_context(|| path.display().to_string())?
        }
        None => defaults.clone(),
    };
    let environment = environment();
    Ok(Config { environment, worker: workers(), ..config })
}

/// This program as a worker. Where it cannot be found, models are run in this process.
pub(crate) fn workers() -> Option<WorkerPool> {
    let program = std::env::current_exe().ok().filter(|_| cfg!(unix));
    let arguments = vec![WORKER.to_owned()];
    program.map(|program| WorkerPool::new(program, arguments, PATIENCE))
}

/// Where the environment of this process says that a library of ONNX Runtime may be.
pub(crate) fn environment() -> LibrarySearch {
    let library_path =
        if cfg!(target_os = "macos") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };
    LibrarySearch {
        explicit: None,
        variable: std::env::var_os("ORT_DYLIB_PATH"),
        library_path: std::env::var_os(library_path),
        path: std::env::var_os("PATH"),
    }
}

/// The file that measurements of layers are kept in, unless the user names one.
pub(crate) fn default_cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = match variable("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None if cfg!(windows) => PathBuf::from(variable("LOCALAPPDATA")?),
        None if cfg!(target_os = "macos") => {
            PathBuf::from(variable("HOME")?).join("Library/Caches")
        }
        None => PathBuf::from(variable("HOME")?).join(".cache"),
    };
    Some(folder.join("modelopt").join("layers.json"))
}

pub(crate) fn apply_planning(config: &mut Config, args: &args::Planning) -> Result<()> {
    match args.scheme {
        Some(args::Wanted::Auto) => config.scheme = None,
        Some(args::Wanted::Scheme(scheme)) => config.scheme = Some(scheme),
        None => {}
    }
    apply_integers(config, &args.integers);
    if let Some(format) = args.quant_format {
        config.quant_format = format.into();
        if let Some(other) = config.scheme.filter(|scheme| !scheme.needs_ranges()) {
            let why = format!(
                "--quant-format says how layers with ranges are written, and {other} has none"
            );
            return Err(Usage(why).into());
        }
    }
    apply_selection(config, &args.selection)
}

pub(crate) fn apply_searching(config: &mut Config, args: &args::Searching) {
    let search = &mut config.search;
    search.objective = args.objective.map_or(search.objective, Into::into);
    search.time_budget = args.time_budget.or(search.time_budget);
    search.max_trials = args.max_trials.map_or(search.max_trials, |count| count as usize);
    search.smoothing = args.smoothing.map_or(search.smoothing, Into::into);
    search.bias_correction &= !args.no_bias_correction;
}

pub(crate) fn apply_integers(config: &mut Config, args: &args::Integers) {
    if let Some(granularity) = args.granularity {
        config.numerics.granularity = granularity.into();
    }
    config.numerics.reduce_range |= args.reduce_range;
}

/// After the scheme is known.
pub(crate) fn apply_precision(config: &mut Config, args: &args::Precision) -> Result<()> {
    config.float32_statistics |= args.float32_statistics;
    config.min_rounding_sqnr_db = args.min_rounding_sqnr.unwrap_or(config.min_rounding_sqnr_db);
    config.io = args.io.map_or(config.io, Into::into);
    let computes = config.scheme.and_then(rewrite::Scheme::computes_in);
    match config.io.precision() {
        Some(io) if computes != Some(io) && args.io.is_some() => {
            let io = io.name();
            Err(Usage(format!("--io {io} needs a model that computes in {io}")).into())
        }
        _ => Ok(()),
    }
}

pub(crate) fn apply_selection(config: &mut Config, args: &args::Selection) -> Result<()> {
    config.min_weight_bytes = args.min_weight_bytes.unwrap_or(config.min_weight_bytes);
    replace(&mut config.include, &args.include);
    replace(&mut config.exclude, &args.exclude);
    replace(&mut config.skip_rewrite, &args.skip_rewrite);
    config.keep_opset |= args.keep_opset;
    config.calibration.clone_from(&args.calibration);
    config.freeze_inputs |= args.freeze_inputs;
    if let Some(path) = &args.plan {
        let text = read_text(path)?;
        let plan = rewrite::Plan::from_toml(&text).with_context(|| path.display().to_string())?;
        config.plan = Some(plan);
    }
    Ok(())
}

pub(crate) fn apply_enforcing(config: &mut Config, args: &args::Enforcing) {
    if args.no_gate {
        config.enforcement = Enforcement::Judge;
    }
    if args.no_validate {
        config.enforcement = Enforcement::None;
    }
}

/// Takes in what judges. What the verdict is for is known by now: a metric needs one.
pub(crate) fn apply_judging(config: &mut Config, args: &args::Judging) -> Result<()> {
    apply_running(config, &args.running)?;
    apply_gate(config, &args.gate);
    apply_metric(config, &args.measuring, &args.gate)
}

fn apply_running(config: &mut Config, args: &args::Running) -> Result<()> {
    apply_target(config, &args.target);
    config.measure_latency &= !args.no_latency;
    config.threads = args.threads.unwrap_or(config.threads);
    match args.same_noise {
        Some(args::SameNoiseArgument::Auto) => config.same_noise = None,
        Some(args::SameNoiseArgument::On) => config.same_noise = Some(true),
        Some(args::SameNoiseArgument::Off) => config.same_noise = Some(false),
        None => {}
    }
    apply_sampling(config, &args.sampling)
}

pub(crate) fn apply_sampling(config: &mut Config, args: &args::Sampling) -> Result<()> {
    config.seed = args.seed.unwrap_or(config.seed);
    config.sample_count = args.sample_count.unwrap_or(config.sample_count);
    if args.samples.is_some() {
        config.samples.clone_from(&args.samples);
    }
    for dim in &args.dim {
        let (name, size) = parse_dim(dim).map_err(|error| Usage(error.to_string()))?;
        config.dims.insert(name, size);
    }
    apply_inputs(config, &args.fixed)
}

pub(crate) fn apply_target(config: &mut Config, args: &args::Target) {
    if let Some(runtime) = &args.runtime {
        config.runtime = runtime.clone();
    }
    if args.onnxruntime.is_some() {
        config.onnxruntime.clone_from(&args.onnxruntime);
    }
    config.optimization = args.optimization.map_or(config.optimization, Into::into);
    if let Some(provider) = &args.provider {
        config.provider.clone_from(provider);
    }
    if let Some(seconds) = args.latency_seconds {
        config.latency.min_seconds = seconds;
        config.latency.max_seconds = config.latency.max_seconds.max(seconds);
    }
}

pub(crate) fn apply_inputs(config: &mut Config, inputs: &[String]) -> Result<()> {
    for input in inputs {
        let Some((name, value)) = input.rsplit_once('=') else {
            return Err(Usage(format!("'{input}': give it as NAME=VALUE")).into());
        };
        config.inputs.insert(name.trim().to_owned(), value.to_owned());
    }
    Ok(())
}

fn apply_gate(config: &mut Config, args: &args::Gate) {
    let gate = &mut config.gate;
    gate.min_sqnr_db = args.min_sqnr.or(gate.min_sqnr_db);
    gate.max_abs_error = args.max_abs_error.or(gate.max_abs_error);
    gate.min_top1 = args.min_top1.or(gate.min_top1);
    gate.min_shrink = args.min_shrink.or(gate.min_shrink);
    if let Some(limit) = args.max_slowdown {
        gate.max_slowdown = Some(limit).filter(|limit| limit.is_finite());
        config.judge_latency_anywhere = true;
    }
}

fn replace(setting: &mut Vec<String>, argument: &[String]) {
    if !argument.is_empty() {
        *setting = argument.to_vec();
    }
}
