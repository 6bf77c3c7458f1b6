//! The edges of making plans faster: nothing to move, no time, ties, and what cannot be measured in the
//! middle.

use modelopt_rewrite::Numerics;

use super::*;

const DYNAMIC: Scheme = Scheme::INT8_DYNAMIC;
const STORED: Scheme = Scheme::INT8_WEIGHTS;

/// How slow a plan is, or why nobody can tell.
type Answer = fn() -> Result<f64, TrialError>;

/// Says how slow plans are, one after the other, and is over after so many.
struct Script {
    answers: Vec<Answer>,
    told: Vec<String>,
    most: usize,
}

impl Script {
    fn of(answers: &[Answer]) -> Self {
        Script { answers: answers.to_vec(), told: Vec::new(), most: usize::MAX }
    }
}

impl Clock for Script {
    fn time(&mut self, _: &ExplainedPlan, what: &str) -> Result<Timed, TrialError> {
        let at = self.told.len().min(self.answers.len() - 1);
        self.told.push(what.to_owned());
        (self.answers[at])().map(|slowdown| Timed { slowdown, passes: slowdown <= 1.05 })
    }

    fn is_over(&self) -> bool {
        self.told.len() >= self.most
    }
}

fn plan(layers: &[(&str, Scheme)]) -> ExplainedPlan {
    let mut plan = ExplainedPlan::new(Numerics::default());
    for (at, &(op, scheme)) in layers.iter().enumerate() {
        let why = Explanation { op: op.to_owned(), ..Explanation::default() };
        plan.push(PlannedLayer::new(format!("{op}{at}"), scheme), why);
    }
    plan
}

fn quickened(
    before: &ExplainedPlan,
    keep: bool,
    script: &mut Script,
) -> Result<Option<ExplainedPlan>, Error> {
    quicken(before, 2.0, keep, script, &Tuning::default())
}

const SLOW: Answer = || Ok(2.0);
const QUICK: Answer = || Ok(0.9);
const CRASHED: Answer = || Err(TrialError::Crashed("it was killed".to_owned()));

#[test]
fn a_plan_that_changes_nothing_is_not_measured() {
    for before in [plan(&[]), plan(&[("Conv", Scheme::KEEP)])] {
        let mut script = Script::of(&[QUICK]);
        assert_eq!(quickened(&before, false, &mut script).unwrap(), None);
        let kept = quickened(&before, true, &mut script).unwrap();
        assert!(kept.is_none_or(|plan| plan == before) && script.told.is_empty());
    }
}

#[test]
fn one_layer_that_is_only_stored_is_kept_without_measuring_what_the_original_takes() {
    let before = plan(&[("Conv", STORED)]);
    let mut script = Script::of(&[SLOW]);
    let found = quickened(&before, true, &mut script).unwrap().unwrap();
    assert!(found.changed() == 0 && script.told.is_empty(), "{:?}", script.told);
    assert_eq!(quickened(&before, false, &mut script).unwrap(), None);
}

#[test]
fn without_time_nothing_is_measured_and_everything_is_kept() {
    let before = plan(&[("Conv", DYNAMIC), ("Gather", STORED)]);
    let mut script = Script { most: 0, ..Script::of(&[QUICK]) };
    let found = quickened(&before, true, &mut script).unwrap().unwrap();
    assert!(found.changed() == 0 && script.told.is_empty());
    assert_eq!(quickened(&before, false, &mut script).unwrap(), None);
}

#[test]
fn no_trials_are_no_time() {
    let before = plan(&[("Conv", DYNAMIC)]);
    let tuning = Tuning { most_trials: 0, ..Tuning::default() };
    let mut script = Script::of(&[QUICK]);
    let found = quicken(&before, 2.0, false, &mut script, &tuning).unwrap();
    assert!(found.is_none() && script.told.is_empty());
}

#[test]
fn time_that_ends_on_the_way_back_leaves_the_plan_that_passes() {
    let before = plan(&[("Conv", DYNAMIC), ("Conv", DYNAMIC)]);
    let mut script = Script { most: 1, ..Script::of(&[QUICK]) };
    let found = quickened(&before, true, &mut script).unwrap().unwrap();
    assert!(found.layers.iter().all(|line| line.scheme == STORED));
    assert_eq!(script.told.len(), 1);
}

#[test]
fn what_crashes_in_the_middle_is_passed_over() {
    // Convolutions alone cannot be measured, products alone are enough.
    let before = plan(&[("Conv", DYNAMIC), ("MatMul", DYNAMIC)]);
    let mut script = Script::of(&[CRASHED, QUICK]);
    let found = quickened(&before, true, &mut script).unwrap().unwrap();
    assert_eq!((found.layers[0].scheme, found.layers[1].scheme), (DYNAMIC, STORED));
    // On the way back as well: what cannot be measured is not taken back.
    let before = plan(&[("Conv", DYNAMIC), ("Conv", DYNAMIC)]);
    let mut script = Script::of(&[QUICK, CRASHED]);
    let found = quickened(&before, true, &mut script).unwrap().unwrap();
    assert!(found.layers.iter().all(|line| line.scheme == STORED));
}

#[test]
fn what_costs_no_bytes_is_taken_back_only_for_time() {
    let before = plan(&[("Conv", DYNAMIC), ("Conv", DYNAMIC)]);
    let found = |back: Answer| {
        let found = quickened(&before, true, &mut Script::of(&[QUICK, back])).unwrap().unwrap();
        found.layers.iter().filter(|line| line.scheme == DYNAMIC).count()
    };
    assert_eq!(found(QUICK), 0, "it is as fast without");
    assert_eq!(found(|| Ok(0.8)), 1, "the second half would have to be faster still");
    assert_eq!(found(SLOW), 0);
}

#[test]
fn a_form_that_helps_too_little_to_be_noticed_helps_not_at_all() {
    let before = plan(&[("Conv", DYNAMIC), ("MatMul", DYNAMIC), ("Cell", DYNAMIC)]);
    // Conv helps, the others hardly; together they are not enough either.
    let mut script = Script::of(&[|| Ok(1.5), || Ok(1.995), || Ok(1.995), SLOW]);
    quickened(&before, true, &mut script).unwrap();
    let together = &script.told[3];
    assert!(together.contains("Conv") && together.contains("MatMul"), "{:?}", script.told);
}

#[test]
fn forms_that_are_as_suspicious_come_in_the_order_of_the_plan() {
    let before = plan(&[("B", DYNAMIC), ("Gemm", DYNAMIC), ("A", DYNAMIC), ("B", DYNAMIC)]);
    let moves = moves(&before, Stage::Dynamic);
    let forms: Vec<(&str, &[usize])> =
        moves.iter().map(|step| (step.form.as_str(), step.layers.as_slice())).collect();
    assert_eq!(forms, [("MatMul and Gemm", &[1][..]), ("B", &[0, 3]), ("A", &[2])]);
}

#[test]
fn a_move_and_its_undoing_leave_the_plan_as_it_was() {
    let before = plan(&[("Gather", STORED), ("Gather", STORED), ("Conv", DYNAMIC)]);
    for stage in Stage::ALL {
        for step in moves(&before, stage) {
            let after = step.apply(&before);
            assert_ne!(after, before);
            assert_eq!(step.undo(&after, &before), before);
            let halves = step.halves();
            let parts: Vec<usize> = halves.iter().flat_map(|half| half.layers.clone()).collect();
            assert!(halves.is_empty() || parts == step.layers);
        }
    }
}
