//! `modelopt upgrade`.

use std::path::Path;

use anyhow::Result;
use modelopt::{Config, Stop, UpgradeOutcome};
use serde_json::{Value, json};

use crate::args::{self, Common};
use crate::ending::Done;
use crate::files::{Input, Output};
use crate::progress::Bar;
use crate::saying::{print, stop_on_interrupt, warn, write_report};
use crate::settings::{apply_enforcing, apply_judging, settings_over};
use crate::{places, show};

pub(super) fn run(args: &args::Upgrade, common: &Common) -> Result<Done> {
    let mut config = settings_over(&Config::upgrading(), common)?;
    config.external_data |= args.files.external_data;
    apply_enforcing(&mut config, &args.enforcing);
    apply_judging(&mut config, &args.judging)?;
    // Newer operators are not there to be faster: time is taken where somebody asks for it.
    config.measure_latency = args.judging.gate.max_slowdown.is_some();
    let target = places::output(&args.files)?;
    places::check_pipe(&target, config.external_data, common.json)?;
    let input = Input::new(&args.files.input)?;
    let output = Output::new(&target)?;
    let mut bar = Bar::new(common.quiet);
    let stop = Stop::default();
    if config.metric.is_given() {
        stop_on_interrupt(stop.clone())?;
    }
    let (from, to) = (input.path(), output.path());
    let done =
        modelopt::upgrade(from, to, args.opset, &config, &stop, &mut |event| bar.show(&event));
    bar.finish();
    if stop.is_stopped() {
        return Ok(Done::Stopped);
    }
    let mut outcome = done?;
    if let Some(compared) = &mut outcome.compared {
        show::say_reasons(&mut compared.verdict);
        write_report(args.report.as_deref(), &compared.document(show::warning))?;
        warn(&compared.warnings);
    }
    if outcome.emitted {
        output.finish()?;
    }
    if common.json {
        print(&format!("{:#}\n", document(&outcome)?))?;
    } else if !common.quiet {
        let text = show::plain(&show::upgraded(&outcome, &args.files.input, &target));
        if target == Path::new("-") { eprint!("{text}") } else { print(&text)? }
    }
    Ok(if outcome.refused { Done::Refused } else { Done::Ok })
}

fn document(outcome: &UpgradeOutcome) -> Result<Value> {
    let upgraded = &outcome.upgraded;
    let adapted = upgraded.adapted.iter().map(|adapted| {
        json!({
            "operator": adapted.operator,
            "version": adapted.version,
            "nodes": adapted.nodes,
        })
    });
    let comparison = outcome.compared.as_ref().map(|c| c.document(show::warning).to_json());
    let comparison = comparison.map(|text| serde_json::from_str::<Value>(&text)).transpose()?;
    Ok(json!({
        "schema": "modelopt.upgrade/1",
        "opset": { "before": upgraded.from, "after": upgraded.to },
        "ir_version": { "before": upgraded.ir_version.0, "after": upgraded.ir_version.1 },
        "changed": upgraded.changed,
        "adapted": adapted.collect::<Vec<_>>(),
        "emitted": outcome.emitted,
        "comparison": comparison,
    }))
}
