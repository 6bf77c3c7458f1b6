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

use crate::args::{Arguments, Command};
use crate::ending::{Done, STOPPED, Usage};

/// What libraries of ONNX Runtime go by when they are loaded.
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(code) = quietly(&arguments.command) {
        return code;
    }
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

/// Starts a server anew where the runtimes that it loads would tell others of it. Their libraries read the
/// environment of the process once, and a program cannot safely change its own.
fn quietly(command: &Command) -> Option<ExitCode> {
    let is_quiet = std::env::var_os(NO_TELEMETRY).is_some_and(|value| value == "1");
    if !matches!(command, Command::Serve(_)) || is_quiet {
        return None;
    }
    let program = std::env::current_exe().ok()?;
    let mut anew = std::process::Command::new(program);
    anew.args(std::env::args_os().skip(1)).env(NO_TELEMETRY, "1");
    let error = become_it(anew);
    eprintln!("error: cannot start without telemetry of runtimes: {error}");
    Some(ExitCode::FAILURE)
}

#[cfg(unix)]
fn become_it(mut program: std::process::Command) -> std::io::Error {
    std::os::unix::process::CommandExt::exec(&mut program)
}

#[cfg(not(unix))]
fn become_it(mut program: std::process::Command) -> std::io::Error {
    match program.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
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
