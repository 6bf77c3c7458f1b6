//! The edges of problems: nothing to move, ties, noise that is no number.

use super::*;

fn item(costs: &[f64], share: f64) -> Item {
    Item { costs: costs.to_vec(), share }
}

/// Items of two levels, with a source and a move for each.
fn apart(noises: &[f64], costs: &[f64]) -> Problem {
    let source = |(at, &noise): (usize, &f64)| Source {
        scaled: Vec::new(),
        noise: vec![noise],
        left: vec![(at, vec![1.0, 0.0])],
    };
    Problem {
        items: costs.iter().map(|&cost| item(&[0.0, cost], 1.0)).collect(),
        sources: noises.iter().enumerate().map(source).collect(),
        moves: (0..costs.len()).map(|at| Move { to: vec![(at, 1)] }).collect(),
        every_move: 0.0,
        least: 0.0,
    }
}

fn order(problem: &Problem) -> Vec<usize> {
    problem.steps().iter().map(|step| step.of).collect()
}

#[test]
fn nothing_has_no_steps() {
    let problem = Problem::default();
    assert!(problem.steps().is_empty() && problem.start().0.is_empty());
    assert_eq!(problem.selection(&[]), Selection(Vec::new()));
    assert!(problem.is_worthwhile(&problem.start()));
    // Moves that take nothing down are none.
    let mut idle = apart(&[1.0], &[0.1]);
    idle.moves = vec![Move::default(), Move { to: vec![(0, 0)] }];
    assert!(idle.steps().is_empty());
}

#[test]
fn equal_worth_goes_by_place() {
    assert_eq!(order(&apart(&[1.0; 4], &[0.1; 4])), [0, 1, 2, 3]);
    assert_eq!(order(&apart(&[1.0, 2.0, 1.0], &[0.1, 0.2, 0.1])), [0, 1, 2]);
    assert_eq!(order(&apart(&[1.0, 9.0, 1.0], &[0.1; 3])), [1, 0, 2]);
}

#[test]
fn what_is_free_comes_first_and_silent_moves_last() {
    assert_eq!(order(&apart(&[1.0, 1.0, 0.0], &[0.5, 0.0, 1e-9])), [1, 0, 2]);
    let problem = apart(&[0.0; 3], &[0.1; 3]);
    assert_eq!(order(&problem).len(), 3, "all of them go down in the end");
    assert!(problem.steps().iter().all(|step| step.gain() == 0.0));
}

#[test]
fn noise_counts_on_the_sample_where_there_is_most_of_it() {
    let mut problem = apart(&[0.0, 0.0], &[0.1, 0.1]);
    problem.sources[0].noise = vec![1.0, 0.0];
    problem.sources[1].noise = vec![0.9, 5.0];
    assert_eq!(order(&problem), [1, 0]);
    let steps = problem.steps();
    // The worst sample is another one once the first move is made.
    assert!((steps[0].before - 5.0).abs() < 1e-9 && (steps[0].excess - 1.0).abs() < 1e-6);
}

#[test]
fn every_step_takes_no_less_than_nothing() {
    let problem = apart(&[1e15, 1.0, 1e-15, 3.0], &[0.1, 0.2, 0.3, 0.4]);
    for step in problem.steps() {
        assert!(step.excess <= step.before && step.gain() >= 0.0, "{step:?}");
        assert!(step.excess.is_finite() && step.cost > 0.0);
    }
    assert!((cost(&problem.steps()) - 1.0).abs() < 1e-12);
}

#[test]
fn what_was_assumed_goes_with_the_first_measurement() {
    let mut problem = apart(&[7.0, 7.0], &[0.1, 0.1]);
    problem.measured(&[1.0, 2.0], true);
    problem.measured(&[3.0, 4.0], false);
    assert_eq!(problem.sources[0].noise, [1.0, 3.0]);
    assert_eq!(problem.sources[1].noise, [2.0, 4.0]);
    // Sources that nothing was said of keep what they had.
    problem.measured(&[9.0], true);
    assert_eq!((&problem.sources[0].noise[..], problem.sources[1].noise.len()), (&[9.0][..], 2));
}

#[test]
fn noise_that_is_no_number_is_as_loud_as_can_be() {
    let mut problem = apart(&[1.0; 4], &[0.1; 4]);
    problem.measured(&[f64::NAN, f64::INFINITY, -1.0, f64::NEG_INFINITY], true);
    let noises: Vec<f64> = problem.sources.iter().map(|source| source.noise[0]).collect();
    assert_eq!(noises, [LOUDEST, LOUDEST, 0.0, 0.0]);
}

#[test]
fn noises_are_put_to_the_scale_of_what_was_seen() {
    let mut problem = apart(&[1.0, 3.0], &[0.1, 0.1]);
    problem.scale(8.0);
    assert!((problem.sources[0].noise[0] - 2.0).abs() < 1e-12);
    assert!((problem.steps()[0].before - 8.0).abs() < 1e-9);
    // What was not seen says nothing, and what is silent stays so.
    for excess in [f64::INFINITY, f64::NAN] {
        let before = problem.sources[0].noise.clone();
        problem.scale(excess);
        assert_eq!(problem.sources[0].noise, before);
    }
    let mut silent = apart(&[0.0], &[0.1]);
    silent.scale(5.0);
    assert_eq!(silent.sources[0].noise, [0.0]);
}

#[test]
fn enough_has_to_stay_on_the_first_level() {
    let mut problem = apart(&[1.0; 3], &[0.1; 3]);
    (problem.items[0].share, problem.least) = (5.0, 6.0);
    let worthwhile = |levels: [usize; 3]| problem.is_worthwhile(&Selection(levels.to_vec()));
    assert!(worthwhile([0, 0, 0]) && worthwhile([0, 1, 0]));
    assert!(!worthwhile([1, 0, 0]) && !worthwhile([0, 1, 1]));
}

#[test]
fn a_selection_never_takes_anything_back_up() {
    let mut problem = apart(&[1.0], &[0.1]);
    problem.items[0] = item(&[0.0, 0.1, 0.2], 1.0);
    problem.moves = vec![Move { to: vec![(0, 2)] }, Move { to: vec![(0, 1)] }];
    let step = |of: usize| Step { of, cost: 0.0, before: 1.0, excess: 0.5 };
    assert_eq!(problem.selection(&[step(0), step(1)]), Selection(vec![2]));
    assert!(problem.needs(&step(0), &step(1)) && !problem.needs(&step(1), &step(0)));
    // A move that is none is no reason to panic.
    assert_eq!(problem.selection(&[step(7)]), problem.start());
}
