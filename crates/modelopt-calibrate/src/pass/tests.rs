//! Passes with planted sessions.

use std::cell::RefCell;

use indexmap::IndexMap;
use modelopt_graph::Tensor;
use modelopt_runtime::{RuntimeError, SampleError, SampleKind, Session};

use super::*;
use crate::observer::Observer;
use crate::observers::MinMax;
use crate::samples::Part;
use crate::testing::{self, tensor};

/// Gives each output of the model it was made for, but for `x`, one number: ten times that of
/// the input, and the place of the output. It breaks at a number.
struct Planted {
    outputs: Vec<String>,
    breaks_at: f32,
    nan_at: f32,
}

impl Session for Planted {
    fn run(&mut self, inputs: &IndexMap<String, Tensor>) -> Result<Outputs, RuntimeError> {
        let x = inputs.get("x").and_then(Tensor::to_f32).unwrap()[0];
        if x == self.breaks_at {
            return Err(RuntimeError::NoMemory);
        }
        let odd = if x == self.nan_at { f32::NAN } else { 10.0 };
        let of = |place: usize| tensor(&[1], &[odd * x + place as f32]);
        Ok(self.outputs.iter().cloned().zip((0..).map(of)).collect())
    }
}

/// Opens planted sessions and remembers what each showed.
#[derive(Default)]
struct Opener {
    shown: RefCell<Vec<Vec<String>>>,
    breaks_at: f32,
    /// The number for which it makes NaN.
    nan_at: f32,
    refuses: Option<&'static str>,
}

impl OpenSession for Opener {
    fn open(&self, model: &Model) -> Result<Box<dyn Session + '_>, RuntimeError> {
        let outputs = &model.graph(model.main()).outputs;
        let outputs: Vec<String> =
            outputs.iter().map(|info| model.value(info.value).name().to_owned()).collect();
        self.shown.borrow_mut().push(outputs.clone());
        if outputs.iter().any(|name| Some(name.as_str()) == self.refuses) {
            return Err(RuntimeError::NoLibrary);
        }
        Ok(Box::new(Planted { outputs, breaks_at: self.breaks_at, nan_at: self.nan_at }))
    }
}

fn samples(numbers: &[f32]) -> Vec<Sample> {
    let sample = |&x: &f32| Sample {
        name: format!("sample {x}"),
        inputs: [("x".to_owned(), tensor(&[1, 2], &[x, 0.0]))].into_iter().collect(),
        kind: SampleKind::Real,
    };
    numbers.iter().map(sample).collect()
}

fn watched(model: &Model, names: &[&str]) -> Observations {
    let mut all = Observations::default();
    for name in names {
        let value = model.values().find(|&value| model.value(value).name() == *name).unwrap();
        all.watch(model, value, MinMax::new()).unwrap();
    }
    all
}

fn range(all: &Observations, name: &str) -> Option<(f32, f32)> {
    all.of(name, &MinMax::new()).unwrap().statistic().range
}

fn go(_: Step) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn inputs_outputs_and_what_is_between_are_seen_in_one_run() {
    let (model, samples, opener) = (testing::model(), samples(&[1.0, 2.0]), Opener::default());
    let mut all = watched(&model, &["x", "y", "z"]);
    let mut steps = Vec::new();
    let pass = Pass::new(&model, &samples);
    pass.run(&mut all, &opener, &mut |step| {
        steps.push((step.done, step.total));
        ControlFlow::Continue(())
    })
    .unwrap();
    // `z` is an output already, and the input is known without a run.
    assert_eq!(*opener.shown.borrow(), [["z", "y"]]);
    assert_eq!(steps, [(1, 2), (2, 2)]);
    assert_eq!(range(&all, "x"), Some((0.0, 2.0)));
    assert_eq!(range(&all, "y"), Some((11.0, 21.0)));
    assert_eq!(range(&all, "z"), Some((10.0, 20.0)));
}

#[test]
fn groups_bound_the_memory() {
    let (model, samples, opener) = (testing::model(), samples(&[1.0]), Opener::default());
    // Each value takes eight bytes.
    let pass = Pass::new(&model, &samples).within(8);
    let mut all = watched(&model, &["y", "z"]);
    pass.run(&mut all, &opener, &mut go).unwrap();
    assert_eq!(*opener.shown.borrow(), [vec!["z", "y"], vec!["z"]]);
    // What another group shows is not counted twice.
    assert_eq!(all.of("z", &MinMax::new()).unwrap().statistic().finite, 1);
}

#[test]
fn an_error_says_which_value_and_the_others_are_seen() {
    let (model, samples) = (testing::model(), samples(&[1.0]));
    let opener = Opener { refuses: Some("y"), ..Opener::default() };
    let mut all = watched(&model, &["y", "z"]);
    let pass = Pass::new(&model, &samples).within(1);
    let error = pass.run(&mut all, &opener, &mut go).unwrap_err();
    assert_eq!(error.to_string(), "'y' cannot be shown: no library of ONNX Runtime was found");
    assert_eq!(range(&all, "z"), Some((10.0, 10.0)));
    assert_eq!(range(&all, "y"), None);
}

#[test]
fn a_run_that_fails_says_on_which_sample() {
    let (model, samples) = (testing::model(), samples(&[1.0, 5.0]));
    let opener = Opener { breaks_at: 5.0, ..Opener::default() };
    let mut all = watched(&model, &["y", "z"]);
    let error = Pass::new(&model, &samples).run(&mut all, &opener, &mut go).unwrap_err();
    let told = error.told(|_| "planted".to_owned());
    assert_eq!(told, "'y' and 1 more cannot be shown on sample sample 5: planted");
}

#[test]
fn a_pass_can_be_ended() {
    let (model, samples, opener) = (testing::model(), samples(&[1.0, 2.0]), Opener::default());
    let mut all = watched(&model, &["y"]);
    let mut runs = 0;
    let ended = Pass::new(&model, &samples).run(&mut all, &opener, &mut |_| {
        runs += 1;
        ControlFlow::Break(())
    });
    assert!(matches!(ended, Err(PassError::Stopped)));
    assert_eq!(runs, 1);
}

#[test]
fn a_closure_can_make_sessions() {
    let (model, samples) = (testing::model(), samples(&[1.0]));
    let refuse =
        |_: &Model| -> Result<Box<dyn Session>, RuntimeError> { Err(RuntimeError::NoLibrary) };
    let mut all = watched(&model, &["y"]);
    assert!(Pass::new(&model, &samples).run(&mut all, &refuse, &mut go).is_err());
    // Inputs need none.
    let mut all = watched(&model, &["x"]);
    assert!(Pass::new(&model, &samples).run(&mut all, &refuse, &mut go).is_ok());
}

#[test]
fn shards_have_places_of_their_own() {
    let (model, samples) = (testing::model(), samples(&[1.0, 2.0]));
    let places: Vec<u64> = Pass::new(&model, &samples).from(5).places().collect();
    assert_eq!(places, [5, 6]);
}

/// Samples that count how often each is taken.
#[derive(Debug)]
struct Counted {
    samples: Vec<Sample>,
    taken: RefCell<Vec<usize>>,
}

impl Samples for Counted {
    fn count(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, place: usize) -> Result<Sample, SampleError> {
        self.taken.borrow_mut().push(place);
        Samples::get(&self.samples, place)
    }

    fn largest(&self) -> Result<Option<Sample>, SampleError> {
        Samples::largest(&self.samples)
    }
}

#[test]
fn samples_are_taken_one_at_a_time_once_for_each_group() {
    let (model, opener) = (testing::model(), Opener::default());
    let samples = Counted { samples: samples(&[1.0, 2.0]), taken: RefCell::default() };
    let mut all = watched(&model, &["y", "z"]);
    Pass::new(&model, &samples).within(8).run(&mut all, &opener, &mut go).unwrap();
    assert_eq!(*samples.taken.borrow(), [0, 1, 0, 1]);
}

#[test]
fn nan_in_an_input_is_named_before_anything_runs() {
    let (model, opener) = (testing::model(), Opener::default());
    let samples = samples(&[1.0, f32::NAN]);
    let mut all = watched(&model, &["y"]);
    let error = Pass::new(&model, &samples).strict().run(&mut all, &opener, &mut go).unwrap_err();
    assert_eq!(error.to_string(), "sample 'sample NaN': input 'x' has elements that are NaN");
    assert!(opener.shown.borrow().is_empty());
    // Who does not ask for it gets what there is.
    assert!(Pass::new(&model, &samples).run(&mut all, &opener, &mut go).is_ok());
}

#[test]
fn nan_that_the_model_makes_is_named_where_it_is_first() {
    let (model, opener) = (testing::model(), Opener { nan_at: 2.0, ..Opener::default() });
    let samples = samples(&[1.0, 2.0, 3.0]);
    let mut all = watched(&model, &["x", "y", "z"]);
    let error = Pass::new(&model, &samples).strict().run(&mut all, &opener, &mut go).unwrap_err();
    let expected = "sample 'sample 2': 'y' has elements that are NaN, the first in the model; the inputs have none";
    assert_eq!(error.to_string(), expected);
    assert!(error.runtime_error().is_none());
}

/// What is observed of all values in a pass that is ended after some steps, each time, and gone on with.
fn interrupted(every: usize) -> (Observations, usize) {
    let (model, samples) = (testing::model(), samples(&[1.0, 2.0, 3.0]));
    let mut all = watched(&model, &["x", "y", "z"]);
    let pass = Pass::new(&model, &samples).within(8).strict();
    let mut position = pass.start(&all, &Opener::default()).unwrap();
    let mut ends = 0;
    loop {
        let (mut seen, mut reached, mut steps) = (all.clone(), None, 0);
        let ended = pass.go_on(position.clone(), &mut seen, &Opener::default(), &mut |moment| {
            steps += 1;
            if steps < every {
                return ControlFlow::Continue(());
            }
            reached = Some((moment.position.clone(), moment.observations.clone()));
            ControlFlow::Break(())
        });
        match ended {
            Ok(()) => return (seen, ends),
            Err(error) => {
                assert!(matches!(error, PassError::Stopped), "{error}");
                (position, all) = reached.unwrap();
                ends += 1;
            }
        }
    }
}

#[test]
fn a_pass_goes_on_where_it_was() {
    let (whole, ends) = interrupted(100);
    assert_eq!(ends, 0);
    for every in 1..=9 {
        let (pieced, ends) = interrupted(every);
        // One round for the input and one for each of two groups.
        assert_eq!(ends, 9 / every);
        for name in ["x", "y", "z"] {
            assert_eq!(pieced.of(name, &MinMax::new()), whole.of(name, &MinMax::new()), "{every}");
        }
    }
    assert_eq!(range(&whole, "y"), Some((11.0, 31.0)));
}

#[test]
fn parts_have_what_is_theirs_of_all_samples() {
    let all = samples(&[1.0, 2.0, 3.0]);
    let part = Part { of: &all, places: 1..3 };
    assert_eq!(part.count(), 2);
    assert_eq!(part.get(0).unwrap().name, "sample 2");
    assert_eq!(part.largest().unwrap().unwrap().name, all.largest().unwrap().unwrap().name);
    assert!(all.get(3).is_err());
}
