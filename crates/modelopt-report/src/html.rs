//! The document as one HTML page.
//!
//! The page holds its style, its script and its plots, and its content security policy forbids it
//! to load anything. All that comes from the document is escaped by the template engine, and none
//! of it is in the script.

use std::collections::BTreeSet;

use minijinja::{Environment, UndefinedBehavior, Value};
use modelopt_validate::Unjudged;
use serde::Serialize;

use crate::plot::{self, Plot};
use crate::table::{self, SCHEME, Table};
use crate::{Document, Run, wording};

const TEMPLATE: &str = include_str!("report.html");
const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

pub(crate) fn render(document: &Document) -> String {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // The name ends in .html, which turns escaping on.
    let page = environment.render_named_str("report.html", TEMPLATE, Page::of(document));
    // The template is a constant that takes every page.
    page.unwrap_or_else(|error| error.to_string())
}

/// What the template is given.
#[derive(Serialize)]
struct Page<'a> {
    style: Value,
    script: Value,
    command: &'a str,
    models: String,
    outcome: &'static str,
    pass: Option<bool>,
    sentence: String,
    tiles: Vec<Tile>,
    warnings: &'a [String],
    /// The failed ones first.
    checks: Option<Table>,
    passed: Option<Table>,
    unjudged: &'a [Unjudged],
    culprits: Table,
    slow_layers: Table,
    runs: Table,
    sections: Vec<Section>,
    search: Option<&'static str>,
    metric: Option<Table>,
    trials: Table,
    sensitivity: Table,
    sensitivity_plot: Option<Plot>,
    layers: Vec<Plot>,
    regions: Table,
    region_ends: Table,
    region_plot: Option<Plot>,
    ranges: Table,
    histograms: Vec<Plot>,
    plan: Table,
    schemes: BTreeSet<&'a str>,
    scheme_column: usize,
    provenance: Table,
}

/// A key figure.
#[derive(Serialize)]
struct Tile {
    name: &'static str,
    value: String,
    note: String,
}

/// One runtime in detail.
#[derive(Serialize)]
struct Section {
    runtime: String,
    plots: Vec<Plot>,
    parity: Option<Table>,
    parts: Option<Table>,
    decisions: Option<Table>,
}

impl<'a> Page<'a> {
    fn of(document: &'a Document) -> Self {
        let verdict = document.verdict.as_ref();
        let (checks, passed) = verdict.map(table::checks).unzip();
        Page {
            style: Value::from_safe_string(STYLE.to_owned()),
            script: Value::from_safe_string(SCRIPT.to_owned()),
            command: &document.command,
            models: wording::models(document),
            outcome: wording::outcome(verdict),
            pass: verdict.map(|verdict| verdict.pass),
            sentence: wording::outcome_sentence(verdict),
            tiles: tiles(document),
            warnings: &document.warnings,
            checks: checks.filter(|table| !table.rows.is_empty()),
            passed: passed.flatten(),
            unjudged: verdict.map_or(&[], |verdict| &verdict.unjudged),
            culprits: table::culprits(&document.culprits),
            slow_layers: table::slow_layers(&document.slow_layers),
            runs: table::runs(&document.runs),
            sections: sections(document),
            search: wording::search_end(document),
            metric: document.metric.as_ref().map(table::metric),
            trials: table::trials(&document.trials),
            sensitivity: table::sensitivity(&document.sensitivity),
            sensitivity_plot: plot::sensitivity(&document.sensitivity),
            layers: plot::layers(&document.plan),
            regions: table::regions(&document.regions),
            region_ends: table::region_ends(&document.regions),
            region_plot: plot::regions(&document.regions),
            ranges: table::ranges(&document.ranges),
            histograms: plot::histograms(&document.ranges),
            plan: table::plan(&document.plan),
            schemes: document.plan.iter().map(|line| line.scheme.as_str()).collect(),
            scheme_column: SCHEME,
            provenance: table::provenance(document, str::to_owned),
        }
    }
}

fn tiles(document: &Document) -> Vec<Tile> {
    let mut tiles = Vec::new();
    if let Some(size) = &document.size {
        let (value, note) = (wording::shrink(size), wording::size_change(size));
        tiles.push(Tile { name: "Size", value, note });
    }
    let target = document.runs.first();
    if let Some(latency) = target.and_then(|run| run.latency.as_ref()) {
        let interval = wording::interval(latency);
        let confidence = wording::rough_percent(latency.confidence);
        let pairs = wording::counted(latency.pairs, "pair");
        tiles.push(Tile {
            name: "Latency, candidate to original",
            value: wording::times(latency.ratio_median),
            note: format!("{interval} with {confidence} confidence, {pairs}"),
        });
    }
    if let Some(change) = &document.metric {
        let note =
            format!("{}; the original has {}", change.name, wording::number(change.original));
        tiles.push(Tile { name: "Metric", value: wording::number(change.candidate), note });
    }
    if let Some((sqnr, output)) = target.and_then(wording::worst_sqnr) {
        let value = wording::decibels(sqnr);
        tiles.push(Tile { name: "Worst SQNR", value, note: format!("output {}", output.name) });
    }
    if let Some(samples) = &document.samples {
        tiles.push(Tile {
            name: "Samples",
            value: samples.count.to_string(),
            note: wording::sample_note(samples),
        });
    }
    tiles
}

fn sections(document: &Document) -> Vec<Section> {
    let runs = document.runs.iter().enumerate();
    let sections = runs.map(|(at, run)| section(document, at, run));
    sections.filter(|section| !section.plots.is_empty() || section.parity.is_some()).collect()
}

fn section(document: &Document, at: usize, run: &Run) -> Section {
    // The verdict is about the target.
    let verdict = document.verdict.as_ref().filter(|_| at == 0);
    let latency = run.latency.as_ref().and_then(plot::latency);
    let parity = run.parity.as_ref().and_then(|parity| plot::parity(parity, verdict));
    Section {
        runtime: wording::runtime(&run.runtime),
        plots: latency.into_iter().chain(parity).collect(),
        parity: run.parity.as_ref().map(table::parity).filter(|table| !table.rows.is_empty()),
        parts: run.parity.as_ref().and_then(table::parts),
        decisions: run.parity.as_ref().and_then(table::decisions),
    }
}
