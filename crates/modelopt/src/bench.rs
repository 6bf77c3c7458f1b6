//! Latency of models on several runtimes, thread counts and sizes.

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use modelopt_graph::Model;
use modelopt_onnx as onnx;
use modelopt_report as report;
use modelopt_runtime::RuntimeKind;
use modelopt_validate::{Distribution, measure_latency};
use serde::Serialize;

use crate::config::Config;
use crate::error::Error;
use crate::found_inputs::FoundInputs;
use crate::ground::ground;
use crate::resource_limits;
use crate::runtime_choice::{Engine, RuntimeChoice};
use crate::subject::Subject;
use crate::target::{self, Ground};
use crate::{Progress, Step};

/// What to vary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BenchOptions {
    /// Thread counts; 0 for all of the machine. The configuration's if there are none.
    pub threads: Vec<usize>,
    /// Sizes of symbolic dimensions; every combination is measured.
    pub dims: IndexMap<String, Vec<usize>>,
}

/// One model in one runtime, with one number of threads and one size of its inputs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchRow {
    /// Model file.
    pub model: report::FileName,
    /// Runtime and its settings.
    pub runtime: report::RuntimeUsed,
    /// Sizes that were set.
    pub dims: IndexMap<String, usize>,
    /// Shapes of the inputs that it ran on.
    pub inputs: IndexMap<String, Vec<usize>>,
    /// Why there are no figures, if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Distribution>,
    /// From opening the file to a session that is ready, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<f64>,
    /// Most memory that was resident in a process of its own, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
}

/// Measures a model in every runtime that the configuration names (in all embedded ones if it
/// names none), with every thread count and every combination of sizes. What does not run is a
/// row with a failure.
pub fn bench(
    model: &Path,
    config: &Config,
    options: &BenchOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<BenchRow>, Error> {
    progress(Progress::Step(Step::Loading));
    let loaded = onnx::load(model)?;
    resource_limits::check_loaded(&loaded)?;
    let engines = match &config.runtime {
        RuntimeChoice::Auto => RuntimeKind::embedded().map(Engine::Registered).collect(),
        named => named.engines(),
    };
    let threads =
        if options.threads.is_empty() { vec![config.threads] } else { options.threads.clone() };
    let sizes = combinations(&options.dims);
    let total = engines.len() * threads.len() * sizes.len();
    let mut rows = Vec::with_capacity(total);
    progress(Progress::Step(Step::MeasuringLatency));
    for dims in &sizes {
        let mut config = config.clone();
        config.dims.extend(dims.clone());
        config.sample_count = 1;
        // What was asked for wrongly is an error once, not a failure in every row.
        target::samples(&loaded, &config)?;
        for engine in &engines {
            for &threads in &threads {
                let named = Config { runtime: engine.clone().into(), threads, ..config.clone() };
                let mut row = BenchRow {
                    model: report::FileName::from(model),
                    runtime: target::unknown(engine, threads),
                    dims: dims.clone(),
                    inputs: IndexMap::new(),
                    failure: None,
                    latency: None,
                    load_ms: None,
                    peak_bytes: None,
                };
                match row.measure(model, &loaded, &named) {
                    // The next runtime is measured on the same.
                    Ok(Some(found)) => config = found.settings(&config),
                    Ok(None) => {}
                    Err(error) => row.failure = Some(error),
                }
                rows.push(row);
                progress(Progress::Part { done: rows.len(), total });
            }
        }
    }
    Ok(rows)
}

impl BenchRow {
    fn measure(
        &mut self,
        model: &Path,
        loaded: &Model,
        config: &Config,
    ) -> Result<Option<FoundInputs>, String> {
        let subject = Arc::new(Subject::as_it_is(model));
        let (Ground { mut rig, samples, .. }, told) =
            ground(&subject, loaded, config).map_err(|error| error.without_path())?;
        self.runtime = rig.used.clone();
        self.load_ms = rig.cost.map(|cost| cost.load_ms);
        self.peak_bytes = rig.cost.and_then(|cost| cost.peak_bytes);
        let Some(sample) = samples.first() else { return Ok(told.found) };
        self.inputs = target::shapes(sample).collect();
        let latency = measure_latency(rig.original.as_mut(), &sample.inputs, &config.latency)
            .map_err(|error| error.without_path())?;
        self.latency = Some(latency);
        Ok(told.found)
    }
}

/// Every choice of one size for each name, the last name varying fastest.
fn combinations(dims: &IndexMap<String, Vec<usize>>) -> Vec<IndexMap<String, usize>> {
    dims.iter().fold(vec![IndexMap::new()], |sets, (name, sizes)| {
        let with = |set: &IndexMap<String, usize>, size: usize| {
            let mut set = set.clone();
            set.insert(name.clone(), size);
            set
        };
        sets.iter().flat_map(|set| sizes.iter().map(move |&size| with(set, size))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_sizes_is_measured_once() {
        let dims = [("n".to_owned(), vec![1, 4]), ("t".to_owned(), vec![8, 16])].into();
        let sets: Vec<Vec<usize>> =
            combinations(&dims).iter().map(|set| set.values().copied().collect()).collect();
        assert_eq!(sets, [[1, 8], [1, 16], [4, 8], [4, 16]]);
        assert_eq!(combinations(&IndexMap::new()).len(), 1);
    }
}

#[cfg(test)]
mod edges;
