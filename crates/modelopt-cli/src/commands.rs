//! One function per command.

mod bench;
mod calibrate;
mod report;
mod serve;
mod upgrade;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::CommandFactory;
use modelopt::report::SearchEnd;
use modelopt::{Config, RuntimeChoice};

use crate::args::{self, Arguments, Command, Common};
use crate::ending::{Done, Usage};
use crate::files::{Input, Output};
use crate::plan_document::PlanDocument;
use crate::progress::Bar;
use crate::saying::{print, stop_on_interrupt, warn, write, write_report};
use crate::settings::{
    apply_enforcing, apply_integers, apply_judging, apply_planning, apply_precision,
    apply_sampling, apply_searching, apply_selection, apply_target, default_cache, settings,
    settings_over,
};
use crate::{places, show, sniff};

pub(crate) fn run(arguments: Arguments) -> Result<Done> {
    let common = &arguments.common;
    match arguments.command {
        Command::Quantize(args) => quantize(&args, common),
        Command::Convert(args) => convert(&args, common),
        Command::Upgrade(args) => upgrade::run(&args, common),
        Command::Plan(args) => plan(&args, common),
        Command::Calibrate(args) => calibrate::run(&args, common),
        Command::Compare(args) => compare(&args, common),
        Command::Bench(args) => bench::run(&args, common),
        Command::Inspect(args) => inspect(&args, common),
        Command::Report(args) => report::run(&args, common),
        Command::Serve(args) => serve::run(&args, common),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "modelopt", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(Done::Ok)
        }
        Command::Man { folder } => {
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            clap_mangen::generate_to(Arguments::command(), &folder)?;
            Ok(Done::Ok)
        }
        Command::Worker => {
            modelopt::runtime::worker::serve().context("a worker is started by modelopt itself")?;
            Ok(Done::Ok)
        }
    }
}

fn quantize(args: &args::Quantize, common: &Common) -> Result<Done> {
    let mut config = settings(common)?;
    apply_planning(&mut config, &args.planning)?;
    apply_searching(&mut config, &args.searching);
    apply_enforcing(&mut config, &args.enforcing);
    apply_judging(&mut config, &args.judging)?;
    if args.measure {
        config.measure = true;
        config.measure_cache = args.measure_cache.clone().or(config.measure_cache);
    }
    if config.measure && config.measure_cache.is_none() {
        config.measure_cache = default_cache();
    }
    if args.measure && config.runtime == RuntimeChoice::Auto {
        let message = "--measure needs the runtime to measure on: name it with --runtime";
        return Err(Usage(message.into()).into());
    }
    make("quantize", &args.making, config, common)
}

fn convert(args: &args::Convert, common: &Common) -> Result<Done> {
    let mut config = settings_over(&Config::converting(args.to.unwrap_or_default()), common)?;
    config.scheme = args.to.or(config.scheme);
    // Layers are not measured here, whatever a settings file for all commands says.
    config.measure = false;
    apply_precision(&mut config, &args.precision)?;
    apply_selection(&mut config, &args.selection)?;
    apply_enforcing(&mut config, &args.enforcing);
    apply_judging(&mut config, &args.judging)?;
    make("convert", &args.making, config, common)
}

/// From one file to another, with everything that is printed and written beside it.
fn make(command: &str, args: &args::Making, config: Config, common: &Common) -> Result<Done> {
    let files = &args.files;
    let config = Config { external_data: config.external_data | files.external_data, ..config };
    let target = places::output(files)?;
    places::check_pipe(&target, config.external_data, common.json)?;
    let to_stdout = target == Path::new("-");
    check_distinct(args.save_plan.as_deref(), &[&files.input, &target])?;
    let input = Input::new(&files.input)?;
    let output = Output::new(&target)?;
    let mut bar = Bar::new(common.quiet);
    let search = modelopt::Search::new(&config);
    if config.searches() || config.metric.is_given() {
        stop_on_interrupt(search.stop())?;
    }
    let mut outcome = search.run(input.path(), output.path(), &mut |event| bar.show(&event))?;
    bar.finish();
    if let Some(verdict) = &mut outcome.verdict {
        show::say_reasons(verdict);
    }
    let document = outcome.document(command, show::warning);
    // What a search that found nothing got to is not lost.
    let best = (!outcome.emitted && outcome.search_end.is_some() && !to_stdout)
        .then(|| best_plan_beside(&target));
    let saved_plan = args.save_plan.clone().or(best);
    if let Some(path) = &saved_plan {
        write(path, &outcome.plan.to_toml())?;
    }
    write_report(args.report.as_deref(), &document)?;
    if outcome.emitted {
        output.finish()?;
    }
    warn(&outcome.warnings);
    if common.json {
        print(&document.to_json())?;
    } else if !common.quiet {
        let mut text = String::new();
        if args.explain {
            text += &show::plan(&outcome.plan, &outcome.regions);
        }
        text += &show::outcome(&outcome, &files.input, &target);
        if let Some(path) = saved_plan.filter(|_| !outcome.emitted) {
            text += &show::saved_plan(&path);
        }
        let text = show::plain(&text);
        if to_stdout { eprint!("{text}") } else { print(&text)? }
    }
    Ok(match outcome.search_end {
        _ if outcome.emitted => Done::Ok,
        Some(SearchEnd::Stopped) => Done::Stopped,
        _ => Done::Refused,
    })
}

/// Where the best plan goes when nothing is emitted and nobody said where.
fn best_plan_beside(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".best-plan.toml");
    output.with_file_name(name)
}

fn plan(args: &args::Plan, common: &Common) -> Result<Done> {
    if !args.sensitivity && args.sampling.is_given() {
        let message = "the model is run with --sensitivity only: samples, sizes and seeds need it";
        return Err(Usage(message.into()).into());
    }
    if !args.sensitivity && args.selection.plan.is_some() && args.target.runtime.is_some() {
        let message = "--runtime is for the default rules, which --plan replaces; with both, only \
                       --sensitivity makes sense";
        return Err(Usage(message.into()).into());
    }
    let mut config = settings(common)?;
    config.scheme = args.scheme.or(config.scheme);
    apply_integers(&mut config, &args.integers);
    apply_precision(&mut config, &args.precision)?;
    apply_selection(&mut config, &args.selection)?;
    check_distinct(args.save.as_deref(), &[&args.input])?;
    apply_target(&mut config, &args.target);
    apply_sampling(&mut config, &args.sampling)?;
    let input = Input::new(&args.input)?;
    if args.sensitivity {
        return sensitivity(&input, args, &config, common);
    }
    let inspection = modelopt::inspect(input.path(), &config)?;
    if let Some(path) = &args.save {
        write(path, &inspection.plan.to_toml())?;
    }
    if common.json {
        let document = serde_json::json!({
            "schema": "modelopt.plan/1",
            "plan": PlanDocument::of(&inspection.plan, &inspection.regions),
        });
        print(&format!("{document:#}\n"))?;
    } else if !common.quiet {
        print(&show::plain(&show::plan(&inspection.plan, &inspection.regions)))?;
    }
    Ok(Done::Ok)
}

/// What each layer costs, measured.
fn sensitivity(input: &Input, args: &args::Plan, config: &Config, common: &Common) -> Result<Done> {
    let mut bar = Bar::new(common.quiet);
    let ranked = modelopt::rank(input.path(), config, &mut |event| bar.show(&event))?;
    bar.finish();
    warn(&ranked.warnings);
    if let Some(path) = &args.save {
        write(path, &ranked.plan.to_toml())?;
    }
    if common.json {
        let document = serde_json::json!({
            "schema": "modelopt.sensitivity/1",
            "plan": PlanDocument::of(&ranked.plan, &ranked.regions),
            "layers": &ranked.layers,
            "runtime": &ranked.runtime,
            "samples": &ranked.samples,
        });
        print(&format!("{document:#}\n"))?;
    } else if !common.quiet {
        print(&show::plain(&show::sensitivity(&ranked)))?;
    }
    Ok(Done::Ok)
}

fn compare(args: &args::Compare, common: &Common) -> Result<Done> {
    let mut config = settings(common)?;
    apply_judging(&mut config, &args.judging)?;
    for model in [&args.original, &args.candidate] {
        sniff::check_model(model)?;
    }
    let mut bar = Bar::new(common.quiet);
    let stop = modelopt::Stop::default();
    if config.metric.is_given() {
        stop_on_interrupt(stop.clone())?;
    }
    let (original, candidate) = (&args.original, &args.candidate);
    let compared =
        modelopt::compare_until(original, candidate, &config, &stop, &mut |event| bar.show(&event));
    bar.finish();
    if stop.is_stopped() {
        return Ok(Done::Stopped);
    }
    let mut compared = compared?;
    show::say_reasons(&mut compared.verdict);
    warn(&compared.warnings);
    let document = compared.document(show::warning);
    write_report(args.report.as_deref(), &document)?;
    if common.json {
        print(&document.to_json())?;
    } else if !common.quiet {
        print(&show::plain(&show::compared(&compared)))?;
    }
    Ok(if compared.verdict.pass || args.no_gate { Done::Ok } else { Done::Refused })
}

fn inspect(args: &args::Inspect, common: &Common) -> Result<Done> {
    let input = Input::new(&args.input)?;
    let inspection = modelopt::inspect(input.path(), &settings(common)?)?;
    if common.json {
        let mut document = serde_json::to_value(&inspection)?;
        document["schema"] = "modelopt.inspect/1".into();
        document["quantizable_layers"] = inspection.plan.changed().into();
        print(&format!("{document:#}\n"))?;
    } else if !common.quiet {
        print(&show::plain(&show::inspection(&inspection, &args.input)))?;
    }
    Ok(Done::Ok)
}

/// Refuses to save a plan over a model.
fn check_distinct(plan: Option<&Path>, models: &[&Path]) -> Result<()> {
    match plan {
        Some(plan) if models.contains(&plan) => {
            Err(Usage(format!("the plan would overwrite the model {}", plan.display())).into())
        }
        _ => Ok(()),
    }
}
