//! Servers are asked by clients that others wrote: Triton's, KServe's, and schemathesis, which makes
//! requests from the description of all routes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use serde::Deserialize;

use crate::{oracle, program, setup, testdata};

/// Clients that hold answers against onnxruntime's own, each with a server that lets them load models.
const CHECKS: [&str; 2] = ["check_triton_http.py", "check_kserve.py"];

/// Requests that are made for each route, and what they are made from.
const EXAMPLES: &str = "40";
const SEED: &str = "1";

/// What is served: where it lies below the folder of models, and what it is copied from.
fn models() -> [(&'static str, PathBuf); 3] {
    [
        ("digits/1", testdata::fixture("digits/mlp.onnx")),
        ("digits/2", testdata::fixture("digits/cnn.onnx")),
        ("magika/1", testdata::model("magika")),
    ]
}

/// Starts servers and asks them by all clients, the rest too where one fails.
///
/// # Errors
/// If a client has something to complain about.
pub fn run() -> Result<()> {
    let python = setup::clients()?;
    let folder = testdata::target_dir().join("served-models");
    for (place, from) in models() {
        fs::create_dir_all(folder.join(place))?;
        fs::copy(from, folder.join(place).join("model.onnx"))?;
    }
    let mut failed = Vec::new();
    for check in CHECKS {
        let server = Server::start(&folder, &["--model-control"])?;
        let mut command = Command::new(&python);
        command.arg(oracle::script(check)).arg(&server.address).arg(&folder);
        if !status(&mut command)?.success() {
            failed.push(check);
        }
    }
    // What is unloaded on the way would be missed by the requests after it.
    let server = Server::start(&folder, &[])?;
    if !status(&mut schemathesis(&python, &server.address))?.success() {
        failed.push("schemathesis");
    }
    ensure!(failed.is_empty(), "not served well: {}", failed.join(", "));
    Ok(())
}

/// Requests that fit the description of all routes and such that do not.
fn schemathesis(python: &Path, address: &str) -> Command {
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command
        .arg("run")
        .arg(testdata::workspace_root().join("docs/openapi.json"))
        .args(["--url", &format!("http://{address}"), "--no-color"])
        .args(["--seed", SEED, "--max-examples", EXAMPLES, "--generation-database", "none"])
        .args(["--request-timeout", "20", "--continue-on-failure", "--no-shrink"])
        .args(["--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all"])
        // Whether a tensor fits is for the model to say and not for a description of all models.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .current_dir(testdata::target_dir());
    command
}

fn status(command: &mut Command) -> Result<ExitStatus> {
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    command.status().with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// A server of its own process; it ends with this value.
struct Server {
    process: Child,
    address: String,
}

/// What a server says when it is ready.
#[derive(Deserialize)]
struct Started {
    url: String,
}

impl Server {
    fn start(models: &Path, more: &[&str]) -> Result<Self> {
        let program = program::program()?;
        let mut process = Command::new(&program)
            .arg("serve")
            .arg(models)
            .args(["--runtime", "onnxruntime", "--port", "0", "--json"])
            .args(more)
            .env("PATH", program::path_with_python()?)
            .env_remove("ORT_DYLIB_PATH")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut line = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        match serde_json::from_str(&line) {
            Ok(Started { url }) => {
                let address = url.trim_start_matches("http://").to_owned();
                Ok(Server { process, address })
            }
            Err(error) => {
                let _ = process.kill();
                let _ = process.wait();
                bail!("the server did not say where it is heard: {error}: {line:?}");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
