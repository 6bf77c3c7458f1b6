//! What is run for models that differ from themselves.

use modelopt_runtime::worker::Remote;
use xtask::testdata::fixture;

use super::*;
use crate::target::planted;
use crate::testing::{Bed, Layer};

/// A model that draws random numbers.
const RANDOM: &str = "random/normal_like.onnx";

fn subject(name: &str, same_noise: Option<bool>) -> Result<Subject, Error> {
    let path = fixture(name);
    let config = Config { same_noise, ..Config::default() };
    Subject::new(&path, &onnx::load(&path).unwrap(), &[], &config)
}

#[test]
fn a_model_that_is_not_random_is_run_as_it_is() {
    for same_noise in [None, Some(true), Some(false)] {
        let subject = subject("random/dropout_off.onnx", same_noise).unwrap();
        assert_eq!(subject.path(), subject.file());
        assert!(!subject.is_unsteady && subject.warnings.is_empty());
        let model = onnx::load(subject.file()).unwrap();
        assert!(matches!(subject.copies().of(&model), Cow::Borrowed(_)));
        assert!(subject.copies().of_file(subject.file()).unwrap().is_none());
        assert_eq!(subject.copies().size_without(7), 7);
    }
}

#[test]
fn a_random_model_is_run_as_a_copy_that_gives_the_same_each_time() {
    let subject = subject(RANDOM, None).unwrap();
    assert_ne!(subject.path(), subject.file());
    assert_eq!(subject.file(), fixture(RANDOM));
    assert!(!subject.is_unsteady && !subject.warnings.is_empty());
    let copy = onnx::load(subject.path()).unwrap();
    assert!(random_operators(&copy).is_empty());
    // Nothing of the copy counts as size of what is emitted.
    let [own, copied] =
        [subject.file(), subject.path()].map(|p| std::fs::metadata(p).unwrap().len());
    assert!(copied > own);
    assert_eq!((subject.copies().size_without(copied), subject.copies().size_without(0)), (own, 0));
}

#[test]
fn what_is_held_against_it_gets_the_same_noise() {
    let subject = subject(RANDOM, None).unwrap();
    let model = onnx::load(subject.file()).unwrap();
    let given = subject.copies().of(&model);
    assert!(random_operators(&given).is_empty());
    let file = subject.copies().of_file(subject.file()).unwrap().unwrap();
    let [a, b] = [file.path(), subject.path()].map(|path| std::fs::read(path).unwrap());
    assert!(a == b, "the same model is the same copy");
    // What is not random needs none.
    assert!(subject.copies().of_file(&fixture("random/dropout_off.onnx")).unwrap().is_none());
}

#[test]
fn who_wants_other_noise_each_time_is_told_what_that_means() {
    let subject = subject(RANDOM, Some(false)).unwrap();
    assert_eq!(subject.path(), subject.file());
    assert!(subject.is_unsteady && !subject.warnings.is_empty());
}

#[test]
fn a_candidate_that_is_random_makes_copies_of_an_original_that_is_not() {
    let path = fixture("random/dropout_off.onnx");
    let (model, other) = (onnx::load(&path).unwrap(), onnx::load(&fixture(RANDOM)).unwrap());
    let subject = Subject::new(&path, &model, &[&other, &other], &Config::default()).unwrap();
    assert_eq!(subject.path(), subject.file());
    assert!(random_operators(&subject.copies().of(&other)).is_empty());
    assert!(!subject.warnings.is_empty());
}

#[test]
fn what_depends_on_the_batch_is_told_and_steady() {
    let subject = subject("random/batchnorm.onnx", None).unwrap();
    assert!(!subject.is_unsteady && !subject.warnings.is_empty());
    assert_eq!(subject.path(), subject.file());
}

#[test]
fn the_copy_goes_with_the_subject() {
    let subject = subject(RANDOM, None).unwrap();
    let path = subject.path().to_owned();
    assert!(path.exists());
    drop(subject);
    assert!(!path.exists());
}

/// A session that always fails, on a file of its own.
struct Failing;

impl Session for Failing {
    fn run(&mut self, _: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        Err(planted::refusal())
    }

    fn remote<'s>(&'s mut self, _: &'s IndexMap<String, Tensor>) -> Option<Remote<'s>> {
        None
    }
}

#[test]
fn errors_of_a_copy_are_about_the_file_of_the_user() {
    let said = |subject: &Subject| {
        let mut session = subject.named(Box::new(Failing));
        assert!(session.left_out().is_empty() && session.seat().is_none());
        assert!(session.remote(&IndexMap::new()).is_none());
        session.run(&IndexMap::new()).unwrap_err().to_string()
    };
    let copied = said(&subject(RANDOM, None).unwrap());
    assert!(copied.contains("normal_like.onnx") && !copied.contains("/somewhere"), "{copied}");
    let own = said(&subject("random/dropout_off.onnx", None).unwrap());
    assert!(own.contains("/somewhere/x.onnx"), "{own}");
}

#[test]
fn a_copy_is_as_large_as_its_file() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let copy = Copy::write(&bed.original).unwrap();
    assert_eq!(copy.bytes, std::fs::metadata(copy.path()).unwrap().len());
    assert_eq!(copy.bytes, std::fs::metadata(bed.path()).unwrap().len());
}
