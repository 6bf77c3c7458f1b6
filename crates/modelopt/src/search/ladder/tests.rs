//! Problems made of small plans.

use modelopt_graph::{Model, ModelInfo};
use modelopt_rewrite::{Numerics, Prepared};

use super::*;
use crate::search::problem::Step;

/// A plan of layers that have a weight of their own of so many bytes.
fn plan(layers: &[(&str, Scheme, u64)]) -> ExplainedPlan {
    let mut plan = ExplainedPlan::new(Numerics::default());
    for &(id, scheme, bytes) in layers {
        let weights = if bytes > 0 { vec![id.into()] } else { Vec::new() };
        let why = Explanation { bytes, weights, ..Explanation::default() };
        plan.push(PlannedLayer::new(id, scheme), why);
    }
    plan
}

/// A dynamic layer with a noisy activation, a small noisy weight, a large quiet one.
fn int8() -> ExplainedPlan {
    plan(&[
        ("dynamic", Scheme::INT8_DYNAMIC, 1000),
        ("small", Scheme::INT8_WEIGHTS, 100),
        ("large", Scheme::INT8_WEIGHTS, 9000),
    ])
}

/// Fills a ladder where every layer can have every scheme.
fn built(
    plan: &ExplainedPlan,
    objective: Objective,
    fill: impl FnOnce(&mut Builder<'_>),
) -> (Ladder, Problem) {
    let noise = |(layer, weights, activation)| {
        let noise = LayerNoise {
            in_float: None,
            layer,
            weights,
            activation,
            below: vec![(NARROW, weights / 64.0)],
            informed: true,
        };
        (layer, noise)
    };
    let local = [(0, 0.1, Some(8.0)), (1, 4.0, None), (2, 0.5, None)].map(noise).into();
    let work = [("dynamic".to_owned(), 1.0)].into();
    let model = Prepared::new(Model::new(ModelInfo::default()));
    let tuning = Tuning::default();
    let weights = Weights::of(objective, &tuning);
    let mut builder = Builder::new(&model, plan, Known { local, work }, weights, &tuning);
    let names: HashSet<String> = plan.layers.iter().map(|line| line.id.clone()).collect();
    builder.possible = Scheme::all().map(|scheme| (scheme, names.clone())).collect();
    fill(&mut builder);
    (builder.ladder, builder.problem)
}

fn below(plan: &ExplainedPlan, objective: Objective) -> (Ladder, Problem) {
    built(plan, objective, |builder| {
        let groups = culprits::groups(plan, |_| true);
        builder.add_groups(groups);
        builder.add_own_sources();
    })
}

fn schemes(ladder: &Ladder, problem: &Problem, steps: &[Step]) -> Vec<Scheme> {
    let plan = ladder.plan(&problem.selection(steps));
    plan.layers.iter().map(|line| line.scheme).collect()
}

const DYNAMIC: Scheme = Scheme::INT8_DYNAMIC;
const STORED: Scheme = Scheme::INT8_WEIGHTS;
const NARROW: Scheme = Scheme::FP16_WEIGHTS;
const KEEP: Scheme = Scheme::KEEP;

#[test]
fn the_most_noise_for_the_least_cost_comes_first() {
    let plan = int8();
    let (ladder, problem) = below(&plan, Objective::Balanced);
    let steps = problem.steps();
    assert!((steps[0].before - 12.6).abs() < 1e-9);
    assert_eq!(schemes(&ladder, &problem, &steps[..1]), [DYNAMIC, NARROW, STORED]);
    assert_eq!(schemes(&ladder, &problem, &steps), [KEEP; 3]);
    assert!(steps.last().unwrap().excess < 1e-6);
    // Whoever wants a small file gives up time first.
    let (ladder, problem) = below(&plan, Objective::Size);
    let steps = problem.steps();
    assert_eq!(schemes(&ladder, &problem, &steps[..2]), [STORED, NARROW, STORED]);
    // And whoever wants a fast model bytes.
    let (ladder, problem) = below(&plan, Objective::Latency);
    let steps = problem.steps();
    let first = (1..steps.len())
        .map(|count| schemes(&ladder, &problem, &steps[..count]))
        .find(|schemes| schemes[0] != DYNAMIC || schemes[2] != STORED);
    let first = first.unwrap();
    assert_eq!((first[0], first[2]), (DYNAMIC, NARROW));
}

#[test]
fn a_move_costs_what_it_adds() {
    let (_, problem) = below(&int8(), Objective::Balanced);
    let of = |item: usize| problem.items[item].costs.clone();
    // What the dynamic layer computes in, then its weights.
    assert_eq!(of(0), [0.0, 1.0]);
    let share = 1000.0 / 10100.0;
    let near = |cost: f64, expected: f64| (cost - expected).abs() < 1e-12;
    assert!(near(of(1)[1], 0.25 * share) && near(of(1)[2], 0.75 * share), "{:?}", of(1));
}

#[test]
fn a_plan_has_the_moves_and_no_refinement_without_use() {
    let mut plan = int8();
    plan.layers[0].smoothing = vec![2.0];
    plan.layers[1].bias_correction = vec![1.0];
    let (ladder, _) = below(&plan, Objective::Balanced);
    // Items: the first's computing and weights, the second's weights, the third's.
    let narrow = ladder.plan(&Selection(vec![0, 0, 1, 0]));
    assert_eq!(narrow.layers[1].scheme, NARROW);
    assert_eq!(narrow.why(1).reason, "as int8 it costs more than the limit");
    assert!(narrow.layers[1].bias_correction.is_empty());
    assert_eq!(narrow.layers[0].smoothing, [2.0]);
    let stored = ladder.plan(&Selection(vec![1, 0, 1, 0]));
    assert_eq!(stored.layers[0].scheme, STORED);
    assert!(stored.layers[0].smoothing.is_empty());
    assert_eq!(ladder.moved(&Selection(vec![1, 0, 1, 0])), 2);
    assert_eq!(ladder.name(&Move { to: vec![(2, 1)] }), "small");
}

#[test]
fn switches_are_taken_for_what_they_are_of() {
    let (ladder, _) = below(&int8(), Objective::Balanced);
    let weight = |name: &str, layer| Switch::Weight { weight: name.into(), layers: vec![layer] };
    let switches = [Switch::Activation { layer: 0 }, weight("dynamic", 0), weight("large", 2)];
    // Weights and activation of the first, then the others; what has no switch is silent.
    assert_eq!(ladder.noises(&switches, &[3.0, 1.0, 0.5]), [1.0, 3.0, 0.0, 0.5]);
}

#[test]
fn layers_that_share_a_weight_go_together() {
    let mut plan = int8();
    plan.line_mut(2).1.weights = vec!["small".into()];
    let (ladder, problem) = below(&plan, Objective::Balanced);
    assert_eq!(problem.items.len(), 3);
    let kept = ladder.plan(&Selection(vec![0, 0, 2]));
    assert_eq!(kept.layers[1].scheme, KEEP);
    assert_eq!(kept.layers[2].scheme, KEEP);
    assert_eq!(kept.layers[0].scheme, DYNAMIC);
}

#[test]
fn what_computes_in_sixteen_bits_goes_down_by_the_values_between() {
    let fp16 = Scheme::FP16;
    let plan = plan(&[("a", fp16, 8192), ("b", fp16, 0), ("c", fp16, 100)]);
    let switches = [
        Switch::Rounding { layers: vec![0, 1] },
        Switch::Rounding { layers: vec![1, 2] },
        Switch::Weight { weight: "a".into(), layers: vec![0] },
        Switch::Weight { weight: "c".into(), layers: vec![2] },
    ];
    let (ladder, mut problem) = built(&plan, Objective::Balanced, |builder| {
        builder.by_switch = true;
        builder.add_groups(culprits::groups(&plan, |why| why.bytes >= 4096));
        builder.add_switches(&switches);
    });
    assert!(ladder.by_switch());
    let noises = ladder.noises(&switches, &[9.0, 0.1, 0.1, 0.1]);
    assert_eq!(noises, [9.0, 0.1, 0.1, 0.1]);
    problem.measured(&noises, true);
    let steps = problem.steps();
    // Both that touch the loud value compute in float32; large weights stay stored.
    assert_eq!(schemes(&ladder, &problem, &steps[..1]), [NARROW, KEEP, fp16]);
    assert_eq!(schemes(&ladder, &problem, &steps), [KEEP; 3]);
    let lower = ladder.plan(&problem.selection(&steps[..1]));
    let reason = &lower.why(0).reason;
    assert!(reason.ends_with("its weights alone do not"), "{reason}");
}

#[test]
fn weights_in_sixteen_bits_are_kept_one_by_one() {
    let plan = plan(&[("a", NARROW, 8192), ("b", NARROW, 16384)]);
    let (ladder, problem) = below(&plan, Objective::Balanced);
    assert_eq!(problem.items.len(), 2);
    let kept = ladder.plan(&Selection(vec![1, 0]));
    assert_eq!((kept.layers[0].scheme, kept.layers[1].scheme), (KEEP, NARROW));
    assert_eq!(kept.why(0).reason, "in 16 bits it costs more than the limit");
}

#[test]
fn the_noisiest_group_is_described_first() {
    let plan = int8();
    let (ladder, problem) = below(&plan, Objective::Balanced);
    let limits = Limits { min_sqnr_db: Some(20.0), ..Limits::default() };
    let described = ladder.described(&problem, &limits, true);
    assert_eq!(described[0].layers, ["dynamic"]);
    let alone = described[0].alone_db.unwrap();
    assert!((alone - (20.0 - 10.0 * 8.1f64.log10())).abs() < 1e-9, "{alone}");
    assert!(ladder.described(&problem, &limits, false)[0].alone_db.is_none());
}
