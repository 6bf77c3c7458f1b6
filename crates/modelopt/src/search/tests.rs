//! The search on planted worlds.

use super::evaluator::{End, Evaluation, Why};
use super::planted::{Planted, added};
use super::problem::Selection;
use super::tuning::Descent;
use crate::trial_error::TrialError;

fn crash() -> TrialError {
    TrialError::Crashed("the worker was killed".to_owned())
}

fn refusal() -> TrialError {
    TrialError::Refused("no kernel for it".to_owned())
}

fn full_disk() -> TrialError {
    TrialError::Environment(std::io::Error::other("no space left on device").into())
}

/// Many equal noises that add up to so much.
fn even(count: usize, total: f64) -> Planted {
    Planted::of(&vec![(total / count as f64, 1.0 / count as f64); count])
}

fn down(found: &Selection) -> Vec<usize> {
    (0..found.0.len()).filter(|&at| found.0[at] > 0).collect()
}

#[test]
fn the_one_loud_source_goes_down_and_no_other() {
    let mut world = Planted::of(&[(0.1, 0.1), (9.0, 0.1), (0.1, 0.1), (0.1, 0.1)]);
    let found = world.search().unwrap();
    assert_eq!((found.end, found.passes), (End::Found, true));
    assert_eq!(down(&found.selection), [1]);
    assert!(world.told.len() <= 2, "{:?}", world.told);
}

#[test]
fn noise_that_adds_up_goes_down_as_far_as_it_must() {
    let mut world = even(100, 4.0);
    let found = world.search().unwrap();
    assert!(found.passes);
    // A quarter may stay; a search does not go much further.
    let moved = down(&found.selection).len();
    assert!((75..=80).contains(&moved), "{moved}");
}

#[test]
fn a_large_source_is_rid_of_before_many_small_ones() {
    let mut world = Planted::of(&[(1.0, 0.3), (1.0, 0.01), (0.3, 0.3), (0.2, 0.3)]);
    let found = world.search().unwrap();
    assert!(found.passes);
    assert!(found.selection.0[1] == 1 && world.cost(&found.selection) <= 0.32, "{found:?}");
}

#[test]
fn cheap_moves_come_before_dear_ones_of_the_same_noise() {
    let mut world = Planted::of(&[(1.0, 0.5), (1.0, 0.05), (0.5, 0.2)]);
    let found = world.search().unwrap();
    assert!(found.passes);
    assert!(found.selection.0[1] == 1, "{found:?}");
}

#[test]
fn noise_that_cancels_is_believed_when_it_is_run() {
    // Two errors of opposite sign: together they are little.
    fn cancelling(noises: &[f64]) -> f64 {
        (noises[0].sqrt() - noises[1].sqrt()).powi(2) + noises[2..].iter().sum::<f64>()
    }
    let mut world = Planted::of(&[(4.0, 0.2), (4.0, 0.2), (2.0, 0.1), (0.1, 0.3)]);
    world.sum = cancelling;
    let found = world.search().unwrap();
    // Predictions do not know of it; either both of them stay or none.
    assert!(found.passes && world.truth(&found.selection).passes);
    assert!(found.selection.0[0] == found.selection.0[1] && found.selection.0[2] == 1);
}

#[test]
fn what_is_worse_once_its_opposite_is_gone_is_moved_as_well() {
    fn cancelling(noises: &[f64]) -> f64 {
        (noises[0].sqrt() - noises[1].sqrt()).powi(2) + noises[2..].iter().sum::<f64>()
    }
    let mut world = Planted::of(&[(9.0, 0.01), (4.0, 0.2), (0.1, 0.1)]);
    world.sum = cancelling;
    // The first alone makes it worse than it was.
    let found = world.search().unwrap();
    assert!(found.passes, "{:?}", world.told);
    assert_eq!(found.selection.0[..2], [1, 1]);
}

#[test]
fn noise_that_grows_faster_than_it_adds_up_takes_larger_batches() {
    fn squared(noises: &[f64]) -> f64 {
        2.0 * added(noises).powi(2)
    }
    let mut world = even(40, 4.0);
    world.sum = squared;
    let found = world.search().unwrap();
    assert!(found.passes);
    assert!(world.told.len() < 20, "{:?}", world.told.len());
}

#[test]
fn noise_that_is_less_than_its_parts_does_not_send_everything_down() {
    fn less(noises: &[f64]) -> f64 {
        added(noises) * 0.3
    }
    let mut world = even(60, 6.0);
    world.sum = less;
    let found = world.search().unwrap();
    assert!(found.passes);
    let moved = down(&found.selection).len();
    // 27 are enough: 0.3 of 3.3 is 1.
    assert!((27..=31).contains(&moved), "{moved}");
}

#[test]
fn a_source_that_says_nothing_alone_is_found_by_going_on() {
    // What is left is held up by a part that was quiet on the sample that was probed.
    let noise = [vec![6.0, 0.0], vec![0.0, 5.0], vec![0.1, 0.1]];
    let mut world = Planted::on_samples(&noise, &[0.1, 0.1, 0.1]);
    let found = world.search().unwrap();
    assert!(found.passes);
    assert_eq!(down(&found.selection), [0, 1]);
    assert_eq!(world.probed, [0, 1], "the sample that was worst next is probed as well");
}

#[test]
fn no_more_samples_are_probed_than_tell_moves_apart() {
    let noise: Vec<Vec<f64>> =
        (0..8).map(|at| (0..8).map(|s| if at == s { 5.0 } else { 0.01 }).collect()).collect();
    let mut world = Planted::on_samples(&noise, &[0.05; 8]);
    let found = world.search().unwrap();
    assert!(found.passes, "{found:?}");
    assert_eq!(world.probed.len(), Descent::default().most_probed);
}

#[test]
fn a_sample_is_probed_once() {
    let mut world = even(50, 20.0);
    world.sum = |noises| added(noises) * 3.0;
    world.search().unwrap();
    assert_eq!(world.probed, [0]);
}

#[test]
fn nothing_is_tried_twice() {
    let mut world = even(30, 3.0);
    world.search().unwrap();
    let mut seen: Vec<&Selection> = world.told.iter().map(|(selection, ..)| selection).collect();
    let all = seen.len();
    seen.sort_by_key(|selection| selection.0.clone());
    seen.dedup();
    assert_eq!(seen.len(), all);
}

#[test]
fn the_same_world_gives_the_same_trials() {
    let run = || {
        let mut world = even(33, 5.0);
        world.noise[7][0] = 2.0;
        let found = world.search().unwrap();
        (found.selection, world.told)
    };
    assert_eq!(run(), run());
}

#[test]
fn equal_moves_are_made_in_their_order() {
    let mut world = even(10, 10.0);
    let found = world.search().unwrap();
    assert_eq!(down(&found.selection), (0..9).collect::<Vec<_>>());
}

#[test]
fn out_of_trials_ends_with_the_nearest() {
    let mut world = even(1000, 400.0);
    world.sum = |noises| 2.0 + added(noises);
    world.trials = 1;
    let found = world.search().unwrap();
    assert_eq!((found.end, found.passes), (End::OutOfTrials, false));
    let nearest = world.told.iter().min_by(|a, b| a.2.excess.total_cmp(&b.2.excess)).unwrap();
    assert_eq!(found.selection, nearest.0);
    assert_eq!(world.told.len(), 1);
}

#[test]
fn no_trials_leave_it_where_it_was() {
    let mut world = even(10, 5.0);
    world.trials = 0;
    let found = world.search().unwrap();
    assert_eq!((found.end, found.passes), (End::OutOfTrials, false));
    assert_eq!(found.selection, world.problem.start());
}

#[test]
fn out_of_trials_on_the_way_back_keeps_what_passes() {
    let mut world = even(64, 8.0);
    world.sum = |noises| added(noises) * 0.5;
    world.trials = 2;
    let found = world.search().unwrap();
    assert_eq!((found.end, found.passes), (End::OutOfTrials, true));
}

#[test]
fn out_of_time_ends_with_the_best_so_far() {
    let mut world = even(64, 8.0);
    world.sum = |noises| added(noises) * 0.5;
    world.ends = Some((1, End::OutOfTime));
    let found = world.search().unwrap();
    assert_eq!((found.end, found.passes), (End::OutOfTime, true));
    assert_eq!(world.told.len(), 1);
}

#[test]
fn time_that_is_over_at_once_is_no_trial() {
    let mut world = even(8, 8.0);
    world.ends = Some((0, End::OutOfTime));
    let found = world.search().unwrap();
    assert_eq!((found.end, found.passes), (End::OutOfTime, false));
    assert!(world.told.is_empty());
}

#[test]
fn whoever_stops_it_gets_the_best_so_far() {
    let mut world = even(64, 8.0);
    world.sum = |noises| added(noises) * 0.5;
    world.ends = Some((2, End::Stopped));
    let found = world.search().unwrap();
    assert_eq!((found.end, found.passes), (End::Stopped, true));
}

#[test]
fn being_stopped_comes_before_being_out_of_trials() {
    let mut world = even(8, 8.0);
    (world.trials, world.ends) = (0, Some((0, End::Stopped)));
    assert_eq!(world.search().unwrap().end, End::Stopped);
}

#[test]
fn a_full_disk_ends_it_with_the_cause() {
    let mut world = even(20, 5.0);
    world.fails.insert(1, full_disk);
    let error = world.search().unwrap_err();
    assert!(error.to_string().contains("no space left"), "{error}");
    assert_eq!(world.told.len(), 1);
}

#[test]
fn a_full_disk_on_the_way_back_ends_it_too() {
    let mut world = even(64, 8.0);
    world.sum = |noises| added(noises) * 0.5;
    world.fails.insert(2, full_disk);
    assert!(world.search().is_err());
}

#[test]
fn a_full_disk_while_probing_ends_it() {
    let mut world = even(20, 5.0);
    world.refuses_probes = Some(full_disk);
    assert!(world.search().is_err());
    assert!(world.told.is_empty());
}

#[test]
fn a_crash_is_a_finding_about_that_plan() {
    let mut world = even(40, 6.0);
    world.fails.insert(1, crash);
    let found = world.search().unwrap();
    assert!(found.passes);
    assert!(world.told.len() > 1);
}

#[test]
fn a_refused_plan_is_no_plan_and_the_search_goes_on() {
    let mut world = even(40, 6.0);
    world.fails.extend([(1, refusal as fn() -> _), (3, crash), (4, refusal)]);
    let found = world.search().unwrap();
    assert!(found.passes);
    assert!(world.truth(&found.selection).passes);
}

#[test]
fn a_plan_that_crashed_is_never_the_best() {
    let mut world = even(4, 6.0);
    world.fails.extend((1..=24).map(|trial| (trial, crash as fn() -> _)));
    let found = world.search().unwrap();
    assert!(!found.passes);
    assert_eq!(found.selection, world.problem.start());
}

#[test]
fn what_failed_says_nothing_of_samples() {
    let mut world = Planted::on_samples(&vec![vec![1.0, 2.0]; 10], &[0.1; 10]);
    world.fails.insert(1, crash);
    world.search().unwrap();
    assert_eq!(world.probed, [1]);
}

#[test]
fn a_start_that_does_not_run_is_left_for_one_that_does() {
    let mut world = even(10, 3.0);
    let found = world.search_after(Evaluation::FAILED).unwrap();
    assert!(found.passes);
}

#[test]
fn without_switches_assumptions_are_put_to_scale() {
    let mut world = even(100, 50.0);
    world.refuses_probes = Some(refusal);
    let found = world.search().unwrap();
    assert!(found.passes);
    assert_eq!(found.unmeasured.as_deref(), Some("no kernel for it"));
    // 98 have to go, and the first batch knows.
    assert!(down(&world.told[0].0).len() >= 98 && world.told[0].2.passes);
}

#[test]
fn what_was_assumed_is_replaced_by_what_was_measured() {
    let mut world = Planted::of(&[(0.5, 0.1), (6.0, 0.1)]);
    world.problem.sources[0].noise = vec![100.0];
    let found = world.search().unwrap();
    assert_eq!(down(&found.selection), [1]);
    assert_eq!(found.problem.sources[0].noise, [0.5]);
}

#[test]
fn what_cannot_pass_is_impossible() {
    let mut world = even(6, 5.0);
    world.sum = |noises| 2.0 + added(noises);
    let found = world.search().unwrap();
    assert_eq!((found.end, found.passes), (End::Impossible, false));
    assert_eq!(down(&found.selection).len(), 6, "the nearest is where nothing is left");
}

#[test]
fn a_problem_without_moves_is_impossible() {
    let mut world = Planted::of(&[]);
    world.noise = vec![vec![3.0]];
    let found = world.search_after(Evaluation { excess: 3.0, ..Evaluation::FAILED }).unwrap();
    assert_eq!((found.end, found.passes), (End::Impossible, false));
}

#[test]
fn too_little_left_is_no_result() {
    let mut world = even(10, 100.0);
    world.problem.least = 5.0;
    let found = world.search().unwrap();
    assert_eq!((found.end, found.passes), (End::Impossible, false));
    assert!(world.told.iter().all(|(selection, ..)| down(selection).len() <= 5));
}

#[test]
fn nothing_to_gain_costs_no_more_than_the_way_down() {
    // One move that is worth no trial of its own.
    let mut world = Planted::of(&[(3.0, 0.001), (0.1, 0.5)]);
    let found = world.search().unwrap();
    assert!(found.passes);
    assert_eq!(world.told.len(), 1);
}

#[test]
fn bisection_comes_back_from_a_batch_that_was_too_large() {
    // Predictions are ten times too high.
    let mut world = even(100, 20.0);
    world.sum = |noises| added(noises) * 0.1;
    world.noise[0][0] = 10.0;
    let found = world.search().unwrap();
    assert!(found.passes);
    let moved = down(&found.selection).len();
    assert!(moved <= 55, "{moved}");
    assert!(world.told.iter().any(|(_, why, _)| matches!(why, Why::Back(_))));
}

#[test]
fn a_plan_that_nearly_passes_is_reached_by_single_moves() {
    // The last of the order is dear; a cheaper one further back does as well.
    let mut sources = vec![(0.4, 0.01); 20];
    sources.extend([(0.6, 0.35), (0.17, 0.12), (0.17, 0.12), (0.3, 0.25)]);
    let mut world = Planted::of(&sources);
    world.sum = |noises| added(noises) * 0.9;
    let found = world.search().unwrap();
    assert!(found.passes);
    let best = world.cost(&found.selection);
    assert!(best <= 0.2 + 0.36, "{best} {:?}", world.told.len());
}

#[test]
fn a_dear_move_without_use_is_taken_back() {
    // Predicted to be loud, and silent in truth.
    fn without_the_first(noises: &[f64]) -> f64 {
        added(&noises[1..])
    }
    let mut world = Planted::of(&[(50.0, 0.4), (2.0, 0.05), (0.2, 0.05)]);
    world.sum = without_the_first;
    let found = world.search().unwrap();
    assert!(found.passes);
    assert_eq!(down(&found.selection), [1]);
}

#[test]
fn only_so_many_moves_are_tried_to_be_taken_back() {
    let mut world = even(100, 3.0);
    world.trials = 1000;
    world.search().unwrap();
    let back = world.told.iter().filter(|(_, why, _)| matches!(why, Why::Undone(_))).count();
    assert!(back <= Descent::default().most_taken_back, "{back}");
}

#[test]
fn taking_back_never_ends_with_what_fails() {
    for total in [1.2, 1.7, 2.5, 4.0, 9.0, 30.0] {
        for count in [1, 2, 3, 7, 20] {
            let mut world = even(count, total);
            let found = world.search().unwrap();
            assert!(found.passes && world.truth(&found.selection).passes, "{total} {count}");
        }
    }
}

#[test]
fn a_metric_has_the_last_word() {
    let mut world = even(50, 10.0);
    world.metric = Some(0.2);
    let found = world.search().unwrap();
    assert!(found.passes);
    assert!(world.truth(&found.selection).excess <= 0.2);
}

#[test]
fn a_metric_that_lets_everything_pass_does_not_go_further_than_parity() {
    let mut world = even(50, 10.0);
    world.metric = Some(1.0);
    let found = world.search().unwrap();
    assert!(found.passes);
    assert!((45..=48).contains(&down(&found.selection).len()), "{found:?}");
}

#[test]
fn what_a_metric_refuses_is_nearer_than_what_it_was_not_asked_about() {
    let mut world = even(50, 10.0);
    world.metric = Some(-1.0);
    let found = world.search().unwrap();
    assert!(!found.passes);
    assert!(world.truth(&found.selection).excess <= 1.0, "{found:?}");
}

#[test]
fn a_metric_halves_the_noise_first() {
    let mut world = even(100, 1.0);
    world.metric = Some(0.4);
    world.search().unwrap();
    assert_eq!(down(&world.told[0].0).len(), 50);
}

#[test]
fn fewer_bisections_are_made_where_the_tuning_says_so() {
    let count = |bisections: usize| {
        let mut world = even(200, 60.0);
        world.sum = |noises| added(noises) * 0.2;
        world.tuning = Descent { bisections, most_taken_back: 0, ..Descent::default() };
        world.search().unwrap();
        world.told.iter().filter(|(_, why, _)| matches!(why, Why::Back(_))).count()
    };
    assert_eq!(count(0), 0);
    assert!(count(2) <= 2 && count(5) > count(1));
}

#[test]
fn infinite_noise_is_only_very_loud() {
    let mut world = Planted::of(&[(f64::INFINITY, 0.1), (2.0, 0.1), (f64::NAN, 0.1)]);
    world.sum = |noises| if added(noises).is_finite() { added(noises) } else { 1e9 };
    let found =
        world.search_after(Evaluation { excess: 1e9, worst: Some(0), ..Evaluation::FAILED });
    let found = found.unwrap();
    let noises: Vec<f64> = found.problem.sources.iter().map(|s| s.noise[0]).collect();
    assert!(noises.iter().all(|noise| noise.is_finite()), "{noises:?}");
    assert!(found.problem.steps().iter().all(|step| step.excess.is_finite()));
}
