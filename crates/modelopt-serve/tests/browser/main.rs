//! The page of the server in a real browser: Chromium shows what the server says about its models, follows
//! it, sends the example that the page wrote, and has nothing to complain about.
//!
//! Like other tests that need more than a compiler, these are ignored unless `--include-ignored` is
//! given. They say so where there is no Chromium on PATH, or fail if `MODELOPT_REQUIRE_BROWSER` is 1; the
//! usual test harness would keep that to itself. Screenshots stay in `target/tmp/serve-browser`.

mod checks;
mod page;
mod server;

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use xtask::devtools::{self, DevTools};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    if has("--list") {
        for (name, _) in checks::ALL {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !has("--include-ignored") && !has("--ignored") {
        for (name, _) in checks::ALL {
            eprintln!("browser check {name} ... ignored, needs a browser: cargo xtask test");
        }
        return ExitCode::SUCCESS;
    }
    let Some(program) = devtools::find() else {
        eprintln!("\nBROWSER CHECK NOT RUN: neither chromium nor google-chrome is on PATH\n");
        if env::var("MODELOPT_REQUIRE_BROWSER").is_ok_and(|value| value == "1") {
            eprintln!("that is a failure, because MODELOPT_REQUIRE_BROWSER is 1");
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serve-browser");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let server = server::Server::start();
    let mut tools = DevTools::start(&program, &folder);
    for (name, check) in checks::ALL {
        eprint!("browser check {name} ... ");
        check(&mut tools, &server, &folder);
        eprintln!("ok");
    }
    drop(tools);
    let _ = fs::remove_dir_all(folder.join("profile"));
    eprintln!("screenshots are in {}", folder.display());
    ExitCode::SUCCESS
}
