//! What errors are, and what they advise.

use std::path::PathBuf;

use modelopt_runtime::{ProviderProblem, Stage};
use modelopt_validate::Side;

use super::*;
use crate::target::planted::{self, NAME};

fn load() -> RuntimeError {
    let (path, message) = (PathBuf::from("/somewhere/m.onnx"), "no kernel".to_owned());
    RuntimeError::Load { runtime: "other", path, message }
}

fn missing() -> RuntimeError {
    RuntimeError::MissingInput { input: "x".to_owned(), given: vec!["y".to_owned()] }
}

fn unwritten() -> Unwritten {
    let cause = std::io::ErrorKind::StorageFull.into();
    Unwritten::Folder { folder: PathBuf::from("/somewhere"), cause }
}

fn of_run(source: RuntimeError) -> Error {
    CompareError::Run { side: Side::Original, sample: "s0".to_owned(), source }.into()
}

#[test]
fn what_is_wrong_here_is_told_from_everything_else() {
    let machine: [Error; 5] = [
        unwritten().into(),
        planted::no_memory().into(),
        RuntimeError::Unwritten("no room".into()).into(),
        of_run(planted::no_memory()),
        RuntimeError::NoWorker {
            program: PathBuf::from("/somewhere/modelopt"),
            cause: std::io::ErrorKind::NotFound.into(),
        }
        .into(),
    ];
    for error in machine {
        assert!(error.is_of_machine(), "{error}");
        assert!(!error.is_mistake());
    }
    let others: [Error; 6] = [
        load().into(),
        planted::crash().into(),
        RuntimeError::NoLibrary.into(),
        of_run(planted::refusal()),
        Unwritten::Model("it has no form".to_owned()).into(),
        ErrorKind::Candidate("it was killed".to_owned()).into(),
    ];
    for error in others {
        assert!(!error.is_of_machine(), "{error}");
    }
}

#[test]
fn reports_do_not_say_where_models_lie() {
    let errors: [Error; 3] = [
        load().into(),
        planted::crash().into(),
        ErrorKind::NoRuntime(vec![load(), planted::refusal()]).into(),
    ];
    for error in errors {
        let said = error.without_path();
        assert!(!said.contains("/somewhere") && said.contains(':'), "{said}");
        let kind = Error::from(ErrorKind::Candidate(said.clone()));
        assert_eq!(kind.without_path(), said);
    }
    // Each of several says what it did, on a line of its own.
    let all = Error::from(ErrorKind::NoRuntime(vec![load(), planted::refusal()])).to_string();
    assert_eq!(all.lines().count(), 3, "{all}");
    assert!(!all.contains("/somewhere"), "{all}");
}

#[test]
fn another_runtime_is_advised_where_those_that_were_tried_do_not_do() {
    let hint = Error::from(ErrorKind::NoRuntime(vec![load(), planted::refusal()])).hint().unwrap();
    let tried = vec!["other".to_owned(), NAME.to_owned()];
    assert_eq!(hint, Hint::AnotherRuntime { tried, inputs: false });
    let hint = Error::from(planted::refusal()).hint().unwrap();
    assert_eq!(hint, Hint::AnotherRuntime { tried: vec![NAME.to_owned()], inputs: true });
    let hint = Error::from(planted::crash()).hint().unwrap();
    assert!(matches!(hint, Hint::AnotherRuntime { inputs: false, .. }), "{hint:?}");
}

#[test]
fn nothing_is_advised_where_it_would_not_help() {
    let helpless: [Error; 6] = [
        ErrorKind::NoRuntime(vec![load(), missing()]).into(),
        missing().into(),
        planted::no_memory().into(),
        RuntimeError::Provider {
            runtime: "other",
            provider: "cuda".to_owned(),
            problem: ProviderProblem::OnlyCpu,
        }
        .into(),
        ErrorKind::Config("nonsense".to_owned()).into(),
        ErrorKind::Refused { failed: Vec::new() }.into(),
    ];
    for error in helpless {
        assert_eq!(error.hint(), None, "{error}");
    }
}

#[test]
fn what_is_advised_fits_what_failed() {
    let library = RuntimeError::Library {
        path: PathBuf::from("/somewhere/lib.so"),
        message: "it is for another machine".to_owned(),
    };
    let advised: [(Error, Hint); 7] = [
        (RuntimeError::NoLibrary.into(), Hint::Library { given: false }),
        (library.into(), Hint::Library { given: true }),
        (unwritten().into(), Hint::TemporaryFolder),
        (RuntimeError::Unwritten("no room".into()).into(), Hint::TemporaryFolder),
        (of_run(planted::refusal()), Hint::RealInputs),
        (ErrorKind::Candidate("it fails".to_owned()).into(), Hint::RealInputs),
        (ErrorKind::Unreasonable("it is huge".to_owned()).into(), Hint::WithoutProof),
    ];
    for (error, hint) in advised {
        assert_eq!(error.hint(), Some(hint), "{error}");
    }
    let unwritable = Unwritten::Model("it has no form".to_owned());
    assert_eq!(Error::from(unwritable).hint(), None, "no other folder would help");
}

#[test]
fn a_refusal_names_the_checks_that_failed() {
    let said = |failed: &[&str]| {
        let failed = failed.iter().map(|&name| name.to_owned()).collect();
        Error::from(ErrorKind::Refused { failed }).to_string()
    };
    assert!(said(&["sqnr", "shrink"]).contains("sqnr, shrink"));
    assert!(!said(&[]).contains(':'), "there is nothing to name");
}

#[test]
fn samples_that_do_not_fit_are_a_mistake_and_missing_ones_are_none() {
    let path = || PathBuf::from("/somewhere");
    assert!(Error::from(SampleError::NoSamples { path: path() }).is_mistake());
    let no_tensor = SampleError::NoTensor { input: "x".to_owned(), ty: "seq".to_owned() };
    assert!(!Error::from(no_tensor).is_mistake(), "nobody could give any");
    assert!(!Error::from(ErrorKind::Config(String::new())).is_mistake());
}

#[test]
fn a_panic_is_told_with_what_it_happened_in() {
    let RuntimeError::Panicked { stage, .. } = planted::panicked() else { unreachable!() };
    assert_eq!(stage, Stage::Running);
    let said = Error::from(planted::panicked()).without_path();
    assert!(said.contains("running") && said.contains("out of bounds"), "{said}");
}
