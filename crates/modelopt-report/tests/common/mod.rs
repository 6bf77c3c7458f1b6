//! Reports to test with.
#![allow(dead_code, reason = "not every test needs every report")]

use modelopt_report::{
    Document, Machine, ModelFile, NumberHistogram, ObservedNumbers, PlanLine, PredictedTime,
    QuantizedTensor, Region, RegionEdge, RegionEnd, Run, RuntimeUsed, SampleKind, Samples,
};
use modelopt_validate::{
    Culprit, Decisions, Distribution, FloatParity, Footprint, LatencyComparison, Limits,
    Measurements, OutputParity, Parity, PartParity, SizeChange, SlowLayer, TensorForm, judge,
};

/// A float output that is close enough.
pub(crate) fn scores() -> OutputParity {
    let form = TensorForm { dtype: "float".into(), shape: vec![1, 10] };
    OutputParity {
        name: "class|scores".into(),
        elements: 40,
        present: true,
        type_equal: true,
        shape_equal: true,
        original: form.clone(),
        candidate: Some(form),
        float: Some(FloatParity {
            max_abs_error: 0.0125,
            mean_abs_error: 0.001_5,
            rmse: 0.002_25,
            sqnr_db: 38.25,
            worst_sample: "digit_7".into(),
            cosine: 0.999_912,
            outside_tolerance: 0.25,
            new_non_finite: 0,
            changed_non_finite: 0,
            top1: Some(0.75),
            top5: Some(1.0),
        }),
        mismatches: None,
        agreement: None,
        parts: vec![
            PartParity {
                name: "class|scores[:, 0:4]".into(),
                elements: 16,
                probability: false,
                sqnr_db: 52.5,
                worst_sample: "digit_1".into(),
                max_abs_error: 0.0125,
            },
            PartParity {
                name: "class|scores[:, 4:10]".into(),
                elements: 24,
                probability: true,
                sqnr_db: 38.25,
                worst_sample: "digit_7".into(),
                max_abs_error: 0.001_25,
            },
        ],
        sentinels: Vec::new(),
        decisions: Some(Decisions {
            rows: 4,
            decided: 3,
            kept: 3,
            lost_margin: 0.125,
            worst_sample: "digit_7".into(),
            among: None,
        }),
        itself_db: None,
        witness: false,
        selected: None,
    }
}

/// A float output of this name and SQNR.
pub(crate) fn output(name: &str, sqnr_db: f64) -> OutputParity {
    let scores = scores();
    let float = scores.float.clone().map(|float| FloatParity { sqnr_db, ..float });
    OutputParity { name: name.into(), float, ..scores }
}

/// An output that must be equal and is not.
pub(crate) fn label() -> OutputParity {
    let form = TensorForm { dtype: "int64".into(), shape: vec![1] };
    OutputParity {
        name: "label".into(),
        elements: 4,
        original: form.clone(),
        candidate: Some(form),
        float: None,
        mismatches: Some(1),
        ..scores()
    }
}

/// A float output without any error.
pub(crate) fn equal() -> OutputParity {
    let mut output = scores();
    output.float = output.float.map(|float| FloatParity {
        max_abs_error: 0.0,
        mean_abs_error: 0.0,
        rmse: 0.0,
        sqnr_db: f64::INFINITY,
        cosine: 1.0,
        outside_tolerance: 0.0,
        top1: Some(1.0),
        ..float
    });
    output
}

pub(crate) fn plan_line(layer: &str, scheme: &str, reason: &str, bytes_after: u64) -> PlanLine {
    PlanLine {
        layer: layer.into(),
        op: "Conv".into(),
        scheme: scheme.into(),
        region: None,
        reason: reason.into(),
        bytes_before: 294_912,
        bytes_after,
        sqnr_db: (scheme != "keep").then_some(41.5),
    }
}

/// Times with a long tail from `fastest` on, as those of programs are.
pub(crate) fn times(fastest: f64, runs: usize) -> Distribution {
    let share = |at: usize| (at as f64 + 0.5) / runs as f64;
    let tail = |share: f64| fastest * (1.0 + 0.02 * (share / (1.0 - share)).powf(0.6));
    Distribution {
        runs,
        mean_ms: tail(0.6),
        p50_ms: tail(0.5),
        p90_ms: tail(0.9),
        p99_ms: tail(0.99),
        throughput_per_s: 1000.0 / tail(0.6),
        quantiles_ms: (0..runs).map(|at| tail(share(at))).collect(),
    }
}

pub(crate) fn latency(original: f64, candidate: f64) -> LatencyComparison {
    let ratio = candidate / original;
    LatencyComparison {
        ratio_median: ratio,
        ratio_low: ratio * 0.96,
        ratio_high: ratio * 1.03,
        confidence: 0.95,
        pairs: 40,
        noise: 0.02,
        original: times(original, 40),
        candidate: times(candidate, 40),
        threads: 1,
        call_ms: None,
    }
}

pub(crate) fn runtime(name: &str, version: &str) -> RuntimeUsed {
    RuntimeUsed {
        name: name.into(),
        version: version.into(),
        threads: 1,
        reason: "asked for".into(),
        ..RuntimeUsed::default()
    }
}

pub(crate) fn machine() -> Machine {
    Machine { cpu: "Example CPU 3000".into(), threads: 2, platform: "x86_64-linux".into() }
}

/// A small report whose verdict comes from the figures in it.
pub(crate) fn quantized(
    outputs: Vec<OutputParity>,
    latency: Option<LatencyComparison>,
) -> Document {
    let parity = Parity { outputs, extra_outputs: vec![], samples: 4, synthetic: true };
    let size = SizeChange { original_bytes: 4_000_000, candidate_bytes: 1_024_000 };
    let measured = Measurements { parity: Some(&parity), size, latency: latency.as_ref() };
    let verdict = Some(judge(&Limits::default(), &measured));
    Document {
        tool_version: "0.1.0".into(),
        command: "quantize".into(),
        original: ModelFile {
            name: "models/mnist.onnx".into(),
            blake3: Some("0123456789abcdef".repeat(4)),
        },
        candidate: Some(ModelFile { name: "out\\mnist.int8.onnx".into(), blake3: None }),
        size: Some(size),
        samples: Some(Samples { kind: SampleKind::Synthetic, count: 4, calibrating: None }),
        plan: vec![
            plan_line("/conv_1/Conv", "int8-weights", "asked for", 73_984),
            plan_line("__head__", "keep", "bias | too small\nto matter", 294_912),
        ],
        plan_digest: Some("fedcba9876543210".repeat(4)),
        verdict,
        runs: vec![Run {
            runtime: runtime("tract", "0.23.9"),
            parity: Some(parity),
            latency,
            ..Run::default()
        }],
        machine: Some(machine()),
        warnings: vec!["samples are synthetic; give real ones with `--samples`".into()],
        ..Document::default()
    }
}

/// A report with all there is: three runtimes, one of which failed, and this many layers.
pub(crate) fn rich(layers: usize) -> Document {
    let outputs = vec![
        output("logits", 34.6),
        output("/decoder/attention/weights_that_have_a_rather_long_name", 27.3),
        OutputParity { name: "hidden_state".into(), ..equal() },
        OutputParity { mismatches: Some(0), ..label() },
    ];
    let mut document = quantized(outputs, Some(latency(8.4, 4.9)));
    document.original.name = "speech-recogniser.onnx".into();
    document.candidate = Some(ModelFile {
        name: "speech-recogniser.int8.onnx".into(),
        blake3: Some("89abcdef01234567".repeat(4)),
    });
    document.samples = Some(Samples { kind: SampleKind::Real, count: 32, calibrating: None });
    document.warnings = vec![];
    document.plan = (0..layers).map(layer).collect();
    let target = &mut document.runs[0];
    target.runtime = RuntimeUsed {
        library: Some("lib/libonnxruntime.so.1.27.0".into()),
        provider: Some("cpu".into()),
        optimization: Some("all".into()),
        ..runtime("onnxruntime", "1.27.0")
    };
    target.original = Some(Footprint { load_ms: 84.0, peak_bytes: 61_000_000 });
    target.candidate = Some(Footprint { load_ms: 46.5, peak_bytes: 23_500_000 });
    let parity = target.parity.clone();
    document.runs.push(Run {
        runtime: runtime("tract", "0.23.9"),
        parity,
        latency: Some(latency(0.071, 0.074)),
        ..Run::default()
    });
    document.runs.push(Run {
        runtime: runtime("rten", "0.27.1"),
        failure: Some("operator <Loop> & its body are not supported".into()),
        ..Run::default()
    });
    document
}

/// A region that begins at the input, and ends at tensors that are named.
pub(crate) fn region(layers: &[&str], ends: &[(&str, &str)]) -> Region {
    let end = |edge, tensor: &str, kind: &str, reason: &str| RegionEnd {
        tensor: tensor.into(),
        edge,
        kind: kind.into(),
        reason: reason.into(),
    };
    let begin = end(RegionEdge::Begin, "input", "input", "it is an input of the model");
    let ends = ends.iter().map(|(tensor, why)| end(RegionEdge::End, tensor, "no_kernel", why));
    Region {
        layers: layers.iter().map(|&layer| layer.to_owned()).collect(),
        operators: [("Add".to_owned(), 2), ("Concat".to_owned(), 1)].into(),
        tensors: vec!["input".into(), "features".into()],
        ends: std::iter::once(begin).chain(ends).collect(),
        predicted: Some(PredictedTime {
            float_ms: 1.25,
            integer_ms: 0.375,
            border_ms: 0.125,
            share: 0.625,
        }),
    }
}

/// A tensor of the first region whose numbers lie evenly between two, four in a hundred beyond its range.
pub(crate) fn quantized_tensor(name: &str, min: f32, max: f32) -> QuantizedTensor {
    let counts: Vec<u64> = (0..50).map(|at| 1 + 40 * (at % 25)).collect();
    QuantizedTensor {
        tensor: name.into(),
        region: Some(1),
        min,
        max,
        observed: Some(ObservedNumbers {
            min: min - 0.5,
            max: max + 0.5,
            clipped: 0.04,
            sqnr_db: 31.5,
            histogram: NumberHistogram {
                start: f64::from(min) - 0.5,
                width: (f64::from(max - min) + 1.0) / 50.0,
                counts,
            },
        }),
    }
}

/// A report of a model that computes on integers by ranges.
pub(crate) fn by_ranges() -> Document {
    let mut document = quantized(vec![scores()], Some(latency(2.0, 1.0)));
    document.plan[0].scheme = "int8-static".into();
    document.plan[0].region = Some(1);
    document.samples = Some(Samples { kind: SampleKind::Real, count: 4, calibrating: Some(4) });
    document.regions = vec![
        region(
            &["/conv_1/Conv"],
            &[
                ("features", "Softmax has no integer kernel on onnxruntime"),
                ("a|b", "Softmax has no integer kernel on onnxruntime"),
                ("y", "it is an output of the model"),
            ],
        ),
        Region { predicted: None, ..region(&["/conv_2/Conv", "/conv_3/Conv"], &[]) },
    ];
    let unseen = QuantizedTensor { observed: None, ..quantized_tensor("input", 0.0, 1.0) };
    document.ranges = vec![quantized_tensor("features", -2.0, 2.0), unseen];
    document
}

fn layer(at: usize) -> PlanLine {
    let name = format!("/encoder/layers.{at}/attention/out_proj/MatMul");
    let bytes_before = 4 * 1024 * (40 + (at * 7919) as u64 % 900);
    if at % 7 == 3 {
        let reason = "below 4 kB, or the first layer: quantizing it costs more than it saves";
        return PlanLine { bytes_before, ..plan_line(&name, "keep", reason, bytes_before) };
    }
    let scheme = if at.is_multiple_of(3) { "int8-weights" } else { "int8-dynamic" };
    PlanLine {
        op: if at.is_multiple_of(3) { "Conv" } else { "MatMul" }.into(),
        bytes_before,
        sqnr_db: Some(36.0 + ((at * 31) % 13) as f64),
        ..plan_line(&name, scheme, "the default for onnxruntime", bytes_before / 4 + 512)
    }
}

/// Such a report after a failed verdict.
pub(crate) fn refused(layers: usize) -> Document {
    let outputs = vec![output("logits", 11.25), output("probabilities", 24.0), label()];
    let mut document =
        Document { plan: rich(layers).plan, ..quantized(outputs, Some(latency(8.4, 11.2))) };
    document.culprits = vec![
        Culprit {
            layers: vec!["/encoder/embed/Gather".into(), "/decoder/head/MatMul".into()],
            scheme: "int8-dynamic".into(),
            sqnr_db: 12.5,
            predicted: false,
        },
        Culprit {
            layers: vec!["/encoder/layers.0/attention/out_proj/MatMul".into()],
            scheme: "int8-weights".into(),
            sqnr_db: 29.0,
            predicted: false,
        },
    ];
    document.slow_layers = vec![SlowLayer {
        layer: "/encoder/layers.1/attention/out_proj/MatMul".into(),
        op: "Conv".into(),
        scheme: "int8-dynamic".into(),
        slowdown: 2.4,
        original_ms: 0.83,
    }];
    document
}

/// What no page may take for markup.
pub(crate) const HOSTILE: &str = "</script><script>console.error('hostile')</script>\
    \"><img src=http://hostile.invalid/ onerror=console.error('hostile')>\
    '></svg></text></table></style></textarea><svg onload=console.error('hostile')>\
    {{ 7 * 7 }}{% raw %}<!-- ]]> & \u{0}\u{1b}\u{202e}";

/// Replaces all text that a model or a user chose.
pub(crate) fn rename_all(document: &mut Document, name: &str) {
    document.command = name.into();
    document.tool_version = name.into();
    document.original.name = name.into();
    document.warnings = vec![name.to_owned()];
    document.plan_digest = Some(name.to_owned());
    document.machine = Some(Machine { cpu: name.into(), platform: name.into(), threads: 0 });
    for line in &mut document.plan {
        for text in [&mut line.layer, &mut line.op, &mut line.scheme, &mut line.reason] {
            *text = name.into();
        }
    }
    for run in &mut document.runs {
        run.runtime = RuntimeUsed { reason: name.to_owned(), ..runtime(name, name) };
        run.failure = Some(name.to_owned());
        for output in run.parity.iter_mut().flat_map(|parity| &mut parity.outputs) {
            output.name = name.into();
            output.original.dtype = name.into();
        }
    }
    for check in document.verdict.iter_mut().flat_map(|verdict| &mut verdict.checks) {
        if check.subject != "model" {
            check.subject = name.into();
        }
        check.note = Some(name.to_owned());
    }
    for culprit in &mut document.culprits {
        *culprit = Culprit { layers: vec![name.into()], scheme: name.into(), ..culprit.clone() };
    }
    for layer in &mut document.slow_layers {
        layer.layer = name.into();
    }
    for region in &mut document.regions {
        let layers = region.layers.iter_mut();
        layers.chain(&mut region.tensors).for_each(|text| *text = name.into());
        region.operators = [(name.to_owned(), 1)].into();
        for end in &mut region.ends {
            for text in [&mut end.tensor, &mut end.kind, &mut end.reason] {
                *text = name.into();
            }
        }
    }
    for tensor in &mut document.ranges {
        tensor.tensor = name.into();
    }
}
