//! Plans made faster by planted clocks.

use modelopt_rewrite::Numerics;

use super::*;

/// Takes as long as its layers are said to: ratios of the whole that each adds.
struct Planted<F> {
    adds: F,
    limit: f64,
    told: Vec<String>,
}

impl<F: Fn(usize, &PlannedLayer) -> f64> Clock for Planted<F> {
    fn time(&mut self, plan: &ExplainedPlan, what: &str) -> Result<Timed, TrialError> {
        self.told.push(what.to_owned());
        let layers = plan.layers.iter().enumerate();
        let slowdown = 1.0 + layers.map(|(at, line)| (self.adds)(at, line)).sum::<f64>();
        Ok(Timed { slowdown, passes: slowdown <= self.limit })
    }

    fn is_over(&self) -> bool {
        false
    }
}

fn plan(layers: &[(&str, Scheme)]) -> ExplainedPlan {
    let mut plan = ExplainedPlan::new(Numerics::default());
    for (at, (op, scheme)) in layers.iter().enumerate() {
        let why = Explanation { op: (*op).to_owned(), ..Explanation::default() };
        plan.push(PlannedLayer::new(format!("{op}{at}"), *scheme), why);
    }
    plan
}

/// The operator that a planted layer is called after.
fn op(line: &PlannedLayer) -> &str {
    line.id.trim_end_matches(char::is_numeric)
}

/// A table that multiplies its rows in every run.
fn is_gathered_as_int8(line: &PlannedLayer) -> bool {
    op(line) == "Gather" && line.scheme == STORED && !line.at_load
}

/// The schemes that come of planted slownesses, and what was tried.
fn quickened(
    before: &ExplainedPlan,
    keep: bool,
    adds: impl Fn(usize, &PlannedLayer) -> f64,
) -> (Option<Vec<Scheme>>, Vec<String>) {
    let slowdown =
        1.0 + before.layers.iter().enumerate().map(|(at, line)| adds(at, line)).sum::<f64>();
    let mut clock = Planted { adds, limit: 1.05, told: Vec::new() };
    let found = quicken(before, slowdown, keep, &mut clock, &Tuning::default()).unwrap();
    let schemes = found.map(|plan| plan.layers.iter().map(|line| line.scheme).collect());
    (schemes, clock.told)
}

const DYNAMIC: Scheme = Scheme::INT8_DYNAMIC;
const STORED: Scheme = Scheme::INT8_WEIGHTS;
const KEEP: Scheme = Scheme::KEEP;

#[test]
fn the_form_that_is_slow_goes_down_and_no_other() {
    let before = plan(&[
        ("Gather", STORED),
        ("Conv", DYNAMIC),
        ("MatMul", DYNAMIC),
        ("Conv", DYNAMIC),
        ("Gemm", DYNAMIC),
    ]);
    let slow = |_: usize, line: &PlannedLayer| match (op(line), line.scheme) {
        ("Conv", DYNAMIC) => 0.5,
        ("MatMul" | "Gemm", DYNAMIC) => -0.2,
        _ => 0.0,
    };
    let (found, told) = quickened(&before, true, slow);
    assert_eq!(found.unwrap(), [STORED, STORED, DYNAMIC, STORED, DYNAMIC]);
    assert_eq!(told[0], "all 2 Conv: int8-dynamic -> int8-weights");
    assert_eq!(told.len(), 3, "{told:?}");
}

#[test]
fn small_products_beside_tables_are_stored() {
    // A recommender: tables, and products too small to pay.
    let mut layers = vec![("Gather", STORED); 7];
    layers.extend([("Gemm", DYNAMIC); 2]);
    let slow = |_: usize, line: &PlannedLayer| match line.scheme {
        DYNAMIC => 0.3,
        _ => 0.0,
    };
    let (found, told) = quickened(&plan(&layers), true, slow);
    assert_eq!(found.unwrap(), [STORED; 9]);
    assert_eq!(told[0], "all 2 MatMul and Gemm: int8-dynamic -> int8-weights");
}

#[test]
fn tables_become_float_while_the_model_loads_before_they_are_kept() {
    let before = plan(&[("Gather", STORED), ("Gather", STORED), ("Gemm", STORED)]);
    let slow = |_: usize, line: &PlannedLayer| 0.2 * f64::from(u8::from(is_gathered_as_int8(line)));
    let mut clock = Planted { adds: slow, limit: 1.05, told: Vec::new() };
    let found = quicken(&before, 1.4, true, &mut clock, &Tuning::default()).unwrap().unwrap();
    assert!(found.layers.iter().all(|line| line.scheme == STORED));
    assert_eq!(found.layers.iter().filter(|line| line.at_load).count(), 2);
    assert_eq!(clock.told[0], "all 2 Gather: int8-weights -> int8-weights, float at load");
    // What is kept is not marked.
    let slower = |_: usize, line: &PlannedLayer| match (op(line), line.scheme) {
        ("Gather", STORED) => 0.2,
        _ => 0.0,
    };
    let mut clock = Planted { adds: slower, limit: 1.05, told: Vec::new() };
    let found = quicken(&before, 1.4, true, &mut clock, &Tuning::default()).unwrap().unwrap();
    assert!(found.layers.iter().all(|line| !line.at_load), "{found:?}");
}

#[test]
fn tables_that_are_slow_are_kept_one_by_one() {
    // One of eight is slow: halves find it, and the others stay stored.
    let layers = [vec![("Gather", STORED); 8], vec![("Gemm", STORED); 2]].concat();
    let slow = |at: usize, line: &PlannedLayer| match (at, line.scheme) {
        (5, STORED) => 0.4,
        _ => 0.0,
    };
    let (found, _) = quickened(&plan(&layers), true, slow);
    let mut expected = vec![STORED; 10];
    expected[5] = KEEP;
    assert_eq!(found.unwrap(), expected);
    // The same without another form.
    let (found, _) = quickened(&plan(&layers[..8]), true, slow);
    assert_eq!(found.unwrap(), expected[..8]);
}

#[test]
fn forms_that_are_slow_together_go_down_together() {
    let before =
        plan(&[("Conv", DYNAMIC), ("MatMul", DYNAMIC), ("Gather", STORED), ("Gather", STORED)]);
    let slow = |_: usize, line: &PlannedLayer| match (op(line), line.scheme) {
        (_, DYNAMIC) => 0.3,
        ("Gather", STORED) => 0.1,
        _ => 0.0,
    };
    // Dynamic products alone are not enough, and both tables are too slow.
    let (found, told) = quickened(&before, true, slow);
    assert_eq!(found.unwrap(), [STORED, STORED, KEEP, KEEP], "{told:?}");
}

#[test]
fn if_nothing_helps_everything_is_kept() {
    let before = plan(&[("Conv", DYNAMIC), ("Gather", STORED)]);
    let slow = |_: usize, line: &PlannedLayer| f64::from(u8::from(line.scheme != KEEP));
    assert_eq!(quickened(&before, true, slow).0.unwrap(), [KEEP, KEEP]);
    assert_eq!(quickened(&before, false, slow).0, None);
    // Measuring is bounded, however many layers there are.
    let many = plan(&vec![("Gather", STORED); 200]);
    let (found, told) =
        quickened(&many, true, |_, line| 0.02 * f64::from(u8::from(line.scheme != KEEP)));
    assert_eq!(found.unwrap(), vec![KEEP; 200]);
    assert!(told.len() <= Tuning::default().most_trials, "{told:?}");
}

#[test]
fn what_cannot_be_measured_is_no_plan() {
    struct Broken;
    impl Clock for Broken {
        fn time(&mut self, _: &ExplainedPlan, _: &str) -> Result<Timed, TrialError> {
            Err(TrialError::Refused("it does not run".to_owned()))
        }
        fn is_over(&self) -> bool {
            false
        }
    }
    let before = plan(&[("Conv", DYNAMIC), ("Gather", STORED)]);
    let tuning = Tuning::default();
    assert_eq!(quicken(&before, 2.0, false, &mut Broken, &tuning).unwrap(), None);
    let kept = quicken(&before, 2.0, true, &mut Broken, &tuning).unwrap();
    assert_eq!(kept.unwrap().changed(), 0);
}

#[test]
fn a_full_disk_is_no_slow_plan() {
    struct Full;
    impl Clock for Full {
        fn time(&mut self, _: &ExplainedPlan, _: &str) -> Result<Timed, TrialError> {
            let full = std::io::Error::other("no space left on device");
            Err(TrialError::Environment(full.into()))
        }
        fn is_over(&self) -> bool {
            false
        }
    }
    let before = plan(&[("Conv", DYNAMIC), ("Gather", STORED)]);
    let error = quicken(&before, 2.0, true, &mut Full, &Tuning::default()).unwrap_err();
    assert!(error.to_string().contains("no space left"), "{error}");
}
