//! What all commands say, and how they are stopped.

use std::io::Write;

use anyhow::{Context, Result};
use modelopt::{Stop, Warning};

use crate::ending::STOPPED;
use crate::show;

/// Tells what to know of a run.
pub(crate) fn warn(warnings: &[Warning]) {
    for warning in warnings {
        eprintln!("warning: {}", show::plain(&show::warning(warning)));
    }
}

/// Ends a run at the first Ctrl-C, and the program at the second.
pub(crate) fn stop_on_interrupt(stop: Stop) -> Result<()> {
    let handler = move || {
        if stop.is_stopped() {
            std::process::exit(i32::from(STOPPED));
        }
        stop.stop();
    };
    ctrlc::set_handler(handler).context("cannot listen for Ctrl-C")
}

/// Writes to stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
