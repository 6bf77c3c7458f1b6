//! `modelopt calibrate`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use modelopt::calibration::{Calibration, EIGHT_BITS};
use modelopt::{CalibrateOptions, Shard, Stop};

use crate::args::{self, Common};
use crate::calibration_document::CalibrationDocument;
use crate::ending::Done;
use crate::files::Input;
use crate::progress::Bar;
use crate::saying::{print, stop_on_interrupt, warn};
use crate::settings::{apply_target, settings};
use crate::show::Calibrated;
use crate::{places, show};

/// A file name that people know what it is by.
const EXAMPLE: &str = "model.calibration";

pub(super) fn run(args: &args::Calibrate, common: &Common) -> Result<Done> {
    match &args.input {
        Some(input) => calibrate(input, args, common),
        None => merge(args, common),
    }
}

fn calibrate(input: &Path, args: &args::Calibrate, common: &Common) -> Result<Done> {
    let started = Instant::now();
    let mut config = settings(common)?;
    apply_target(&mut config, &args.target);
    config.threads = args.threads.unwrap_or(config.threads);
    config.samples.clone_from(&args.samples);
    places::result(&args.output, &[input], EXAMPLE)?;
    let partial = partial(&args.output);
    let usual = CalibrateOptions::default();
    let options = CalibrateOptions {
        shard: args.shard.unwrap_or(Shard::ALL),
        progress_file: Some(partial.clone()),
        resume: args.resume,
        save_every: args.save_every.map_or(usual.save_every, Duration::from_secs_f64),
    };
    let input = Input::new(input)?;
    let mut bar = Bar::new(common.quiet);
    let stop = Stop::default();
    stop_on_interrupt(stop.clone())?;
    let calibrated =
        modelopt::calibrate(input.path(), &config, &options, &stop, &mut |event| bar.show(&event));
    bar.finish();
    if stop.is_stopped() && calibrated.is_err() {
        if partial.exists() && !common.quiet {
            let partial = partial.display();
            eprintln!("stopped; progress is kept in {partial}: --resume goes on from there");
        }
        return Ok(Done::Stopped);
    }
    let calibrated = calibrated?;
    warn(&calibrated.warnings);
    modelopt::write_calibration(&calibrated.calibration, &args.output)?;
    if partial.exists() {
        let cannot = || format!("cannot remove {}", partial.display());
        std::fs::remove_file(&partial).with_context(cannot)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let (runtime, resumed) = (Some(&calibrated.runtime), calibrated.resumed);
    let calibration = &calibrated.calibration;
    tell(&Calibrated { calibration, runtime, resumed, seconds, output: &args.output }, common)
}

fn merge(args: &args::Calibrate, common: &Common) -> Result<Done> {
    let started = Instant::now();
    places::result(&args.output, &[], EXAMPLE)?;
    let calibration: Calibration = modelopt::merge_calibrations(&args.merge)?;
    modelopt::write_calibration(&calibration, &args.output)?;
    let (calibration, seconds) = (&calibration, started.elapsed().as_secs_f64());
    let output = args.output.as_path();
    tell(&Calibrated { calibration, runtime: None, resumed: false, seconds, output }, common)
}

fn tell(calibrated: &Calibrated<'_>, common: &Common) -> Result<Done> {
    if common.json {
        let ranges = calibrated.calibration.ranges(EIGHT_BITS);
        let document = CalibrationDocument::of(calibrated, &ranges);
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else if !common.quiet {
        let ranges = calibrated.calibration.ranges(EIGHT_BITS);
        print(&show::plain(&show::calibrated(calibrated, &ranges)))?;
    }
    Ok(Done::Ok)
}

/// Where progress is kept.
fn partial(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    output.with_file_name(name)
}
