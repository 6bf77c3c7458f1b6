//! The page of the server in a real browser: Chromium shows what the server says about its models, follows
//! it, sends the example that the page wrote, and has nothing to complain about.
//!
//! Screenshots stay in `target/tmp/serve-browser`.

mod checks;
mod page;
mod server;

use std::path::Path;
use std::process::ExitCode;

use xtask::devtools::{self, DevTools};

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serve-browser");
    let start =
        |program: &Path, folder: &Path| (DevTools::start(program, folder), server::Server::start());
    devtools::run(&folder, checks::ALL, start, |check, (tools, server)| {
        check(tools, server, &folder);
    })
}
