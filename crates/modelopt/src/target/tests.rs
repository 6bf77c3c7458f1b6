//! Where and on what models run, in a planted runtime and in real ones.

use modelopt_graph::Tensor;
use modelopt_validate::CompareError;

use super::planted::{Planted, TRIAL, samples as planted_samples};
use super::*;
use crate::testing::{Bed, Layer};

fn bed() -> Bed {
    Bed::of(&[Layer::Even], 20.0)
}

fn of_kinds(kinds: &[SampleKind]) -> Vec<Sample> {
    let sample = |&kind| Sample { name: String::new(), inputs: <_>::default(), kind };
    kinds.iter().map(sample).collect()
}

#[test]
fn samples_are_summed_up_by_where_they_come_from() {
    use SampleKind::{Real, Synthetic};
    let of = |kinds: &[SampleKind]| {
        let summary = summary(&of_kinds(kinds));
        (summary.kind, summary.count)
    };
    assert_eq!(of(&[Real, Real]), (report::SampleKind::Real, 2));
    assert_eq!(of(&[Synthetic]), (report::SampleKind::Synthetic, 1));
    assert_eq!(of(&[Synthetic, Real, Real]), (report::SampleKind::Mixed, 3));
}

#[test]
fn shapes_go_by_the_names_of_inputs() {
    let mut sample = of_kinds(&[SampleKind::Real]).remove(0);
    for (name, shape) in [("b", vec![2, 0, 3]), ("a", vec![])] {
        let count = shape.iter().product();
        let tensor = Tensor::of(shape, &vec![0f32; count]).unwrap();
        sample.inputs.insert(name.to_owned(), tensor);
    }
    let found: Vec<_> = shapes(&sample).collect();
    assert_eq!(found, [("b".to_owned(), vec![2, 0, 3]), ("a".to_owned(), vec![])]);
}

#[test]
fn invented_samples_are_as_many_as_asked_for_and_the_same_for_the_same_seed() {
    let bed = bed();
    let of = |sample_count: usize, seed: u64| {
        let config = Config { seed, sample_count, ..bed.config.clone() };
        let samples = samples(&bed.original, &config).unwrap().samples;
        samples.iter().map(|s| s.inputs["x"].to_f32().unwrap().into_owned()).collect::<Vec<_>>()
    };
    assert_eq!((of(3, 1).len(), of(0, 1).len()), (3, 0));
    assert!(of(2, 1) == of(2, 1) && of(2, 1) != of(2, 2));
    assert_eq!(of(3, 1)[..2], of(2, 1)[..]);
}

#[test]
fn what_is_at_hand_counts_instead_of_files() {
    let bed = bed();
    let given = samples(&bed.original, &bed.config).unwrap().samples;
    let folder = tempfile::tempdir().unwrap();
    let path = Some(folder.path().to_owned());
    let config = Config { samples: path, ..bed.config.clone() };
    assert!(samples(&bed.original, &config).is_err(), "there are none in the folder");
    let config = Config { given_samples: Some(given[..1].to_vec().into()), ..config };
    assert_eq!(samples(&bed.original, &config).unwrap().samples.len(), 1);
}

#[test]
fn as_many_runs_fit_beside_each_other_as_cores_are_left() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let idle = |threads: usize| {
        let config = Config { threads, ..Config::default() };
        Planted::noisy(0.0).host(&config).idle_cores()
    };
    assert_eq!((idle(1), idle(0), idle(cores), idle(cores + 1)), (cores, 1, 1, 0));
}

#[test]
fn settings_that_make_runs_differ_tell_measurements_apart() {
    let bed = bed();
    let key = |change: fn(&mut Config)| {
        let mut config = planted::named(&bed);
        change(&mut config);
        bed.planted(&Planted::noisy(0.0), planted_samples(1), &config).unwrap().rig.key()
    };
    let changes: [fn(&mut Config); 4] = [
        |_| {},
        |config| config.threads = 3,
        |config| config.provider = "cuda".to_owned(),
        |config| config.optimization = modelopt_runtime::Optimization::Off,
    ];
    let keys = changes.map(key);
    for (at, one) in keys.iter().enumerate() {
        assert_eq!(keys.iter().position(|other| other == one), Some(at), "{keys:?}");
    }
    assert_eq!(key(|config| config.seed = 9), keys[0]);
}

#[test]
fn what_the_runtime_cannot_return_is_told() {
    let bed = bed();
    let config = planted::named(&bed);
    let told = |runtime: &Planted| {
        bed.planted(runtime, planted_samples(1), &config).unwrap().rig.left_out()
    };
    assert!(told(&Planted::noisy(0.0)).is_none());
    assert!(told(&Planted::noisy(0.0).leaving_out("boxes")).is_some());
}

#[test]
fn without_samples_nothing_can_be_judged() {
    let bed = bed();
    let config = planted::named(&bed);
    let runtime = Planted::noisy(0.0);
    let error = bed.planted(&runtime, Vec::new(), &config).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Run(CompareError::NoSamples)), "{error}");
    assert_eq!(runtime.ran(planted::ORIGINAL), 0);
}

#[test]
fn what_is_only_steady_on_the_first_run_is_found_out_by_another_one() {
    let bed = bed();
    let config = planted::named(&bed);
    let drifting = |drift: f32| {
        let runtime = Planted::new(move |run| Ok(run.times(1.0 + drift * run.before as f32)));
        bed.planted(&runtime, planted_samples(2), &config).unwrap().rig.unsteady()
    };
    assert!(drifting(0.1).is_some());
    assert!(drifting(0.0).is_none());
    assert!(drifting(1e-8).is_none(), "float32 resolves nothing of that");
}

#[test]
fn a_target_that_was_named_is_not_left_for_another_one() {
    let bed = bed();
    let config = planted::named(&bed);
    let runtime = Planted::noisy(0.0);
    let Ground { mut rig, samples, .. } =
        bed.planted(&runtime, planted_samples(1), &config).unwrap();
    assert!(rig.moves_on(&samples, "it fails"), "16 bits may be emulated there");
    assert!(!rig.moves_on(&samples, "it fails"));
    assert_eq!(rig.used.name, planted::NAME);
}

#[test]
fn what_is_wrong_here_is_no_reason_to_move_on() {
    let bed = bed();
    let config = planted::named(&bed);
    for (error, loads) in [(planted::no_memory as fn() -> _, 1), (planted::refusal, 2)] {
        let runtime = Planted::noisy(0.0).refusing(move |model, _| (model == TRIAL).then(error));
        let Ground { mut rig, samples, .. } =
            bed.planted(&runtime, planted_samples(1), &config).unwrap();
        let path = bed.path().with_file_name(TRIAL);
        std::fs::copy(bed.path(), &path).unwrap();
        rig.accommodate(&path, &samples);
        assert_eq!(runtime.loaded(TRIAL), loads);
    }
}

#[test]
fn the_first_embedded_runtime_that_runs_it_is_taken_where_nobody_names_one() {
    let bed = bed();
    let subject = Arc::new(Subject::as_it_is(&bed.path()));
    let samples = samples(&bed.original, &bed.config).unwrap().samples;
    let first = embedded(&bed.path())[0];
    let rig = target(&subject, &samples, &bed.config, &[]).unwrap();
    assert_eq!(rig.used.name, first.name());
    let others = target(&subject, &samples, &bed.config, &[first.name()]).unwrap();
    assert_ne!(others.used.name, first.name());
    let all: Vec<&str> = RuntimeKind::all().map(RuntimeKind::name).collect();
    let error = target(&subject, &samples, &bed.config, &all).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::NoRuntime(tried) if tried.is_empty()), "{error}");
}

#[test]
fn a_file_that_is_no_model_is_refused_by_each_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.onnx");
    std::fs::write(&path, b"not a model").unwrap();
    let (subject, config) = (Arc::new(Subject::as_it_is(&path)), Config::default());
    let error = target(&subject, &planted_samples(1), &config, &[]).err().unwrap();
    let ErrorKind::NoRuntime(tried) = error.kind() else { panic!("{error}") };
    assert!(tried.len() >= RuntimeKind::embedded().count());
}
