//! Hostile files: whatever a runtime does with them comes back as an error.

use crate::common::{run, runtimes, testdata};
use modelopt_runtime::{SessionOptions, SynthesisOptions, synthesize};

/// Files that ask for terabytes or years when run; no runtime can be stopped in that.
fn is_bomb(name: &str) -> bool {
    name.starts_with("fold_") || name.starts_with("function_bomb")
}

#[test]
fn no_file_brings_the_process_down() {
    modelopt_runtime::silence_runtime_panics();
    let mut tried = 0;
    for entry in std::fs::read_dir(testdata("attacks")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "onnx") || is_bomb(&name) {
            continue;
        }
        tried += 1;
        let Ok(model) = modelopt_onnx::load(&path) else {
            for runtime in runtimes() {
                assert!(runtime.prepare(&path, &SessionOptions::default()).is_err(), "{name}");
            }
            continue;
        };
        let Ok(samples) = synthesize(&model, &SynthesisOptions::default()) else { continue };
        for runtime in runtimes() {
            if let Err(error) = run(runtime.as_ref(), &path, &samples[0]) {
                assert_eq!(error.to_string().lines().count(), 1, "{name}");
            }
        }
    }
    assert!(tried > 80);
}

#[test]
fn what_is_no_file_is_said_so() {
    for runtime in runtimes() {
        let Err(error) = runtime.prepare(&testdata("none.onnx"), &SessionOptions::default()) else {
            panic!("{} loaded a file that is not there", runtime.name());
        };
        assert!(error.to_string().contains("none.onnx"), "{error}");
    }
}
