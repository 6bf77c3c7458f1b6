//! What commands do at their ends: print, write beside the result, warn, and stop.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use modelopt::Warning;
use modelopt::report::Document;

use crate::ending::STOPPED;
use crate::show;

/// Tells what to know of a run.
pub(super) fn warn(warnings: &[Warning]) {
    for warning in warnings {
        eprintln!("warning: {}", show::plain(&show::warning(warning)));
    }
}

/// Ends a search at the first Ctrl-C, and the program at the second.
pub(super) fn stop_on_interrupt(stop: modelopt::Stop) -> Result<()> {
    let handler = move || {
        if stop.is_stopped() {
            std::process::exit(i32::from(STOPPED));
        }
        stop.stop();
    };
    ctrlc::set_handler(handler).context("cannot listen for Ctrl-C")
}

/// All forms of a report, in a folder.
pub(super) fn write_report(folder: Option<&Path>, document: &Document) -> Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    write(&folder.join("report.json"), &document.to_json())?;
    write(&folder.join("report.md"), &document.to_markdown())?;
    write(&folder.join("report.html"), &document.to_html())?;
    write(&folder.join("junit.xml"), &document.to_junit())
}

pub(super) fn print(text: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

pub(super) fn write(path: &PathBuf, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
