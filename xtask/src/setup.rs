//! Set-up of the test material, in steps that run only when what they depend on changed.
//!
//! A step's stamp holds the inputs that its result was made from (scripts, pins); a step
//! runs again when they differ or its result is gone. It writes to a scratch folder that
//! takes the result's place at the end, so an interrupted step leaves no half result.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;

use crate::{oracle, testdata};

/// Makes what is missing or out of date; says on standard error what it does. Several
/// processes may call it at once: one works, the others wait.
pub fn run() -> Result<()> {
    let folder = testdata::generated();
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join(".lock"))?;
    lock.lock().context("cannot lock the test data")?;

    let python = python_step()?;
    let models = Step {
        name: "models",
        what: "downloading the test models",
        script: oracle::script("fetch_models.py"),
        inputs: inputs("", &["fetch_models.py", "models.txt", "model_files.txt"])?,
        arguments: Vec::new(),
    };
    models.run(&folder)?;
    let nodes = Step {
        name: "nodes",
        what: "writing the ONNX node tests",
        script: oracle::script("make_nodes.py"),
        inputs: inputs(&python, &["make_nodes.py"])?,
        arguments: Vec::new(),
    };
    nodes.run(&folder)?;
    let samples = Step {
        name: "samples",
        what: "making samples",
        script: oracle::script("make_samples.py"),
        inputs: inputs(&python, &["make_samples.py", "models.txt", "model_files.txt"])?,
        arguments: vec![folder.join("models")],
    };
    samples.run(&folder)?;
    let cases = Step {
        name: "cases",
        what: "making the models that went wrong",
        script: testdata::fixture("cases/make.py"),
        inputs: case_inputs(&python)?,
        arguments: Vec::new(),
    };
    cases.run(&folder)
}

/// All that makes the cases: their scripts, and the builder that they share with other fixtures.
fn case_inputs(python: &str) -> Result<String> {
    let mut scripts = vec![testdata::fixture("graphs/builder.py")];
    for entry in fs::read_dir(testdata::fixture("cases"))? {
        scripts.push(entry?.path());
    }
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "py"));
    scripts.sort();
    inputs_of(python, &scripts)
}

/// One script that makes one folder; the folder is its last argument.
struct Step {
    name: &'static str,
    what: &'static str,
    script: PathBuf,
    inputs: String,
    arguments: Vec<PathBuf>,
}

impl Step {
    fn run(&self, folder: &Path) -> Result<()> {
        let result = folder.join(self.name);
        let stamp = folder.join(format!(".{}.stamp", self.name));
        if result.exists() && is_current(&stamp, &self.inputs) {
            return Ok(());
        }
        announce(self.what, || {
            remove(&stamp)?;
            let scratch = folder.join(format!(".{}.partial", self.name));
            remove(&scratch)?;
            fs::create_dir_all(&scratch)?;
            let mut command = Command::new(testdata::python_unchecked());
            command.arg(&self.script).args(&self.arguments).arg(&scratch);
            execute(command.env("PYTHONDONTWRITEBYTECODE", "1"))?;
            remove(&result)?;
            fs::rename(&scratch, &result)?;
            Ok(fs::write(&stamp, &self.inputs)?)
        })
    }
}

/// Makes what other quantizers need, where it is missing or out of date: their Python environment,
/// and the samples that they are compared on.
///
/// # Errors
/// If an environment cannot be made, or there are no samples of the test models.
pub(crate) fn peers() -> Result<()> {
    let folder = testdata::peers();
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join(".lock"))?;
    lock.lock().context("cannot lock the test data")?;
    environment(&folder.join("python"), "requirements-peers.txt")?;
    let samples = Step {
        name: "samples",
        what: "splitting samples",
        script: oracle::script("peer_samples.py"),
        inputs: inputs("", &["peer_samples.py", "make_samples.py", "requirements.txt"])?,
        arguments: vec![testdata::generated().join("samples"), testdata::fixture("digits")],
    };
    samples.run(&folder)
}

/// Makes the Python environment of the clients that servers are asked by, where it is missing or out of
/// date; gives its interpreter.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn clients() -> Result<PathBuf> {
    let home = testdata::target_dir().join("clients");
    fs::create_dir_all(testdata::target_dir())?;
    let lock = File::create(testdata::target_dir().join(".clients.lock"))?;
    lock.lock().context("cannot lock the clients")?;
    environment(&home, "requirements-clients.txt")?;
    Ok(testdata::interpreter(&home))
}

/// Makes the Python environment of the oracles; gives the inputs it was made from.
fn python_step() -> Result<String> {
    environment(&testdata::target_dir().join("python"), "requirements.txt")
}

/// Makes a Python environment; gives the inputs it was made from.
fn environment(home: &Path, requirements: &str) -> Result<String> {
    let python = testdata::interpreter(home);
    let stamp = home.join(".stamp");
    // A link to an interpreter that is gone does not exist for `canonicalize`.
    let interpreter = || python.canonicalize().map(|path| path.display().to_string());
    if let Ok(interpreter) = interpreter() {
        let inputs = inputs(&interpreter, &[requirements])?;
        if is_current(&stamp, &inputs) {
            return Ok(inputs);
        }
    }
    announce("installing Python packages", || {
        let mut venv = Command::new("python3");
        execute(venv.args(["-m", "venv", "--clear"]).arg(home))
            .context("cannot make a Python environment; it needs python3 with venv on PATH")?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        execute(pip.arg("--requirement").arg(oracle::script(requirements)))?;
        let inputs = inputs(&interpreter()?, &[requirements])?;
        fs::write(&stamp, &inputs)?;
        Ok(inputs)
    })
}

/// The text of the files in `xtask/python` that a step depends on, after that of an earlier step.
fn inputs(earlier: &str, files: &[&str]) -> Result<String> {
    let paths: Vec<PathBuf> = files.iter().map(|file| oracle::script(file)).collect();
    inputs_of(earlier, &paths)
}

/// The text of files, after that of an earlier step.
fn inputs_of(earlier: &str, files: &[PathBuf]) -> Result<String> {
    let mut all = vec![earlier.to_owned()];
    for file in files {
        all.push(format!("--- {}", file.file_name().unwrap_or_default().display()));
        all.push(fs::read_to_string(file)?);
    }
    Ok(all.join("\n"))
}

fn is_current(stamp: &Path, inputs: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|made_from| made_from == inputs)
}

fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path)?,
        Ok(_) => fs::remove_file(path)?,
        Err(_) => {}
    }
    Ok(())
}

fn execute(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => bail!("cannot start {}: {error}", program.display()),
    };
    ensure!(status.success(), "{command:?} failed, {status}");
    Ok(())
}

fn announce<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("setup: {what} ...");
    let start = Instant::now();
    let result = work().with_context(|| format!("failed: {what}"))?;
    eprintln!("setup: {what}: done in {:.1} s", start.elapsed().as_secs_f64());
    Ok(result)
}
