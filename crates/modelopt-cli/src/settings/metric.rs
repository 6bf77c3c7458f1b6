//! Settings of the user's own metric.

use anyhow::Result;
use modelopt::{Config, Enforcement};

use crate::args::{Gate, Measuring};
use crate::ending::Usage;

/// Takes in what was said of the metric, and whether a limit of parity was asked for beside it.
pub(super) fn apply_metric(config: &mut Config, args: &Measuring, gate: &Gate) -> Result<()> {
    config.sqnr_limit_given |= gate.min_sqnr.is_some();
    let metric = &mut config.metric;
    if let Some(command) = &args.metric {
        (metric.command, metric.labels) = (Some(command.clone()), None);
    }
    if let Some(labels) = &args.labels {
        (metric.command, metric.labels) = (None, Some(labels.clone()));
    }
    if args.metric_name.is_some() {
        metric.name.clone_from(&args.metric_name);
    }
    metric.direction = args.metric_direction.map_or(metric.direction, Into::into);
    metric.max_drop = args.max_metric_drop.unwrap_or(metric.max_drop);
    metric.timeout = args.metric_timeout.unwrap_or(metric.timeout);
    let wrong = |message: &str| Err(Usage(message.to_owned()).into());
    if args.is_given() && !config.metric.is_given() {
        return wrong("there is no metric: give one with --metric or --labels");
    }
    if args.is_given() && config.enforcement == Enforcement::None {
        return wrong("--no-validate runs nothing: it has no use for a metric");
    }
    if config.metric.command.as_ref().is_some_and(|command| !command.contains("{model}")) {
        return wrong("--metric needs {model}, where the path of the model goes");
    }
    if config.metric.labels.is_some() && config.samples.is_none() {
        return wrong("--labels needs --samples: labels stand beside the inputs");
    }
    Ok(())
}
