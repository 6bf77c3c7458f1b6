//! What is learnt from tries that fail, and what is given instead of being invented.

use std::path::PathBuf;

use modelopt_graph::Tensor;
use modelopt_runtime::{FailureKind, InputValue, Proposal, Sample, SampleKind};

use super::*;
use crate::runtime_choice::RuntimeChoice;
use crate::target::planted;
use crate::testing::{Bed, Layer, WIDTH};

fn refusing(runtime: &'static str, message: &str) -> RuntimeError {
    RuntimeError::Run { runtime, path: PathBuf::from("/somewhere/m.onnx"), message: message.into() }
}

fn loading(runtime: &'static str) -> RuntimeError {
    let message = "no kernel".to_owned();
    RuntimeError::Load { runtime, path: PathBuf::from("/somewhere/m.onnx"), message }
}

fn none(failures: Vec<RuntimeError>) -> Error {
    ErrorKind::NoRuntime(failures).into()
}

#[test]
fn a_runtime_that_loads_the_model_is_asked_again_and_one_that_does_not_is_left_out() {
    let mut trying = Trying::default();
    trying.learn(none(vec![loading("a"), refusing("b", "sizes differ")]));
    assert_eq!(trying.left_out, ["a"]);
    assert!(!trying.is_over());
    assert!(trying.said.iter().all(|said| !said.contains("/somewhere")), "{:?}", trying.said);
    trying.learn(none(vec![loading("b")]));
    assert!(trying.is_over(), "nobody is left to ask");
}

#[test]
fn the_first_refusal_is_the_one_that_is_told() {
    let mut trying = Trying::default();
    trying.learn(refusing("a", "first").into());
    trying.learn(refusing("a", "second").into());
    assert!(trying.first.unwrap().to_string().contains("first"));
    assert_eq!(trying.tries, 2);
}

#[test]
fn who_says_the_same_again_and_again_is_not_asked_for_ever() {
    let mut trying = Trying::default();
    for _ in 1..SAME_ANSWERS {
        trying.learn(refusing("a", "never").into());
        assert!(!trying.is_over());
    }
    trying.learn(refusing("a", "never").into());
    assert!(trying.is_over() && trying.left_out == ["a"]);
    // Another answer begins another count.
    let mut trying = Trying::default();
    for _ in 1..SAME_ANSWERS {
        trying.learn(refusing("a", "never").into());
    }
    trying.learn(refusing("a", "sizes differ").into());
    trying.learn(refusing("a", "never").into());
    assert!(!trying.is_over());
}

#[test]
fn tries_are_counted() {
    let mut trying = Trying::default();
    for turn in 0..MOST_TRIES {
        assert!(!trying.is_over());
        trying.learn(refusing("a", &format!("answer {turn}")).into());
    }
    assert!(trying.is_over());
}

#[test]
fn what_is_no_answer_of_a_runtime_leaves_no_hope() {
    let mut trying = Trying::default();
    trying.learn(ErrorKind::Config("nonsense".to_owned()).into());
    assert!(trying.is_over() && trying.said.is_empty());
    let mut trying = Trying::default();
    trying.learn(planted::no_memory().into());
    assert!(trying.is_over());
}

#[test]
fn a_crash_or_a_panic_in_a_run_may_be_due_to_the_inputs() {
    for error in [planted::crash(), planted::panicked(), planted::refusal()] {
        assert_eq!(refusal(&error).map(|(runtime, _)| runtime), Some(planted::NAME), "{error}");
    }
    let unsupported = RuntimeError::Unsupported { runtime: "a", what: "maps".to_owned() };
    assert_eq!((refusal(&unsupported), name(&unsupported)), (None, Some("a")));
    assert_eq!(name(&RuntimeError::NoMemory), None);
}

#[test]
fn what_was_found_is_added_to_the_settings() {
    let proposal = |dims: &[(&str, usize)], values: &[(&str, InputValue)]| Proposal {
        dims: dims.iter().map(|&(name, size)| (name.to_owned(), size)).collect(),
        values: values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    };
    assert_eq!(FoundInputs::of(proposal(&[], &[]), 3), None, "the first guess is nothing found");
    let values =
        [("take", InputValue::Integers(vec![2, -1])), ("scale", InputValue::Floats(vec![0.5]))];
    let found = FoundInputs::of(proposal(&[("n", 7)], &values), 3).unwrap();
    assert_eq!((found.tries, found.dims["n"]), (3, 7));
    let mut before = Config::default();
    before.dims.insert("m".to_owned(), 4);
    let after = found.settings(&before);
    assert_eq!((after.dims["m"], after.dims["n"]), (4, 7));
    // They are written as settings read them.
    assert_eq!((after.inputs["take"].as_str(), after.inputs["scale"].as_str()), ("2,-1", "0.5"));
    assert_eq!(after.synthesis().unwrap().values["take"], InputValue::Integers(vec![2, -1]));
    let told = Told::from(Some(found));
    assert_eq!((told.warnings.len(), told.found.is_some()), (1, true));
    assert!(Told::from(None).warnings.is_empty());
}

fn grounded<'a>(bed: &Bed, config: &'a Config) -> Result<(Ground<'a>, Told), Error> {
    ground(&Arc::new(Subject::as_it_is(&bed.path())), &bed.original, config)
}

fn given(rows: usize, columns: usize) -> Sample {
    let x = Tensor::of(vec![rows, columns], &vec![0.5f32; rows * columns]).unwrap();
    let inputs = [("x".to_owned(), x)].into();
    Sample { name: "mine".to_owned(), inputs, kind: SampleKind::Real }
}

#[test]
fn samples_that_are_given_are_what_is_run() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let given_samples = Some(vec![given(4, WIDTH)].into());
    let config = Config { given_samples, ..bed.config.clone() };
    let (ground, told) = grounded(&bed, &config).unwrap();
    assert_eq!((ground.samples.len(), ground.samples[0].name.as_str()), (1, "mine"));
    assert!(told.found.is_none() && told.warnings.is_empty());
}

#[test]
fn samples_that_do_not_fit_are_a_mistake_and_not_replaced() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    for samples in [vec![given(4, WIDTH + 1)], Vec::new()] {
        let config = Config { given_samples: Some(samples.into()), ..bed.config.clone() };
        assert!(grounded(&bed, &config).err().unwrap().is_mistake());
    }
}

#[test]
fn inputs_are_invented_once_where_the_first_guess_runs() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let config = Config { sample_count: 3, ..bed.config.clone() };
    let (ground, told) = grounded(&bed, &config).unwrap();
    assert_eq!(ground.samples.len(), 3);
    assert!(ground.samples.iter().all(|sample| sample.kind == SampleKind::Synthetic));
    assert!(told.found.is_none());
}

#[test]
fn a_target_that_cannot_be_used_is_told_at_once() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let config = Config { provider: "no such one".to_owned(), ..planted::named(&bed) };
    let error = grounded(&bed, &config).err().unwrap();
    let ErrorKind::Runtime(error) = error.kind() else { panic!("{error}") };
    assert_eq!(error.kind(), FailureKind::Environment);
    let config = Config { runtime: RuntimeChoice::Named(Vec::new()), ..bed.config.clone() };
    let error = grounded(&bed, &config).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::NoRuntime(tried) if tried.is_empty()), "{error}");
}
