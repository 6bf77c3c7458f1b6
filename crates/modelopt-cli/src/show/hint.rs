//! What is wrong and what to try after an error, in flags.

use modelopt::runtime::{LibrarySearch, RuntimeKind};
use modelopt::{Error, ErrorKind, Hint, MetricMistake};

/// The flag that takes any model, for the end of a sentence.
const WITHOUT_PROOF: &str = "--no-validate emits without proof";

/// A hint in words. The way that works comes first.
pub(crate) fn hint(hint: &Hint, search: &LibrarySearch) -> String {
    match hint {
        Hint::AnotherRuntime { tried, inputs } => {
            let mut ways = Vec::new();
            ways.extend(broadest(tried, search));
            if *inputs {
                ways.push("real inputs with --samples, or sizes with --dim and --input".to_owned());
            }
            ways.push(WITHOUT_PROOF.to_owned());
            ways.join("; ")
        }
        Hint::Library { given } => library(*given),
        Hint::TemporaryFolder => {
            "set TMPDIR to a folder with more room, on a disk that can be written".to_owned()
        }
        Hint::RealInputs => "give real inputs with --samples".to_owned(),
        Hint::OpenSizes => "open sizes can be fixed with --dim".to_owned(),
        Hint::WithoutProof => "--no-validate emits without running it".to_owned(),
        Hint::Defect => "this is a defect of modelopt; --skip-rewrite NAME leaves the step out, \
                         --exclude a layer"
            .to_owned(),
        Hint::File(what) => (*what).to_owned(),
        _ => WITHOUT_PROOF.to_owned(),
    }
}

/// What is wrong with settings, where that is better said in flags.
pub(crate) fn mistake(error: &Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::MetricSettings(MetricMistake::LabelsWithoutSamples) => {
            Some("labels stand in samples: give some with --samples")
        }
        _ => None,
    }
}

/// How to give the library of a runtime.
fn library(given: bool) -> String {
    let install = RuntimeKind::by_library().find_map(RuntimeKind::install).unwrap_or_default();
    if given {
        return format!(
            "give another one with --onnxruntime PATH or the variable ORT_DYLIB_PATH, or install it \
             with `{install}`"
        );
    }
    format!(
        "give one with --onnxruntime PATH, or with the variable ORT_DYLIB_PATH, or have it on the \
         system's library path, or install it for the Python on PATH with `{install}`"
    )
}

/// The runtime that runs most, where it was not tried yet.
fn broadest(tried: &[String], search: &LibrarySearch) -> Option<String> {
    let kind =
        RuntimeKind::broadest().filter(|kind| tried.iter().all(|name| name != kind.name()))?;
    Some(match (kind.find_library(search), kind.install()) {
        (Err(_), Some(install)) => format!("--runtime {kind} runs more models: `{install}` first"),
        _ => format!("--runtime {kind} runs more models, and is installed here"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_that_works_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let name = if cfg!(windows) {
            "onnxruntime.dll"
        } else if cfg!(target_os = "macos") {
            "libonnxruntime.1.dylib"
        } else {
            "libonnxruntime.so.1"
        };
        let library = folder.path().join(name);
        std::fs::write(&library, "").unwrap();
        let search = LibrarySearch { explicit: Some(library), ..LibrarySearch::default() };
        let after = |tried: &[&str], inputs| Hint::AnotherRuntime {
            tried: tried.iter().map(|&name| name.to_owned()).collect(),
            inputs,
        };
        let text = hint(&after(&["tract", "rten"], false), &search);
        assert!(text.starts_with("--runtime onnxruntime") && text.contains("installed"), "{text}");
        assert!(text.ends_with(WITHOUT_PROOF) && !text.contains("--samples"), "{text}");
        let nowhere = LibrarySearch { explicit: Some("nowhere".into()), ..search.clone() };
        let text = hint(&after(&["tract"], true), &nowhere);
        assert!(text.contains("`pip install onnxruntime`") && text.contains("--samples"), "{text}");
        let text = hint(&after(&["onnxruntime"], false), &search);
        assert_eq!(text, WITHOUT_PROOF);
    }
}
