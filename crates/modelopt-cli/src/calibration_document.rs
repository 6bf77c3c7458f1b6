//! A calibration as JSON: what was seen, and the ranges that come from it.

use std::collections::BTreeMap;

use modelopt::calibration::TensorRanges;
use modelopt::report::RuntimeUsed;
use serde::Serialize;

use crate::show::Calibrated;

/// What `modelopt calibrate` prints as JSON.
#[derive(Serialize)]
pub(crate) struct CalibrationDocument<'a> {
    schema: &'static str,
    /// Digest of the model.
    model: &'a str,
    /// Samples that were seen.
    samples: usize,
    /// Samples of the list that they are of.
    samples_in_all: Option<u64>,
    seconds: f64,
    resumed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'a RuntimeUsed>,
    tensors: Vec<Tensor<'a>>,
}

#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    /// The least and the largest finite number.
    seen: Option<(f32, f32)>,
    /// How many finite numbers there were.
    finite: u64,
    /// How many were infinite, or stood for infinity.
    infinite: u64,
    /// By name of the method, for 8 bits.
    ranges: BTreeMap<String, Option<(f32, f32)>>,
}

impl<'a> CalibrationDocument<'a> {
    pub(crate) fn of(calibrated: &Calibrated<'a>, ranges: &'a [TensorRanges]) -> Self {
        let calibration = calibrated.calibration;
        CalibrationDocument {
            schema: "modelopt.calibration/1",
            model: calibration.model(),
            samples: calibration.samples().len(),
            samples_in_all: calibration.list().map(modelopt::calibration::SampleList::count),
            seconds: calibrated.seconds,
            resumed: calibrated.resumed,
            runtime: calibrated.runtime,
            tensors: ranges.iter().map(tensor).collect(),
        }
    }
}

fn tensor(of: &TensorRanges) -> Tensor<'_> {
    let ranges = of.ranges.iter().map(|(method, range)| (method.to_string(), *range));
    Tensor {
        name: &of.name,
        seen: of.extremes.range,
        finite: of.extremes.finite,
        infinite: of.extremes.other,
        ranges: ranges.collect(),
    }
}
