//! The `modelopt` program: arguments to settings, one library call, printing and exit code.

mod args;
mod calibration_document;
mod commands;
mod ending;
mod files;
mod places;
mod plan_document;
mod progress;
mod saying;
mod settings;
mod show;
mod sniff;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Arguments;
use crate::ending::{Done, STOPPED, Usage};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    modelopt::runtime::silence_runtime_panics();
    let json = arguments.common.json;
    match commands::run(arguments) {
        Ok(Done::Ok) => ExitCode::SUCCESS,
        Ok(Done::Refused) => ExitCode::from(3),
        Ok(Done::Stopped) => ExitCode::from(STOPPED),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, json);
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn report(error: &anyhow::Error, json: bool) {
    let message = show::plain(&message(error));
    let hint = error.downcast_ref::<modelopt::Error>().and_then(modelopt::Error::hint);
    let hint = hint.map(|hint| show::hint(&hint, &settings::environment()));
    if json {
        let document = serde_json::json!({
            "schema": "modelopt.error/1",
            "error": message,
            "hint": hint,
        });
        // Nothing is left to do if stdout is gone.
        let _ = writeln!(std::io::stdout(), "{document:#}");
    }
    eprintln!("error: {message}");
    if let Some(hint) = hint {
        eprintln!("hint: {}", show::plain(&hint));
    }
}

/// What failed and why, from the outside in. Some errors tell their cause themselves.
fn message(error: &anyhow::Error) -> String {
    if let Some(said) = error.downcast_ref::<modelopt::Error>().and_then(show::mistake) {
        return said.to_owned();
    }
    let mut message = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

/// `modelopt inspect … | head` is not an error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
