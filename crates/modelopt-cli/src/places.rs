//! Where results may go: looked at before any work begins.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::args::Files;
use crate::ending::Usage;

/// The file that a model is written to.
pub(crate) fn output(files: &Files) -> Result<PathBuf> {
    let Files { input, output, in_place, .. } = files;
    let (in_place, piped) = (*in_place, input == Path::new("-"));
    let Some(output) = output else {
        if piped {
            return Err(usage("--in-place needs a file as input, not stdin"));
        }
        return Ok(input.to_owned());
    };
    if output == Path::new("-") {
        return if in_place {
            Err(usage("--in-place and -o - contradict each other"))
        } else {
            Ok(output.to_owned())
        };
    }
    let same = !piped && is_same_file(input, output);
    if in_place && !same {
        let message = "--in-place replaces the input; leave -o out, or --in-place";
        return Err(usage(message));
    }
    check_folder(output)?;
    if same && !in_place {
        return Err(usage(&format!(
            "the output {} is the input; --in-place replaces it, if the result passes",
            output.display()
        )));
    }
    Ok(output.to_owned())
}

/// Whether what a command makes can go to stdout, if it is to.
pub(crate) fn check_pipe(target: &Path, external_data: bool, json: bool) -> Result<()> {
    if target != Path::new("-") {
        return Ok(());
    }
    if json {
        return Err(usage("--json and -o - both want stdout"));
    }
    if external_data {
        return Err(usage("external data cannot be written to stdout"));
    }
    if std::io::stdout().is_terminal() {
        return Err(usage("-o - would write the model to the terminal; redirect it"));
    }
    Ok(())
}

fn usage(message: &str) -> anyhow::Error {
    Usage(message.to_owned()).into()
}

/// A file that results are written to and that must not be one that is read, such as `example`.
pub(crate) fn result(output: &Path, read: &[&Path], example: &str) -> Result<()> {
    if output == Path::new("-") {
        return Err(usage("the output is a file, not stdout; name it with -o FILE"));
    }
    if let Some(same) = read.iter().find(|read| is_same_file(read, output)) {
        return Err(usage(&format!("the output {} would overwrite what is read", same.display())));
    }
    check_place(output, example)
}

/// Refuses a folder, and a file in a folder that does not exist.
fn check_folder(output: &Path) -> Result<()> {
    check_place(output, "model.onnx")
}

fn check_place(output: &Path, example: &str) -> Result<()> {
    let shown = output.display();
    if output.is_dir() {
        let example = output.join(example);
        return Err(anyhow!(
            "the output {shown} is a folder; name a file, such as {}",
            example.display()
        ));
    }
    let Some(folder) = output.parent().filter(|folder| *folder != Path::new("")) else {
        return Ok(());
    };
    if folder.is_dir() {
        return Ok(());
    }
    let why = if folder.exists() {
        "is no folder"
    } else {
        "does not exist; make the folder first, or name another one"
    };
    Err(anyhow!("cannot write {shown}: {} {why}", folder.display()))
}

/// Whether two paths lead to one file, also through links and other spellings.
fn is_same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::canonicalize(a), std::fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output<P: AsRef<Path>>(input: P, output: Option<&Path>, in_place: bool) -> Result<PathBuf> {
        let (input, output) = (input.as_ref().to_owned(), output.map(Path::to_owned));
        super::output(&Files { input, output, in_place, external_data: false })
    }

    #[test]
    fn the_input_is_replaced_on_demand_only() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("m.onnx");
        std::fs::write(&model, "").unwrap();
        let spelt = folder.path().join(".").join("m.onnx");
        for same in [&model, &spelt] {
            let error = output(&model, Some(same), false).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains("--in-place"), "{error}");
            assert_eq!(output(&model, Some(same), true).unwrap(), *same);
        }
        assert_eq!(output(&model, None, true).unwrap(), model);
        let other = folder.path().join("o.onnx");
        assert_eq!(output(&model, Some(&other), false).unwrap(), other);
        assert!(output(&model, Some(&other), true).is_err());
    }

    #[test]
    fn pipes_are_not_replaced() {
        let pipe = Path::new("-");
        assert!(output(pipe, None, true).is_err());
        assert_eq!(output(pipe, Some(pipe), false).unwrap(), pipe);
    }
}
