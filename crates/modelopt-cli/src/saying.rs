//! What all commands say, and how they are stopped.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use modelopt::report::Document;
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

/// All forms of a report, in a folder.
pub(crate) fn write_report(folder: Option<&Path>, document: &Document) -> Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    write(&folder.join("report.json"), &document.to_json())?;
    write(&folder.join("report.md"), &document.to_markdown())?;
    write(&folder.join("report.html"), &document.to_html())?;
    write(&folder.join("junit.xml"), &document.to_junit())
}

pub(crate) fn write(path: &PathBuf, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
