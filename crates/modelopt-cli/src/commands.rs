//! One function per command.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::CommandFactory;
use modelopt::runtime::parse_dim;
use modelopt::{Config, Enforcement, RuntimeChoice, rewrite};

use crate::args::{self, Arguments, Command, Common};
use crate::files::{Input, Output};
use crate::progress::Bar;
use crate::{Done, Usage, show};

pub(crate) fn run(arguments: Arguments) -> Result<Done> {
    let common = &arguments.common;
    match arguments.command {
        Command::Quantize(args) => quantize(&args, common),
        Command::Plan(args) => plan(&args, common),
        Command::Compare(args) => compare(&args, common),
        Command::Inspect(args) => inspect(&args, common),
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
    }
}

fn quantize(args: &args::Quantize, common: &Common) -> Result<Done> {
    let mut config = settings(common)?;
    apply_planning(&mut config, &args.planning)?;
    apply_running(&mut config, &args.running)?;
    apply_gate(&mut config, &args.gate);
    config.external_data |= args.external_data;
    if args.no_gate {
        config.enforcement = Enforcement::Judge;
    }
    if args.no_validate {
        config.enforcement = Enforcement::None;
    }
    let to_stdout = args.output == Path::new("-");
    if to_stdout && common.json {
        return Err(Usage("--json and -o - both want stdout".into()).into());
    }
    if to_stdout && config.external_data {
        return Err(Usage("external data cannot be written to stdout".into()).into());
    }
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Usage("-o - would write the model to the terminal; redirect it".into()).into());
    }
    check_distinct(args.save_plan.as_deref(), &[&args.input, &args.output])?;
    let input = Input::new(&args.input)?;
    let output = Output::new(&args.output)?;
    let mut bar = Bar::new(common.quiet);
    let outcome = modelopt::optimize(input.path(), output.path(), &config, &mut |event| {
        bar.show(&event);
    })?;
    bar.finish();
    let document = outcome.document("quantize", &args.input, &args.output);
    if let Some(path) = &args.save_plan {
        write(path, &outcome.plan.to_toml())?;
    }
    if let Some(folder) = &args.report {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        write(&folder.join("report.json"), &document.to_json())?;
        write(&folder.join("report.md"), &document.to_markdown())?;
    }
    if outcome.emitted {
        output.finish()?;
    }
    for warning in &outcome.warnings {
        eprintln!("warning: {}", show::plain(warning));
    }
    if common.json {
        print(&document.to_json())?;
    } else if !common.quiet {
        let mut text = String::new();
        if args.explain {
            text += &show::plan(&outcome.plan);
        }
        text += &show::outcome(&outcome, &args.input, &args.output);
        let text = show::plain(&text);
        if to_stdout { eprint!("{text}") } else { print(&text)? }
    }
    Ok(if outcome.emitted { Done::Ok } else { Done::Refused })
}

fn plan(args: &args::Plan, common: &Common) -> Result<Done> {
    let mut config = settings(common)?;
    apply_planning(&mut config, &args.planning)?;
    check_distinct(args.save.as_deref(), &[&args.input])?;
    let input = Input::new(&args.input)?;
    let inspection = modelopt::inspect(input.path(), &config)?;
    if let Some(path) = &args.save {
        write(path, &inspection.plan.to_toml())?;
    }
    if common.json {
        let document = serde_json::json!({
            "schema": "modelopt.plan/1",
            "plan": &inspection.plan,
        });
        print(&format!("{document:#}\n"))?;
    } else if !common.quiet {
        print(&show::plain(&show::plan(&inspection.plan)))?;
    }
    Ok(Done::Ok)
}

fn compare(args: &args::Compare, common: &Common) -> Result<Done> {
    let mut config = settings(common)?;
    apply_running(&mut config, &args.running)?;
    apply_gate(&mut config, &args.gate);
    let mut bar = Bar::new(common.quiet);
    let compared = modelopt::compare(&args.original, &args.candidate, &config, &mut |event| {
        bar.show(&event);
    })?;
    bar.finish();
    if common.json {
        print(&compared.document(&args.original, &args.candidate).to_json())?;
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

/// The settings file, or the defaults.
fn settings(common: &Common) -> Result<Config> {
    let default = Path::new("modelopt.toml");
    let path = match &common.config {
        Some(path) => path.as_path(),
        None if default.is_file() => default,
        None => return Ok(Config::default()),
    };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Config::from_toml(&text).with_context(|| path.display().to_string())
}

fn apply_planning(config: &mut Config, args: &args::Planning) -> Result<()> {
    config.scheme = args.scheme.unwrap_or(config.scheme);
    if let Some(granularity) = args.granularity {
        config.numerics.granularity = granularity.into();
    }
    config.numerics.reduce_range |= args.reduce_range;
    config.min_weight_bytes = args.min_weight_bytes.unwrap_or(config.min_weight_bytes);
    replace(&mut config.include, &args.include);
    replace(&mut config.exclude, &args.exclude);
    replace(&mut config.skip_rewrite, &args.skip_rewrite);
    config.freeze_inputs |= args.freeze_inputs;
    if let Some(path) = &args.plan {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let plan = rewrite::Plan::from_toml(&text).with_context(|| path.display().to_string())?;
        config.plan = Some(plan);
    }
    Ok(())
}

fn apply_running(config: &mut Config, args: &args::Running) -> Result<()> {
    if let Some(runtime) = args.runtime {
        config.runtime = match runtime {
            args::RuntimeArgument::Auto => RuntimeChoice::Auto,
            args::RuntimeArgument::Tract => RuntimeChoice::Tract,
            args::RuntimeArgument::Rten => RuntimeChoice::Rten,
        };
    }
    config.threads = args.threads.unwrap_or(config.threads);
    config.seed = args.seed.unwrap_or(config.seed);
    config.sample_count = args.sample_count.unwrap_or(config.sample_count);
    if args.samples.is_some() {
        config.samples.clone_from(&args.samples);
    }
    for dim in &args.dim {
        let (name, size) = parse_dim(dim).map_err(|error| Usage(error.to_string()))?;
        config.dims.insert(name, size);
    }
    for input in &args.fixed {
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

fn replace(setting: &mut Vec<String>, argument: &[String]) {
    if !argument.is_empty() {
        *setting = argument.to_vec();
    }
}

fn print(text: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn write(path: &PathBuf, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
