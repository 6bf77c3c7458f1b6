//! The edges of settings.

use super::*;
use crate::testing::{Bed, Layer};

#[test]
fn tables_are_laid_over_each_other_key_by_key() {
    let table = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
    let mut all = table("a = 1\n[t]\nb = 2\n[t.u]\nc = 3\n");
    overlay(&mut all, table("[t]\nd = 4\n[t.u]\nc = 5\n"));
    assert_eq!(all, table("a = 1\n[t]\nb = 2\nd = 4\n[t.u]\nc = 5\n"));
    // What is no table on either side is replaced.
    overlay(&mut all, table("t = 6\n[a]\ne = 7\n"));
    assert_eq!(all, table("t = 6\n[a]\ne = 7\n"));
}

#[test]
fn a_file_leaves_alone_what_no_file_can_set() {
    let mut before = Config {
        plan: Some(Plan::new(Numerics::default())),
        given_samples: Some(Vec::new().into()),
        sqnr_limit_given: true,
        ..Config::default()
    };
    before.gate.min_sqnr_db = Some(33.0);
    let after = before.with_toml("threads = 7\n").unwrap();
    assert_eq!(after, Config { threads: 7, ..before });
}

#[test]
fn what_is_wrong_in_a_file_is_told_by_its_line() {
    let error = |text: &str| Config::from_toml(text).unwrap_err().to_string();
    assert!(error("seed = 1\nthreads = \"two\"\n").contains("line 2"));
    assert!(error("[gate]\nmin-sqnr = 3\n").contains("min-sqnr"));
    assert!(error("runtime = \"nobody\"\n").contains("nobody"));
    assert!(error("scheme = \"int3\"\n").contains("int3"));
    assert!(error("threads = = 2").contains("line 1"));
}

#[test]
fn a_search_is_made_where_somebody_may_be_satisfied_by_it() {
    let searches = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.searches()
    };
    assert!(searches(|_| {}));
    let asked: [fn(&mut Config); 6] = [
        |config| config.scheme = Some(Scheme::KEEP),
        |config| config.plan = Some(Plan::new(Numerics::default())),
        |config| config.enforcement = Enforcement::Judge,
        |config| config.enforcement = Enforcement::None,
        |config| config.search.max_trials = 1,
        |config| config.search.max_trials = 0,
    ];
    assert!(asked.into_iter().all(|change| !searches(change)));
}

#[test]
fn what_is_computed_in_comes_from_the_plan_before_the_scheme() {
    let bed = Bed::of(&[Layer::Even], 20.0);
    let plan = bed.plan(Scheme::BF16);
    let scheme = Some(Scheme::FP16);
    let asked = Config { scheme, ..Config::default() };
    assert_eq!(asked.computes_in(), Some(Precision::Fp16));
    let planned = Config { scheme, plan: Some(plan.into_plan()), ..Config::default() };
    assert_eq!(planned.computes_in(), Some(Precision::Bf16));
    let stored = Config { scheme: Some(Scheme::FP16_WEIGHTS), ..Config::default() };
    assert_eq!(stored.computes_in(), None);
    assert_eq!(Config::default().computes_in(), None);
}

#[test]
fn values_of_inputs_are_read_as_they_are_written() {
    let with = |value: &str| {
        let inputs = [("sr".to_owned(), value.to_owned())].into();
        Config { inputs, sample_count: 2, seed: 5, ..Config::default() }.synthesis()
    };
    let options = with("16000").unwrap();
    assert_eq!((options.count, options.seed, options.values.len()), (2, 5, 1));
    assert!(with("0.5,0.25").is_ok());
    assert!(with("loud").is_err() && with("").is_err());
}

#[test]
fn a_library_that_is_given_counts_before_the_environment() {
    let environment = LibrarySearch { explicit: None, ..LibrarySearch::default() };
    let config = Config {
        onnxruntime: Some(PathBuf::from("/somewhere/lib.so")),
        environment: environment.clone(),
        ..Config::default()
    };
    let search = config.library_search();
    assert_eq!(search.explicit, config.onnxruntime);
    let none = Config { environment, ..Config::default() };
    assert_eq!(none.library_search().explicit, None);
}

#[test]
fn sessions_are_opened_as_the_settings_say() {
    let config = Config {
        threads: 3,
        optimization: Optimization::Off,
        provider: "cuda".to_owned(),
        ..Config::default()
    };
    let session = config.session();
    assert_eq!((session.threads, session.provider.as_str()), (3, "cuda"));
    assert_eq!(session.optimization, Optimization::Off);
}

#[test]
fn samples_at_hand_are_the_same_ones_and_not_equal_ones() {
    let given = || GivenSamples::from(Vec::new());
    let one = given();
    assert!(one == one.clone() && one != given());
}
