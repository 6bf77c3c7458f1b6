//! Parity and size of any two models.

use std::path::Path;

use modelopt_onnx as onnx;
use modelopt_report as report;
use modelopt_validate::{Measurements, Parity, SizeChange, Verdict, judge};

use crate::Progress;
use crate::config::Config;
use crate::demand;
use crate::error::Error;
use crate::run::{self, Ran};

/// How two models compare.
#[derive(Clone, Debug)]
pub struct Compared {
    /// How close the outputs are.
    pub parity: Parity,
    /// Sizes, external data included.
    pub size: SizeChange,
    /// Where they ran.
    pub ran: Ran,
    /// How many samples they ran on, and whether those were real.
    pub samples: report::Samples,
    /// The figures against the limits.
    pub verdict: Verdict,
}

/// Runs two models on the same samples and judges the second against the first.
pub fn compare(
    original: &Path,
    candidate: &Path,
    config: &Config,
    progress: &mut dyn FnMut(Progress),
) -> Result<Compared, Error> {
    progress(Progress::Step("loading"));
    let model = onnx::load(original)?;
    let other = onnx::load(candidate)?;
    for model in [&model, &other] {
        demand::check_loaded(model)?;
    }
    let samples = run::samples(&model, config)?;
    progress(Progress::Step("preparing the original"));
    let mut bench = run::bench(original, &samples, config)?;
    progress(Progress::Step("preparing the candidate"));
    let mut session = bench.prepare(candidate)?;
    progress(Progress::Step("comparing"));
    let parity = modelopt_validate::compare(
        bench.original.as_mut(),
        session.as_mut(),
        &samples,
        &mut |done, total| progress(Progress::Part { done, total }),
    )?;
    let size = SizeChange {
        original_bytes: onnx::stored_size(original, &model)?,
        candidate_bytes: onnx::stored_size(candidate, &other)?,
    };
    let measured = Measurements { parity: Some(&parity), size, latency: None };
    let verdict = judge(&config.gate, &measured);
    let samples = run::summary(&samples);
    Ok(Compared { parity, size, ran: bench.ran, samples, verdict })
}

impl Compared {
    /// The comparison as a report document.
    pub fn document(&self, original: &Path, candidate: &Path) -> report::Document {
        report::Document {
            tool_version: crate::VERSION.to_owned(),
            command: "compare".to_owned(),
            original: report::FileName::from(original),
            candidate: Some(report::FileName::from(candidate)),
            size: Some(self.size),
            runtime: Some(self.ran.used()),
            samples: Some(self.samples),
            parity: Some(self.parity.clone()),
            verdict: Some(self.verdict.clone()),
            ..report::Document::default()
        }
    }
}
