//! Reports in a real browser: Chromium opens them without an error in its console and without a
//! network request, the plan can be sorted and filtered, and no label of a plot is cut off.
//!
//! Pages and screenshots stay in `target/tmp/report-browser`.

mod browser;
mod checks;
#[path = "../common/mod.rs"]
mod common;

use std::path::Path;
use std::process::ExitCode;

use browser::Browser;
use xtask::devtools;

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-browser");
    devtools::run(&folder, checks::ALL, Browser::start, |check, browser| check(browser))
}
