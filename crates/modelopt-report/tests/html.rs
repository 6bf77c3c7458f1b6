//! The HTML page: one file, all there is to say, whatever the figures and names are.

mod common;

use common::{
    HOSTILE, by_ranges, latency, output, quantized, quantized_tensor, refused, region, rename_all,
    rich,
};
use modelopt_report::{
    Document, NumberHistogram, ObservedNumbers, PlanLine, PredictedTime, QuantizedTensor, Region,
    Run,
};
use modelopt_validate::{Distribution, Footprint, Parity, SizeChange, Verdict};
use proptest::prelude::*;

#[test]
fn verdicts_are_told_apart() {
    let unjudged = Document { verdict: None, ..rich(3) };
    for (document, class, word) in [
        (rich(3), "passed", "Passed"),
        (refused(3), "refused", "Refused"),
        (unjudged, "none", "Not judged"),
    ] {
        let html = document.to_html();
        assert!(html.contains(&format!("<div class=\"verdict {class}\">")), "{word}");
        assert!(html.contains(&format!("<strong>{word}</strong>")), "{word}");
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let html = rich(40).to_html();
    assert!(html.starts_with("<!doctype html>"), "{}", &html[..100]);
    for outside in ["src=", "url(", "@import", "https:"] {
        assert!(!html.contains(outside), "{outside}");
    }
    // SVG's name for itself is no address that anything is loaded from.
    assert_eq!(html.matches("http:").count(), html.matches("http://www.w3.org/2000/svg").count());
    assert_eq!(html.matches("href=").count(), html.matches("href=\"data:,\"").count());
}

#[test]
fn the_plan_is_a_plain_table_without_scripts() {
    let html = rich(40).to_html();
    let (page, script) = html.split_once("<script>").unwrap();
    assert!(page.contains("<div class=\"filter\" hidden>") && !page.contains("<button"));
    assert_eq!(page.matches("<tr data-scheme=").count(), 40);
    assert!(!script.contains("layers.1"));
}

#[test]
fn all_text_is_escaped() {
    let ranged = |layers| {
        let Document { regions, ranges, .. } = by_ranges();
        Document { regions, ranges, ..refused(layers) }
    };
    for layers in [3, 40] {
        let mut document = ranged(layers);
        rename_all(&mut document, HOSTILE);
        let html = document.to_html();
        assert_eq!(html.matches("<script").count(), 1);
        assert!(!html.contains("<img") && !html.contains("<svg onload"), "{layers}");
        assert!(html.contains("{{ 7 * 7 }}") && html.contains("&lt;img"), "{layers}");
    }
}

#[test]
fn equal_outputs_are_exact() {
    let html = rich(3).to_html();
    let (_, plots) = html.split_once("<h4>Parity</h4>").unwrap();
    let plot = &plots[..plots.find("</svg>").unwrap()];
    assert!(plot.contains("exact") && plot.contains("equal") && !plot.contains("inf"), "{plot}");
}

#[test]
fn plots_of_many_layers_stay_small() {
    let html = Document { plan: rich(2000).plan, ..Document::default() }.to_html();
    let plots: usize = html.split("<svg").skip(1).map(|rest| rest.find("</svg>").unwrap()).sum();
    assert!(plots < 100_000, "{plots} bytes");
    assert!(html.contains("15 in a column"));
    assert_eq!(html.matches("<tr data-scheme=").count(), 2000);
}

#[test]
fn regions_are_drawn_as_predicted() {
    let html = by_ranges().to_html();
    let (_, section) = html.split_once("<h2>Regions on integers</h2>").unwrap();
    let (section, _) = section.split_once("</section>").unwrap();
    assert!(section.contains("<h4>Time by region, predicted</h4>"), "{section}");
    // The region of which nothing is predicted has no bars.
    assert!(section.contains("1 region: predicted") && section.contains("1.25 ms → 500 µs"));
    assert!(section.contains("features, a|b") && section.contains("an output of the model"));
    let mut unknown = by_ranges();
    unknown.regions.iter_mut().for_each(|region| region.predicted = None);
    let html = unknown.to_html();
    assert!(html.contains("Regions on integers") && !html.contains("Time by region"));
}

#[test]
fn histograms_show_where_numbers_are_clipped() {
    let html = by_ranges().to_html();
    let (_, section) = html.split_once("<h2>Ranges of tensors</h2>").unwrap();
    let (section, _) = section.split_once("</section>").unwrap();
    // Nothing is drawn of the tensor that was not seen.
    assert_eq!(section.matches("<svg").count(), 1);
    let (_, plot) = section.split_once("<h4>features</h4>").unwrap();
    let (plot, _) = plot.split_once("</svg>").unwrap();
    let drawn = |color: &str| plot.matches(color).count();
    // 50 bins, of which 5 lie wholly outside on either side, and a swatch of each kind.
    assert_eq!((drawn("#1F6FB5"), drawn("#C2362B"), drawn("#8A5A00")), (1 + 40, 1 + 10, 1 + 2));
    assert!(section.contains("From -2 to 2; 4.00 % clipped, 31.5 dB"), "{section}");
    assert!(html.contains("real; calibrated on 4 others"));
}

#[test]
fn histograms_of_many_tensors_stay_small() {
    let ranges = vec![quantized_tensor("t", -1.0, 1.0); 1000];
    let html = Document { ranges, ..Document::default() }.to_html();
    assert_eq!(html.matches("<svg").count(), 24);
    let plots: usize = html.split("<svg").skip(1).map(|rest| rest.find("</svg>").unwrap()).sum();
    assert!(plots < 400_000, "{plots} bytes");
    assert!(html.contains("All figures of 1000 tensors"));
}

#[test]
fn figures_stand_in_words_where_there_are_none() {
    let html = Document { command: "inspect".into(), ..Document::default() }.to_html();
    assert!(html.contains("Not judged") && !html.contains("<svg"));
    let mut document = quantized(vec![output("y", f64::NAN)], Some(latency(1.0, f64::NAN)));
    document.verdict = Some(Verdict { pass: false, checks: vec![], unjudged: vec![] });
    assert!(document.to_html().contains("Refused, although no check failed."));
}

fn figure() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(0.0),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        any::<f64>(),
        -100.0..100.0,
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![".{0,20}", Just("x".repeat(1000)), Just(HOSTILE.to_owned())]
}

fn distribution() -> impl Strategy<Value = Distribution> {
    let times = prop_oneof![
        Just(vec![]),
        prop::collection::vec(figure(), 1..3),
        prop::collection::vec(0.5..2.0, 0..500),
    ];
    (figure(), times).prop_map(|(figure, quantiles_ms)| Distribution {
        runs: quantiles_ms.len(),
        mean_ms: figure,
        p50_ms: figure,
        p90_ms: figure,
        p99_ms: figure,
        throughput_per_s: figure,
        quantiles_ms,
    })
}

fn run() -> impl Strategy<Value = Run> {
    let outputs = prop::collection::vec((name(), figure(), any::<bool>()), 0..40);
    let times = prop::option::of((figure(), distribution(), distribution()));
    let footprint = prop::option::of((figure(), any::<u64>()));
    (name(), prop::option::of(outputs), times, footprint).prop_map(
        |(name, outputs, times, footprint)| Run {
            runtime: common::runtime(&name, &name),
            failure: times.is_none().then(|| name.clone()),
            parity: outputs.map(|outputs| Parity {
                outputs: outputs.into_iter().map(strange_output).collect(),
                ..Parity::default()
            }),
            latency: times.map(|(figure, original, candidate)| {
                modelopt_validate::LatencyComparison {
                    ratio_median: figure,
                    ratio_high: figure,
                    confidence: figure,
                    original,
                    candidate,
                    ..latency(1.0, figure)
                }
            }),
            original: footprint.map(|(load_ms, peak_bytes)| Footprint { load_ms, peak_bytes }),
            candidate: None,
        },
    )
}

fn strange_output((name, sqnr, float): (String, f64, bool)) -> modelopt_validate::OutputParity {
    let output = output(&name, sqnr);
    if float { output } else { modelopt_validate::OutputParity { float: None, ..output } }
}

fn layer() -> impl Strategy<Value = PlanLine> {
    (name(), name(), any::<(u64, u64)>(), prop::option::of(figure())).prop_map(
        |(layer, reason, (bytes_before, bytes_after), sqnr_db)| PlanLine {
            layer,
            op: reason.clone(),
            scheme: reason.clone(),
            region: None,
            reason,
            bytes_before,
            bytes_after,
            sqnr_db,
        },
    )
}

fn tensor() -> impl Strategy<Value = QuantizedTensor> {
    let counts = prop::collection::vec(any::<u64>(), 0..64);
    (name(), figure(), figure(), any::<(f32, f32)>(), counts).prop_map(
        |(tensor, start, width, (min, max), counts)| QuantizedTensor {
            tensor,
            observed: Some(ObservedNumbers {
                clipped: start,
                sqnr_db: width,
                histogram: NumberHistogram { start, width, counts },
                ..quantized_tensor("", min, max).observed.unwrap()
            }),
            ..quantized_tensor("", min, max)
        },
    )
}

fn any_region() -> impl Strategy<Value = Region> {
    (name(), figure(), figure()).prop_map(|(name, float_ms, share)| Region {
        predicted: Some(PredictedTime { float_ms, share, integer_ms: share, border_ms: float_ms }),
        ..region(&[name.as_str()], &[(name.as_str(), name.as_str())])
    })
}

fn document() -> impl Strategy<Value = Document> {
    let ranges = prop::collection::vec(tensor(), 0..40);
    let regions = prop::collection::vec(any_region(), 0..40);
    (plain_document(), regions, ranges).prop_map(|(document, regions, ranges)| Document {
        regions,
        ranges,
        ..document
    })
}

fn plain_document() -> impl Strategy<Value = Document> {
    let plan = prop_oneof![
        prop::collection::vec(layer(), 0..30),
        (layer(), 100..300usize).prop_map(|(line, count)| vec![line; count]),
    ];
    (prop::collection::vec(run(), 0..3), plan, any::<(u64, u64)>(), name(), figure()).prop_map(
        |(runs, plan, (original_bytes, candidate_bytes), name, limit)| {
            let judged = quantized(vec![output("y", limit)], None);
            let mut document = Document {
                runs,
                plan,
                size: Some(SizeChange { original_bytes, candidate_bytes }),
                warnings: vec![name],
                ..judged
            };
            for check in document.verdict.iter_mut().flat_map(|verdict| &mut verdict.checks) {
                check.limit = limit;
            }
            document
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_document_is_a_page(document in document()) {
        let html = document.to_html();
        prop_assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>"), "{html}");
        prop_assert_eq!(html.matches("<script").count(), 1);
        prop_assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        let rows = html.matches("<tr data-scheme=").count();
        prop_assert_eq!(rows, document.plan.len());
        prop_assert!(document.to_markdown().len() < 1024 * 1024);
    }
}
