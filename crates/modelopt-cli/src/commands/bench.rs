//! `modelopt bench`.

use anyhow::Result;
use modelopt::runtime::parse_dim;
use modelopt::{BenchOptions, BenchRow};

use crate::args::{self, Common};
use crate::ending::{Done, Usage};
use crate::progress::Bar;
use crate::saying::print;
use crate::settings::{apply_inputs, apply_target, settings};
use crate::{show, sniff};

pub(super) fn run(args: &args::Bench, common: &Common) -> Result<Done> {
    let mut config = settings(common)?;
    apply_target(&mut config, &args.target);
    apply_inputs(&mut config, &args.fixed)?;
    if args.samples.is_some() {
        config.samples.clone_from(&args.samples);
    }
    let mut options = BenchOptions { threads: args.threads.clone(), ..BenchOptions::default() };
    for dim in &args.dim {
        let (name, sizes) = sizes(dim).map_err(Usage)?;
        options.dims.insert(name, sizes);
    }
    for model in &args.models {
        sniff::check_model(model)?;
    }
    let mut rows: Vec<BenchRow> = Vec::new();
    let mut bar = Bar::new(common.quiet);
    for model in &args.models {
        rows.extend(modelopt::bench(model, &config, &options, &mut |event| bar.show(&event))?);
    }
    bar.finish();
    if common.json {
        let document = serde_json::json!({ "schema": "modelopt.bench/1", "rows": rows });
        print(&format!("{document:#}\n"))?;
    } else if !common.quiet {
        print(&show::plain(&show::bench(&rows)))?;
    }
    Ok(Done::Ok)
}

/// `batch=1,8` as a name and sizes.
fn sizes(text: &str) -> Result<(String, Vec<usize>), String> {
    let wrong = || format!("'{text}': give it as NAME=SIZE,SIZE,…");
    let (name, list) = text.rsplit_once('=').ok_or_else(wrong)?;
    let mut sizes = Vec::new();
    let mut key = String::new();
    for size in list.split(',') {
        let (name, size) =
            parse_dim(&format!("{name}={size}")).map_err(|error| error.to_string())?;
        key = name;
        sizes.push(size);
    }
    Ok((key, sizes))
}
