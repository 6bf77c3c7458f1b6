//! Calibrations of small networks.

use modelopt_calibrate::{EIGHT_BITS, Method, ReadError};
use modelopt_runtime::SampleKind;
use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;
use crate::runtime_choice::RuntimeChoice;
use crate::testing::{Bed, Layer, WIDTH};

fn samples(count: usize) -> Vec<Sample> {
    let sample = |at: usize| {
        let number = |place: usize| ((place * 37 + at * 101) % 199) as f32 / 100.0 - 1.0;
        let numbers: Vec<f32> = (0..4 * WIDTH).map(number).collect();
        let x = Tensor::of(vec![4, WIDTH], &numbers).unwrap();
        let inputs = [("x".to_owned(), x)].into_iter().collect();
        Sample { name: format!("s{at}"), inputs, kind: SampleKind::Real }
    };
    (0..count).map(sample).collect()
}

/// A network that is calibrated with so many samples, and a folder for what comes of it.
struct Bench {
    bed: Bed,
    config: Config,
    folder: TempDir,
}

impl Bench {
    fn of(layers: &[Layer], samples: Vec<Sample>) -> Self {
        let bed = Bed::of(layers, 20.0);
        let config = Config { given_samples: Some(samples.into()), ..bed.config.clone() };
        Bench { bed, config, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The options of a run that keeps its progress after every sample.
    fn keeping(&self) -> CalibrateOptions {
        let progress_file = Some(self.path("out.partial"));
        CalibrateOptions {
            progress_file,
            save_every: Duration::ZERO,
            ..CalibrateOptions::default()
        }
    }

    fn run(&self, options: &CalibrateOptions) -> Result<Calibrated, Error> {
        calibrate(&self.bed.path(), &self.config, options, &Stop::default(), &mut |_| {})
    }

    /// A run that is stopped after so many steps; whether it was.
    fn stopped(&self, options: &CalibrateOptions, after: usize) -> Result<Calibrated, Error> {
        let (stop, mut steps) = (Stop::default(), 0);
        let ending = stop.clone();
        calibrate(&self.bed.path(), &self.config, options, &stop, &mut |event| {
            if let Progress::Part { .. } = event {
                steps += 1;
                if steps == after {
                    ending.stop();
                }
            }
        })
    }

    /// The calibration of one shard, as a file.
    fn shard(&self, shard: &str) -> PathBuf {
        let options = CalibrateOptions { shard: shard.parse().unwrap(), ..Default::default() };
        let path = self.path(&shard.replace('/', "-of-"));
        write_calibration(&self.run(&options).unwrap().calibration, &path).unwrap();
        path
    }
}

fn text(calibration: &Calibration) -> String {
    calibration.to_toml().unwrap()
}

fn message(result: Result<impl Sized, Error>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn all_float_values_of_the_prepared_model_have_ranges() {
    let bench = Bench::of(&[Layer::Even; 2], samples(3));
    let calibrated = bench.run(&CalibrateOptions::default()).unwrap();
    assert!(!calibrated.resumed && calibrated.warnings.is_empty());
    let told = calibrated.calibration.ranges(EIGHT_BITS);
    let names: Vec<&str> = told.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["product0_out", "product1_out", "tanh0_out", "x"]);
    for tensor in &told {
        assert_eq!(tensor.extremes.finite, (3 * 4 * WIDTH) as u64, "{tensor:?}");
        for method in Method::ALL {
            assert!(tensor.share(method).is_some_and(|share| share > 0.1 && share <= 1.001));
        }
    }
    let model = onnx::digest(&bench.bed.path()).unwrap();
    let layers = LayerDigests::of(&bench.bed.prepared);
    assert_eq!(calibrated.calibration.check(&model, &layers), Ok(()));
    assert_eq!(calibrated.calibration.list().map(SampleList::count), Some(3));
}

#[test]
fn shards_in_any_order_are_one_run_to_the_last_byte() {
    let bench = Bench::of(&[Layer::Even; 2], samples(5));
    let whole = text(&bench.run(&CalibrateOptions::default()).unwrap().calibration);
    let [a, b] = ["1/2", "2/2"].map(|shard| bench.shard(shard));
    let [c, d, e] = ["1/3", "2/3", "3/3"].map(|shard| bench.shard(shard));
    for order in [vec![&a, &b], vec![&b, &a], vec![&c, &d, &e], vec![&e, &c, &d], vec![&d, &e, &c]]
    {
        let order: Vec<PathBuf> = order.into_iter().cloned().collect();
        assert!(text(&merge_calibrations(&order).unwrap()) == whole, "{order:?}");
    }
    // Nothing but results is left.
    assert_eq!(std::fs::read_dir(bench.folder.path()).unwrap().count(), 5);
}

#[test]
fn more_shards_than_samples_leave_some_empty() {
    let bench = Bench::of(&[Layer::Even], samples(2));
    let whole = text(&bench.run(&CalibrateOptions::default()).unwrap().calibration);
    let shards: Vec<PathBuf> =
        ["1/3", "2/3", "3/3"].iter().map(|shard| bench.shard(shard)).collect();
    assert!(read_calibration(&shards[0]).unwrap().samples().is_empty());
    assert!(text(&merge_calibrations(&shards).unwrap()) == whole);
}

#[test]
fn what_is_interrupted_anywhere_goes_on_to_the_same() {
    let bench = Bench::of(&[Layer::Even; 2], samples(4));
    let whole = text(&bench.run(&CalibrateOptions::default()).unwrap().calibration);
    let keeping = bench.keeping();
    let resuming = CalibrateOptions { resume: true, ..keeping.clone() };
    // All inputs are read, then all samples run.
    for after in 1..=8 {
        let stopped = bench.stopped(&keeping, after).unwrap_err();
        assert!(matches!(stopped.kind(), ErrorKind::Observing(PassError::Stopped)), "{stopped}");
        let again = bench.run(&resuming).unwrap();
        assert!(again.resumed);
        assert!(text(&again.calibration) == whole, "after {after}");
    }
    // Whoever does not ask to go on begins again; where there is nothing to go on from, too.
    assert!(!bench.run(&keeping).unwrap().resumed);
    std::fs::remove_file(bench.path("out.partial")).unwrap();
    assert!(!bench.run(&resuming).unwrap().resumed);
}

#[test]
fn a_process_that_died_is_gone_on_with_from_what_it_kept() {
    let bench = Bench::of(&[Layer::Even; 2], samples(4));
    let whole = text(&bench.run(&CalibrateOptions::default()).unwrap().calibration);
    // It keeps something only when it is stopped: what came after is lost, and done again.
    let rarely = CalibrateOptions { save_every: Duration::from_secs(3600), ..bench.keeping() };
    assert!(bench.stopped(&rarely, 6).is_err());
    let kept = std::fs::read(bench.path("out.partial")).unwrap();
    let resuming = CalibrateOptions { resume: true, ..rarely };
    for _ in 0..2 {
        assert!(text(&bench.run(&resuming).unwrap().calibration) == whole);
        assert!(std::fs::read(bench.path("out.partial")).unwrap() == kept);
    }
}

#[test]
fn only_the_same_run_is_gone_on_with() {
    let bench = Bench::of(&[Layer::Even; 2], samples(4));
    let options = bench.keeping();
    assert!(bench.stopped(&options, 5).is_err());
    let resuming = CalibrateOptions { resume: true, ..options };
    let shard = CalibrateOptions { shard: "1/2".parse().unwrap(), ..resuming.clone() };
    assert!(message(bench.run(&shard)).contains("other samples, or another shard"));
    let fewer = Config { given_samples: Some(samples(3).into()), ..bench.config.clone() };
    let run = |model: &Path, config: &Config| {
        message(calibrate(model, config, &resuming, &Stop::default(), &mut |_| {}))
    };
    assert!(run(&bench.bed.path(), &fewer).contains("other samples"));
    let other = Bed::of(&[Layer::Even, Layer::Outliers], 20.0);
    let said = run(&other.path(), &bench.config);
    assert!(said.contains("out.partial was begun with another model: 1 of "), "{said}");
    assert!(said.contains("'product1'") && !said.contains("'product0'"), "{said}");
    let elsewhere = Config {
        runtime: RuntimeChoice::Named(vec!["rten".parse().unwrap()]),
        ..bench.config.clone()
    };
    let said = run(&bench.bed.path(), &elsewhere);
    assert!(said.contains("was begun in tract ") && said.contains("go on in rten "), "{said}");
    std::fs::write(bench.path("out.partial"), "unfinished = 7\n").unwrap();
    assert!(run(&bench.bed.path(), &bench.config).contains("version 7"));
}

#[test]
fn what_does_not_go_together_is_refused_with_its_file() {
    let bench = Bench::of(&[Layer::Even; 2], samples(4));
    let [a, b, c] = ["1/2", "2/2", "2/3"].map(|shard| bench.shard(shard));
    let merged = |paths: &[&PathBuf]| {
        message(merge_calibrations(&paths.iter().map(|&path| path.clone()).collect::<Vec<_>>()))
    };
    let twice = merged(&[&a, &b, &c]);
    assert!(twice.contains("2-of-3 cannot be merged with"), "{twice}");
    assert!(twice.contains("1-of-2: both saw sample 1"), "{twice}");
    let other = Bench::of(&[Layer::Even, Layer::Outliers], samples(4));
    let foreign = other.shard("2/2");
    let said = merged(&[&a, &foreign]);
    assert!(said.contains(&foreign.display().to_string()) && said.contains("digest"), "{said}");
    let old = std::fs::read_to_string(&b).unwrap().replace("version = 2", "version = 1");
    std::fs::write(&b, old).unwrap();
    let said = merged(&[&a, &b]);
    assert!(said.contains("2-of-2: it has version 1"), "{said}");
    std::fs::write(&b, "{}").unwrap();
    let read = read_calibration(&b).unwrap_err();
    let ErrorKind::Calibration(CalibrationError::Read { source, .. }) = read.kind() else {
        panic!("{read:?}")
    };
    assert!(matches!(source, ReadError::Form(_)));
    assert!(merge_calibrations(&[]).is_err() && read_calibration(&bench.path("none")).is_err());
}

#[test]
fn a_calibration_of_another_model_is_refused_with_the_layers_that_differ() {
    let bench = Bench::of(&[Layer::Even; 2], samples(2));
    let path = bench.shard("1/1");
    let of = |bed: &Bed| read_calibration_of(&path, &bed.path(), &bench.config);
    assert_eq!(of(&bench.bed).unwrap().samples().len(), 2);
    let weights = message(of(&Bed::of(&[Layer::Even, Layer::Outliers], 20.0)));
    assert!(
        weights.contains("1-of-1 is a calibration of another model: 1 of 2 layers"),
        "{weights}"
    );
    assert!(weights.ends_with("'product1'"), "{weights}");
    let deeper = message(of(&Bed::of(&[Layer::Even; 3], 20.0)));
    assert!(deeper.ends_with("1 layer new: 'product2'"), "{deeper}");
    let flatter = message(of(&Bed::of(&[Layer::Even], 20.0)));
    assert!(flatter.ends_with("1 layer not there: 'product1'"), "{flatter}");
}

#[test]
fn a_sample_that_is_no_use_is_named() {
    let with = |number: f32| {
        let mut all = samples(4);
        let x = Tensor::of(vec![4, WIDTH], &vec![number; 4 * WIDTH]).unwrap();
        all[2].inputs.insert("x".to_owned(), x);
        message(Bench::of(&[Layer::Even; 2], all).run(&CalibrateOptions::default()))
    };
    assert_eq!(with(f32::NAN), "sample 's2': input 'x' has elements that are NaN");
    // Infinities of either sign are added.
    let made = with(f32::INFINITY);
    assert!(made.starts_with("sample 's2': 'product0_out' has elements that are NaN"), "{made}");
}

#[test]
fn invented_samples_calibrate_nothing() {
    let bench = Bench::of(&[Layer::Even], samples(1));
    let config = Config { given_samples: None, ..bench.config.clone() };
    let options = CalibrateOptions::default();
    let run = calibrate(&bench.bed.path(), &config, &options, &Stop::default(), &mut |_| {});
    assert!(message(run).contains("real samples"));
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let bench = Bench::of(&[Layer::Even], samples(1));
    let calibration = bench.run(&CalibrateOptions::default()).unwrap().calibration;
    let said = message(write_calibration(&calibration, &bench.path("none/out")));
    assert!(said.contains("none/out"), "{said}");
    let progress_file = Some(bench.path("none/out.partial"));
    let options = CalibrateOptions { progress_file, ..bench.keeping() };
    assert!(message(bench.run(&options)).contains("none/out.partial"));
}
