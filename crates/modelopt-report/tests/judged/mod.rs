//! A report of a candidate that passed in two runtimes, to be made worse by each test.

use modelopt_report::{Document, Run};
use modelopt_validate::{
    FloatParity, Footprint, LatencyComparison, Limits, Measurements, OutputParity, SizeChange,
    judge,
};

use crate::common::{label, latency, output, quantized, runtime};

pub(crate) fn document() -> Document {
    let outputs = vec![output("scores", 38.25), OutputParity { mismatches: Some(0), ..label() }];
    let latency = LatencyComparison {
        ratio_median: 0.5,
        ratio_low: 0.4,
        ratio_high: 0.6,
        ..latency(2.0, 1.0)
    };
    let mut document = quantized(outputs, Some(latency));
    document.size = Some(SizeChange { original_bytes: 4_000_000, candidate_bytes: 1_000_000 });
    let target = &mut document.runs[0];
    target.runtime = runtime("onnxruntime", "1.2.3");
    target.original = Some(Footprint { load_ms: 40.0, peak_bytes: 8_000_000 });
    target.candidate = Some(Footprint { load_ms: 20.0, peak_bytes: 4_000_000 });
    let other = Run { runtime: runtime("tract", "1.2.3"), ..target.clone() };
    document.runs.push(other);
    judge_again(&mut document, &Limits::default());
    document
}

/// Gives the document the verdict that its figures deserve.
pub(crate) fn judge_again(document: &mut Document, limits: &Limits) {
    let target = document.runs.first();
    document.verdict = document.size.map(|size| {
        let parity = target.and_then(|run| run.parity.as_ref());
        let latency = target.and_then(|run| run.latency.as_ref());
        judge(limits, &Measurements { parity, size, latency })
    });
}

/// The figures of the target's first output.
pub(crate) fn scores(document: &mut Document) -> &mut FloatParity {
    document.runs[0].parity.as_mut().unwrap().outputs[0].float.as_mut().unwrap()
}
