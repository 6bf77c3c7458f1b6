//! Runs side by side of planted models.

use std::sync::{Arc, Barrier};

use modelopt_rewrite::Precision;
use modelopt_runtime::{RuntimeError, Sample};

use super::*;
use crate::config::Config;
use crate::target::planted::{self, Planted, TRIAL, samples};
use crate::testing::{Bed, Layer};

/// A model in a planted runtime, loaded into as many sessions as there are.
struct Loaded<'a> {
    host: Host<'a>,
    pool: SessionPool,
    samples: Vec<Sample>,
}

impl<'a> Loaded<'a> {
    fn new(runtime: &Planted, config: &'a Config, copies: usize) -> Self {
        let host = runtime.host(config);
        let path = PathBuf::from("/nowhere/trial.onnx");
        let mut pool = SessionPool::new(&host, path, None).unwrap();
        pool.most = copies;
        while pool.sessions.len() < copies {
            pool.sessions.push(pool.source.load(&host).unwrap());
        }
        Loaded { host, pool, samples: samples(8) }
    }

    /// The first number that each run gave, in the order in which they were seen.
    fn run(&mut self, count: usize) -> Result<Vec<f32>, TrialError> {
        let mut seen = Vec::new();
        let samples = &self.samples;
        let inputs = |index: usize| samples[index].inputs.clone();
        self.pool.run(&self.host, count, inputs, &mut |index, outputs| {
            assert_eq!(index, seen.len(), "what is seen is in order");
            seen.push(outputs["y"].to_f32().unwrap()[0]);
            Ok(())
        })?;
        Ok(seen)
    }
}

fn expected(count: usize) -> Vec<f32> {
    samples(count).iter().map(|sample| sample.inputs["x"].to_f32().unwrap()[0]).collect()
}

#[test]
fn outputs_are_seen_in_order_whatever_the_number_of_copies() {
    let config = Config::default();
    for copies in 1..=4 {
        let mut pool = Loaded::new(&Planted::noisy(0.0), &config, copies);
        for count in [0, 1, 3, 4, 8] {
            assert_eq!(pool.run(count).unwrap(), expected(count), "{copies} {count}");
        }
    }
}

#[test]
fn copies_run_at_the_same_time() {
    let config = Config::default();
    // Nobody gets past until all three are there.
    let all = Arc::new(Barrier::new(3));
    let runtime = Planted::new(move |run| {
        all.wait();
        Ok(run.times(1.0))
    });
    assert_eq!(Loaded::new(&runtime, &config, 3).run(6).unwrap(), expected(6));
}

#[test]
fn no_more_runs_are_begun_than_were_asked_for() {
    let config = Config::default();
    let runtime = Planted::noisy(0.0);
    Loaded::new(&runtime, &config, 4).run(5).unwrap();
    assert_eq!(runtime.ran(TRIAL), 5);
}

#[test]
fn what_fails_is_told_by_its_kind_and_what_came_before_was_seen() {
    let config = Config::default();
    let failing = |error: fn() -> RuntimeError| {
        let runtime = Planted::new(
            move |run| {
                if run.before == 2 { Err(error()) } else { Ok(run.times(1.0)) }
            },
        );
        let mut pool = Loaded::new(&runtime, &config, 1);
        let mut seen = 0;
        let inputs = |_: usize| samples(1)[0].inputs.clone();
        let ended = pool.pool.run(&pool.host, 5, inputs, &mut |_, _| {
            seen += 1;
            Ok(())
        });
        assert_eq!((seen, runtime.ran(TRIAL)), (2, 3), "nothing is run after a failure");
        ended.unwrap_err()
    };
    assert!(matches!(failing(planted::refusal), TrialError::Refused(_)));
    assert!(matches!(failing(planted::crash), TrialError::Crashed(_)));
    assert!(matches!(failing(planted::no_memory), TrialError::Environment(_)));
}

#[test]
fn a_panic_of_one_copy_is_a_crash_of_the_model() {
    let config = Config::default();
    let runtime = Planted::new(|run| {
        assert!(run.before != 1, "planted");
        Ok(run.times(1.0))
    });
    let ended = Loaded::new(&runtime, &config, 2).run(4).unwrap_err();
    assert!(matches!(ended, TrialError::Crashed(_)), "{ended}");
}

#[test]
fn what_sees_an_output_may_end_it() {
    let config = Config::default();
    let runtime = Planted::noisy(0.0);
    let mut pool = Loaded::new(&runtime, &config, 1);
    let inputs = |_: usize| samples(1)[0].inputs.clone();
    let ended = pool.pool.run(&pool.host, 4, inputs, &mut |_, _| Err("enough".to_owned().into()));
    assert_eq!(ended.unwrap_err().to_string(), "enough");
    assert_eq!(runtime.ran(TRIAL), 1);
}

#[test]
fn another_copy_is_loaded_where_that_costs_less_than_it_gains() {
    let config = Config::default();
    let runtime = Planted::noisy(0.0);
    let mut pool = Loaded::new(&runtime, &config, 1);
    (pool.pool.most, pool.pool.load) = (4, Duration::MAX);
    pool.run(8).unwrap();
    assert_eq!(runtime.loaded(TRIAL), 1, "loading took for ever");
    pool.pool.load = Duration::ZERO;
    assert_eq!(pool.run(8).unwrap(), expected(8));
    assert!(runtime.loaded(TRIAL) > 1, "loading took no time");
    assert!(runtime.loaded(TRIAL) <= 4);
}

#[test]
fn a_copy_that_cannot_be_loaded_is_gone_without() {
    let config = Config::default();
    let second = |_: &str, before: usize| (before >= 1).then(planted::no_memory);
    let runtime = Planted::noisy(0.0).refusing(second);
    let mut pool = Loaded::new(&runtime, &config, 1);
    (pool.pool.most, pool.pool.load) = (4, Duration::ZERO);
    assert_eq!(pool.run(8).unwrap(), expected(8));
    // Where none is left, that is what there is to say.
    pool.pool.sessions.clear();
    assert!(matches!(pool.run(8), Err(TrialError::Environment(_))));
}

#[test]
fn no_copy_is_loaded_for_a_run_that_somebody_else_makes() {
    let config = Config::default();
    let runtime = Planted::noisy(0.0);
    let mut pool = Loaded::new(&runtime, &config, 1);
    (pool.pool.most, pool.pool.load) = (4, Duration::ZERO);
    pool.host.note_run(Duration::from_secs(2));
    assert_eq!(pool.run(1).unwrap(), expected(1));
    assert_eq!(runtime.loaded(TRIAL), 1);
}

#[test]
fn a_panic_of_whoever_sees_goes_on() {
    let config = Config::default();
    let runtime = Planted::noisy(0.0);
    for copies in [1, 3] {
        let mut pool = Loaded::new(&runtime, &config, copies);
        let inputs = |_: usize| samples(1)[0].inputs.clone();
        let run = || pool.pool.run(&pool.host, 8, inputs, &mut |_, _| panic!("planted"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }
}

#[test]
fn who_uses_all_cores_is_loaded_once() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let config = Config { threads: 0, ..Config::default() };
    let host = Planted::noisy(0.0).host(&config);
    let pool = SessionPool::new(&host, bed.path(), None).unwrap();
    assert_eq!(pool.most, 1);
    // So is a file of which nobody knows how large it is.
    let config = Config { threads: 1, ..Config::default() };
    let host = Planted::noisy(0.0).host(&config);
    let pool = SessionPool::new(&host, PathBuf::from("/nowhere/trial.onnx"), None).unwrap();
    assert_eq!(pool.most, 1);
    let pool = SessionPool::new(&host, bed.path(), None).unwrap();
    assert!((1..=MOST).contains(&pool.most));
}

#[test]
fn candidates_of_sixteen_bits_take_and_give_what_the_original_does() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let config = Config::default();
    // What goes in is rounded, so that 0.1 is no longer what it was.
    let runtime = Planted::new(|run| {
        assert_eq!(run.inputs["x"].dtype(), modelopt_graph::DataType::FLOAT16);
        Ok(run.times(1.0))
    });
    let host = runtime.host(&config);
    let casting = IoCast::of(&bed.original, Precision::Fp16);
    let mut pool = SessionPool::new(&host, bed.path(), Some(casting)).unwrap();
    let given = samples(2);
    let mut seen = Vec::new();
    let inputs = |index: usize| given[index].inputs.clone();
    pool.run(&host, 2, inputs, &mut |_, outputs| {
        seen.push(outputs["y"].to_f32().unwrap()[0]);
        Ok(())
    })
    .unwrap();
    assert!((seen[0] - 3.0).abs() < 1e-6 && (seen[1] - 3.1).abs() < 2e-3, "{seen:?}");
    assert!((seen[1] - 3.1).abs() > 1e-5, "{seen:?}");
}
