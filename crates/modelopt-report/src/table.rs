//! The tables of a report, before they are Markdown or HTML.

mod regions;

use modelopt_validate::{
    Check, Culprit, FloatParity, MetricChange, OutputParity, Parity, PartParity, SlowLayer, Verdict,
};
use serde::Serialize;

use crate::wording::{self, NONE};
use crate::{Document, PlanLine, Run, Sensitivity, Trial};

pub(crate) use regions::{ranges, region_ends, regions};

/// Rows under a header.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
}

/// What a column holds, which decides how it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Names of things in the model.
    Name,
    /// A few words.
    Word,
    /// Figures, aligned at the right.
    Figure,
    /// Pass or fail.
    Mark,
    /// Sentences.
    Prose,
}

/// One line of text without control characters; it may be markup, and must be escaped.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Cell {
    pub(crate) text: String,
    /// Whether it is good news or bad news, if it is news.
    pub(crate) good: Option<bool>,
    /// What a figure sorts by, as JavaScript writes numbers; empty sorts last.
    pub(crate) key: Option<String>,
}

impl Cell {
    fn key(self, x: f64) -> Self {
        let key = match x {
            _ if x.is_nan() => String::new(),
            f64::INFINITY => "Infinity".to_owned(),
            f64::NEG_INFINITY => "-Infinity".to_owned(),
            _ => x.to_string(),
        };
        Cell { key: Some(key), ..self }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(raw: T) -> Self {
        let text = raw.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Cell { text, ..Cell::default() }
    }
}

fn table(columns: &[(&'static str, Kind)], rows: impl Iterator<Item = Vec<Cell>>) -> Table {
    let columns = columns.iter().map(|&(title, kind)| Column { title, kind }).collect();
    Table { columns, rows: rows.collect() }
}

/// Both models in a few lines.
pub(crate) fn facts(document: &Document) -> Table {
    let mut rows = vec![fact("Original", document.original.name.as_str())];
    if let Some(candidate) = &document.candidate {
        rows.push(fact("Candidate", candidate.name.as_str()));
    }
    if let Some(size) = &document.size {
        let change = wording::size_change(size);
        rows.push(fact("Size", format!("{change} ({})", wording::shrink(size))));
    }
    if let Some(latency) = document.runs.first().and_then(|run| run.latency.as_ref()) {
        let pairs = wording::counted(latency.pairs, "pair");
        rows.push(fact("Latency", format!("{}, {pairs}", wording::ratio(latency))));
    }
    if let Some(samples) = &document.samples {
        rows.push(fact("Samples", wording::samples(samples)));
    }
    table(&[("Model", Kind::Word), ("", Kind::Prose)], rows.into_iter())
}

/// Where all of it came from; `digest` says how digests are written.
pub(crate) fn provenance(document: &Document, digest: impl Fn(&str) -> String) -> Table {
    let mut rows = Vec::new();
    let files =
        [("original", Some(&document.original)), ("candidate", document.candidate.as_ref())];
    for (side, file) in files {
        if let Some(blake3) = file.and_then(|file| file.blake3.as_ref()) {
            rows.push(fact(format!("BLAKE3 of the {side}"), digest(blake3)));
        }
    }
    if let Some(plan) = &document.plan_digest {
        rows.push(fact("BLAKE3 of the plan", digest(plan)));
    }
    for run in &document.runs {
        let runtime = wording::runtime(&run.runtime);
        rows.push(fact("Runtime", format!("{runtime}: {}", wording::settings(&run.runtime))));
    }
    if let Some(machine) = &document.machine {
        rows.push(fact("Machine", wording::machine(machine)));
    }
    rows.push(fact("modelopt", &document.tool_version));
    table(&[("Of", Kind::Word), ("Value", Kind::Prose)], rows.into_iter())
}

fn fact(name: impl AsRef<str>, value: impl AsRef<str>) -> Vec<Cell> {
    vec![name.into(), value.into()]
}

/// More checks than this are folded away, but for those that failed.
const MANY_CHECKS: usize = 20;

/// The failed checks first; those that passed apart where there are many.
pub(crate) fn checks(verdict: &Verdict) -> (Table, Option<Table>) {
    let passed = verdict.checks.iter().filter(|check| check.pass);
    if verdict.checks.len() <= MANY_CHECKS {
        (some_checks(verdict.failures().chain(passed)), None)
    } else {
        (some_checks(verdict.failures()), Some(some_checks(passed)))
    }
}

fn some_checks<'a>(checks: impl Iterator<Item = &'a Check>) -> Table {
    let columns = [
        ("Check", Kind::Word),
        ("Of", Kind::Name),
        ("Figure", Kind::Figure),
        ("Limit", Kind::Figure),
        ("Result", Kind::Mark),
        ("Note", Kind::Prose),
    ];
    let row = |check: &Check| {
        let result = if check.pass { "pass" } else { "FAIL" };
        vec![
            (&check.name).into(),
            (&check.subject).into(),
            wording::figure(check.value, check.unit).into(),
            wording::limit(check).into(),
            Cell { good: Some(check.pass), ..Cell::from(result) },
            check.note.as_deref().unwrap_or_default().into(),
        ]
    };
    table(&columns, checks.map(row))
}

pub(crate) fn culprits(culprits: &[Culprit]) -> Table {
    let columns = [("Layers", Kind::Name), ("Scheme", Kind::Word), ("SQNR", Kind::Figure)];
    let row = |culprit: &Culprit| {
        let layers = culprit.layers.join(", ");
        vec![layers.into(), (&culprit.scheme).into(), wording::decibels(culprit.sqnr_db).into()]
    };
    table(&columns, culprits.iter().map(row))
}

pub(crate) fn slow_layers(layers: &[SlowLayer]) -> Table {
    let columns = [
        ("Layer", Kind::Name),
        ("Operator", Kind::Word),
        ("Scheme", Kind::Word),
        ("Slowdown", Kind::Figure),
        ("Original", Kind::Figure),
    ];
    let row = |layer: &SlowLayer| {
        vec![
            (&layer.layer).into(),
            (&layer.op).into(),
            (&layer.scheme).into(),
            wording::times(layer.slowdown).into(),
            wording::milliseconds(layer.original_ms).into(),
        ]
    };
    table(&columns, layers.iter().map(row))
}

pub(crate) fn runs(runs: &[Run]) -> Table {
    let columns = [
        ("Runtime", Kind::Word),
        ("Version", Kind::Word),
        ("Worst SQNR", Kind::Figure),
        ("Latency ratio", Kind::Figure),
        ("p50", Kind::Figure),
        ("Load time", Kind::Figure),
        ("Peak memory", Kind::Figure),
        ("Note", Kind::Prose),
    ];
    let row = |(at, run): (usize, &Run)| {
        let target = if at == 0 && runs.len() > 1 { " (target)" } else { "" };
        let latency = run.latency.as_ref();
        let medians = |of: &modelopt_validate::LatencyComparison| {
            let [before, after] =
                [&of.original, &of.candidate].map(|side| wording::milliseconds(side.p50_ms));
            format!("{before} → {after}")
        };
        let or_none = |text: Option<String>| Cell::from(text.unwrap_or_else(|| NONE.to_owned()));
        let note = run.failure.as_ref().map_or_else(
            || Cell::from(&run.runtime.reason),
            |failure| Cell { good: Some(false), ..Cell::from(failure) },
        );
        vec![
            format!("{}{target}", run.runtime.name).into(),
            (&run.runtime.version).into(),
            or_none(wording::worst_sqnr(run).map(|(sqnr, _)| wording::decibels(sqnr))),
            or_none(latency.map(wording::ratio)),
            or_none(latency.map(medians)),
            wording::footprint(run, |cost| wording::milliseconds(cost.load_ms)).into(),
            wording::footprint(run, |cost| wording::bytes(cost.peak_bytes)).into(),
            note,
        ]
    };
    table(&columns, runs.iter().enumerate().map(row))
}

pub(crate) fn parity(parity: &Parity) -> Table {
    let columns = [
        ("Output", Kind::Name),
        ("Type", Kind::Word),
        ("Elements", Kind::Figure),
        ("SQNR", Kind::Figure),
        ("Max error", Kind::Figure),
        ("RMSE", Kind::Figure),
        ("Cosine", Kind::Figure),
        ("Outside tolerance", Kind::Figure),
        ("Top-1", Kind::Figure),
        ("Top-5", Kind::Figure),
        ("New NaN/Inf", Kind::Figure),
        ("Mismatches", Kind::Figure),
    ];
    let row = |output: &OutputParity| {
        let of = |pick: &dyn Fn(&FloatParity) -> Option<String>| {
            let text = output.float.as_ref().and_then(pick);
            Cell::from(text.unwrap_or_else(|| NONE.to_owned()))
        };
        vec![
            (&output.name).into(),
            output.original.to_string().into(),
            output.elements.to_string().into(),
            of(&|float| Some(wording::decibels(float.sqnr_db))),
            of(&|float| Some(wording::number(float.max_abs_error))),
            of(&|float| Some(wording::number(float.rmse))),
            of(&|float| Some(format!("{:.6}", float.cosine))),
            of(&|float| Some(wording::percent(float.outside_tolerance))),
            of(&|float| float.top1.map(wording::percent)),
            of(&|float| float.top5.map(wording::percent)),
            of(&|float| Some(float.new_non_finite.to_string())),
            output.mismatches.map_or_else(|| NONE.to_owned(), |count| count.to_string()).into(),
        ]
    };
    table(&columns, parity.outputs.iter().map(row))
}

/// The parts of outputs that are judged part by part.
pub(crate) fn parts(parity: &Parity) -> Option<Table> {
    let columns = [
        ("Part", Kind::Name),
        ("Kind", Kind::Word),
        ("Elements", Kind::Figure),
        ("SQNR", Kind::Figure),
        ("Max error", Kind::Figure),
        ("Worst sample", Kind::Name),
    ];
    let row = |part: &PartParity| {
        vec![
            (&part.name).into(),
            if part.probability { "probabilities" } else { "numbers" }.into(),
            part.elements.to_string().into(),
            wording::decibels(part.sqnr_db).into(),
            wording::number(part.max_abs_error).into(),
            (&part.worst_sample).into(),
        ]
    };
    let rows: Vec<Vec<Cell>> =
        parity.outputs.iter().flat_map(|output| &output.parts).map(row).collect();
    (!rows.is_empty()).then(|| table(&columns, rows.into_iter()))
}

/// How choices came out, where there are clear ones.
pub(crate) fn decisions(parity: &Parity) -> Option<Table> {
    let columns = [
        ("Output", Kind::Name),
        ("Rows", Kind::Figure),
        ("Clear choices", Kind::Figure),
        ("Kept", Kind::Figure),
        ("Largest margin lost", Kind::Figure),
    ];
    let outputs = parity.outputs.iter();
    let rows: Vec<Vec<Cell>> = outputs
        .filter_map(|output| Some((output, output.decisions.as_ref()?)))
        .filter(|(_, decisions)| decisions.decided > 0)
        .map(|(output, decisions)| {
            vec![
                (&output.name).into(),
                decisions.rows.to_string().into(),
                decisions.decided.to_string().into(),
                decisions.kept.to_string().into(),
                wording::number(decisions.lost_margin).into(),
            ]
        })
        .collect();
    (!rows.is_empty()).then(|| table(&columns, rows.into_iter()))
}

pub(crate) fn trials(trials: &[Trial]) -> Table {
    let has_metric = trials.iter().any(|trial| trial.metric.is_some());
    let mut columns = vec![
        ("#", Kind::Figure),
        ("Tried", Kind::Prose),
        ("Layers", Kind::Prose),
        ("Size", Kind::Figure),
        ("Worst SQNR", Kind::Figure),
    ];
    columns.extend(has_metric.then_some(("Metric", Kind::Figure)));
    columns.extend([("Latency ratio", Kind::Figure), ("Result", Kind::Mark)]);
    let failures = trials.iter().any(|trial| trial.failure.is_some());
    columns.extend(failures.then_some(("Note", Kind::Prose)));
    let row = |(at, trial): (usize, &Trial)| {
        let schemes = trial.schemes.iter().map(|(scheme, count)| format!("{count} {scheme}"));
        let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
        let result = match &trial.failure {
            Some(_) => "does not run",
            None if trial.pass => "pass",
            None => "fail",
        };
        let mut cells = vec![
            Cell::from((at + 1).to_string()).key((at + 1) as f64),
            (&trial.what).into(),
            schemes.collect::<Vec<_>>().join(", ").into(),
            Cell::from(wording::bytes(trial.bytes)).key(trial.bytes as f64),
            Cell::from(or_none(trial.sqnr_db.map(wording::decibels)))
                .key(trial.sqnr_db.unwrap_or(f64::NAN)),
        ];
        cells.extend(has_metric.then(|| {
            Cell::from(or_none(trial.metric.map(wording::number)))
                .key(trial.metric.unwrap_or(f64::NAN))
        }));
        cells.extend([
            Cell::from(or_none(trial.slowdown.map(wording::times)))
                .key(trial.slowdown.unwrap_or(f64::NAN)),
            Cell { good: Some(trial.pass), ..Cell::from(result) },
        ]);
        cells.extend(failures.then(|| trial.failure.as_deref().unwrap_or_default().into()));
        cells
    };
    table(&columns, trials.iter().enumerate().map(row))
}

/// The user's metric, and what came with it.
pub(crate) fn metric(change: &MetricChange) -> Table {
    let columns = [
        ("Metric", Kind::Name),
        ("Original", Kind::Figure),
        ("Candidate", Kind::Figure),
        ("May be lost", Kind::Figure),
    ];
    let row = |name: &str, original: f64, candidate: f64, may: String| {
        let figures = [original, candidate].map(|x| Cell::from(wording::number(x)).key(x));
        let [original, candidate] = figures;
        vec![name.into(), original, candidate, may.into()]
    };
    let own = row(&change.name, change.original, change.candidate, change.max_drop.to_string());
    let further = change
        .further
        .iter()
        .map(|further| row(&further.name, further.original, further.candidate, NONE.to_owned()));
    table(&columns, std::iter::once(own).chain(further))
}

pub(crate) fn sensitivity(layers: &[Sensitivity]) -> Table {
    let columns = [
        ("Layers", Kind::Name),
        ("Operator", Kind::Word),
        ("Scheme", Kind::Word),
        ("Bytes", Kind::Figure),
        ("Weights, at the layer", Kind::Figure),
        ("Activation, at the layer", Kind::Figure),
        ("Alone, at the outputs", Kind::Figure),
        ("Gained without it", Kind::Figure),
    ];
    let row = |layer: &Sensitivity| {
        let figure = |db: Option<f64>| {
            let text = db.map_or_else(|| NONE.to_owned(), wording::decibels);
            Cell::from(text).key(db.unwrap_or(f64::NAN))
        };
        vec![
            layer.layers.join(", ").into(),
            (&layer.op).into(),
            (&layer.scheme).into(),
            Cell::from(wording::bytes(layer.bytes)).key(layer.bytes as f64),
            figure(layer.layer_weights_db),
            figure(layer.layer_activation_db),
            figure(layer.alone_db),
            figure(layer.gained_db),
        ]
    };
    table(&columns, layers.iter().map(row))
}

/// The scheme is in column [`SCHEME`]. Regions have a column where there are any.
pub(crate) fn plan(plan: &[PlanLine]) -> Table {
    let has_regions = plan.iter().any(|line| line.region.is_some());
    let mut columns = vec![
        ("#", Kind::Figure),
        ("Layer", Kind::Name),
        ("Operator", Kind::Word),
        ("Scheme", Kind::Word),
    ];
    columns.extend(has_regions.then_some(("Region", Kind::Figure)));
    columns.extend([
        ("Before", Kind::Figure),
        ("After", Kind::Figure),
        ("Weight SQNR", Kind::Figure),
        ("Reason", Kind::Prose),
    ]);
    let row = |(at, line): (usize, &PlanLine)| {
        let size = |count: u64| Cell::from(wording::bytes(count)).key(count as f64);
        let sqnr = line.sqnr_db.map_or_else(|| NONE.to_owned(), wording::decibels);
        let mut cells = vec![
            Cell::from((at + 1).to_string()).key((at + 1) as f64),
            (&line.layer).into(),
            (&line.op).into(),
            (&line.scheme).into(),
        ];
        cells.extend(has_regions.then(|| number_of(line.region)));
        cells.extend([
            size(line.bytes_before),
            size(line.bytes_after),
            Cell::from(sqnr).key(line.sqnr_db.unwrap_or(f64::NAN)),
            (&line.reason).into(),
        ]);
        cells
    };
    table(&columns, plan.iter().enumerate().map(row))
}

/// The number of a region, if there is one.
fn number_of(region: Option<usize>) -> Cell {
    let text = region.map_or_else(|| NONE.to_owned(), |region| region.to_string());
    Cell::from(text).key(region.map_or(f64::NAN, |region| region as f64))
}

/// Where the scheme stands in the table of the plan.
pub(crate) const SCHEME: usize = 3;
