//! `modelopt report`.

use std::path::Path;

use anyhow::{Context, Result};
use modelopt::report::{Document, RegressionLimits, compare_with_baseline};

use crate::args::{self, Common, FormatArgument};
use crate::ending::Done;
use crate::files::read_text;
use crate::saying::print;

pub(super) fn run(args: &args::Report, common: &Common) -> Result<Done> {
    let document = read(&args.file)?;
    if let Some(baseline) = &args.baseline {
        let regression = compare_with_baseline(&document, &read(baseline)?, &limits(args));
        if common.json {
            print(&format!("{:#}\n", serde_json::to_value(&regression)?))?;
        } else if !common.quiet {
            print(&regression.to_markdown())?;
        }
        return Ok(if regression.pass { Done::Ok } else { Done::Refused });
    }
    let format = if common.json { Some(FormatArgument::Json) } else { args.format };
    print(&match format.unwrap_or(FormatArgument::Markdown) {
        FormatArgument::Json => document.to_json(),
        FormatArgument::Markdown => document.to_markdown(),
        FormatArgument::Html => document.to_html(),
        FormatArgument::Junit => document.to_junit(),
    })?;
    Ok(Done::Ok)
}

fn read(path: &Path) -> Result<Document> {
    let text = read_text(path)?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
}

fn limits(args: &args::Report) -> RegressionLimits {
    let default = RegressionLimits::default();
    let pick = |given: Option<f64>, otherwise: Option<f64>| {
        given.map_or(otherwise, |limit| Some(limit).filter(|limit| limit.is_finite()))
    };
    RegressionLimits {
        max_size_growth: pick(args.max_size_growth, default.max_size_growth),
        max_slowdown: pick(args.max_slowdown, default.max_slowdown),
        max_sqnr_loss_db: pick(args.max_sqnr_loss, default.max_sqnr_loss_db),
        max_load_growth: pick(args.max_load_growth, default.max_load_growth),
        max_memory_growth: pick(args.max_memory_growth, default.max_memory_growth),
        ..default
    }
}
