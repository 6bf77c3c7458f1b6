//! What layers cost in a planted runtime.

use std::time::Instant;

use modelopt_rewrite::{Explanation, Numerics, PlannedLayer};

use super::*;
use crate::budget::Stop;
use crate::target::planted::{self, Planted, SWITCHES, samples, sum};
use crate::testing::{Bed, Layer};

fn bed() -> Bed {
    Bed::of(&[Layer::Even; 3], 20.0)
}

/// The layers of an int8 plan as they are ranked on two samples, with what the whole gains without each.
fn ranking(
    runtime: &Planted,
    seconds: Option<f64>,
) -> Result<Vec<report::Sensitivity>, TrialError> {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    bed.prove_in(runtime, samples(2), |prover| {
        let budget = Budget::new(Instant::now(), seconds, Stop::default());
        ranked(&prover, &plan, &Seen::default(), &budget, &mut |_| {})
    })
}

fn names(entries: &[report::Sensitivity]) -> Vec<&str> {
    entries.iter().map(|entry| entry.layers[0].as_str()).collect()
}

#[test]
fn what_the_whole_gains_most_by_comes_first() {
    let found = ranking(&Planted::switched(&[0.1, 0.2, 0.01]), None).unwrap();
    assert_eq!(names(&found), ["product1", "product0", "product2"]);
    let alone: Vec<f64> = found.iter().filter_map(|entry| entry.alone_db).collect();
    for (alone, expected) in alone.iter().zip([0.2f64, 0.1, 0.01]) {
        assert!((alone + 20.0 * expected.log10()).abs() < 0.05, "{alone}");
    }
    let gained: Vec<f64> = found.iter().filter_map(|entry| entry.gained_db).collect();
    for (gained, left) in gained.iter().zip([0.11f64, 0.21, 0.3]) {
        assert!((gained - 20.0 * (0.31 / left).log10()).abs() < 0.05, "{gained} {left}");
    }
}

#[test]
fn a_gain_on_the_worst_sample_alone_is_none() {
    // The first layer is loud on the first sample, and the second on the other one.
    let runtime = Planted::new(|run| {
        let errors = if run.numbers()[0] > 3.0 { [0.0, 0.25, 0.01] } else { [0.3, 0.0, 0.01] };
        Ok(run.times(1.0 + sum(&errors, &run.switches())))
    });
    let found = ranking(&runtime, None).unwrap();
    let first = found.iter().find(|entry| entry.layers[0] == "product0").unwrap();
    let expected = 20.0 * (0.31f64 / 0.26).log10();
    assert!((first.gained_db.unwrap() - expected).abs() < 0.1, "{first:?}");
}

#[test]
fn layers_without_any_effect_gain_nothing() {
    let found = ranking(&Planted::switched(&[0.0; 3]), None).unwrap();
    assert_eq!(names(&found), ["product0", "product1", "product2"]);
    assert!(found.iter().all(|entry| entry.alone_db == Some(f64::INFINITY)));
}

#[test]
fn ranking_ends_with_the_time_and_with_what_is_wrong() {
    let over = ranking(&Planted::switched(&[0.1; 3]), Some(0.0)).unwrap_err();
    assert!(matches!(over, TrialError::Refused(_)), "{over}");
    let full = Planted::switched(&[0.1; 3])
        .refusing(|model, _| (model == SWITCHES).then(planted::no_memory));
    assert!(matches!(ranking(&full, None), Err(TrialError::Environment(_))));
    let died = Planted::new(|run| {
        if run.model == SWITCHES && run.before == 4 {
            Err(planted::crash())
        } else {
            Ok(run.times(1.0))
        }
    });
    assert!(matches!(ranking(&died, None), Err(TrialError::Crashed(_))));
}

#[test]
fn each_sample_is_run_once_with_all_switches_off() {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    let runtime = Planted::switched(&[0.1; 3]);
    bed.prove_in(&runtime, samples(3), |prover| {
        let board = board(prover.prepared, &plan, u64::MAX).unwrap();
        let mut probe = Probe::new(&prover, board, &Tuning::default().probing).unwrap();
        let budget = Budget::new(Instant::now(), None, Stop::default());
        let settings: Vec<Setting> =
            [2, 0, 2].map(|sample| Setting { on: vec![0], strength: 2.0, sample }).into();
        let told = probe.run(&prover, &settings, &budget, &mut |_| {}).unwrap();
        assert_eq!((told.len(), runtime.ran(SWITCHES)), (3, 5));
        // Twice as strong is four times as noisy.
        assert!(told.iter().all(|parity| (lowest_db(parity) + 20.0 * 0.2f64.log10()).abs() < 0.05));
        probe.run(&prover, &settings, &budget, &mut |_| {}).unwrap();
        assert_eq!(runtime.ran(SWITCHES), 8);
        assert!(probe.run(&prover, &[], &budget, &mut |_| {}).unwrap().is_empty());
    });
}

#[test]
fn a_model_that_is_too_large_has_no_switches() {
    let bed = bed();
    let plan = bed.plan(Scheme::INT8_WEIGHTS);
    let bytes: u64 = plan.lines().map(|(_, why)| why.bytes).sum();
    assert!(board(&bed.prepared, &plan, bytes - 1).is_err());
    assert_eq!(board(&bed.prepared, &plan, bytes).unwrap().switches.len(), 3);
}

/// Two layers that share a weight, one that has another besides, and one that has none.
fn tied() -> ExplainedPlan {
    let layers: [(&str, &[&str], u64); 4] = [
        ("a", &["shared"], 100),
        ("b", &["shared"], 100),
        ("both", &["shared", "own"], 300),
        ("none", &[], 0),
    ];
    let mut plan = ExplainedPlan::new(Numerics::default());
    for (id, weights, bytes) in layers {
        let weights = weights.iter().map(|&weight| weight.to_owned()).collect();
        let why = Explanation { weights, bytes, ..Explanation::default() };
        plan.push(PlannedLayer::new(id, Scheme::INT8_WEIGHTS), why);
    }
    plan
}

#[test]
fn a_weight_that_is_shared_is_counted_once() {
    let plan = tied();
    assert_eq!(bytes(&plan, &[0, 1]), 100);
    assert_eq!(bytes(&plan, &[0, 2]), 250, "of two weights each is taken for half");
    assert_eq!((bytes(&plan, &[3]), bytes(&plan, &[]), bytes(&plan, &[99])), (0, 0, 0));
}

#[test]
fn switches_belong_to_layers_by_place_and_by_weight() {
    let plan = tied();
    let switches = [
        Switch::Activation { layer: 1 },
        Switch::Weight { weight: "own".to_owned(), layers: vec![2] },
        Switch::Rounding { layers: vec![0, 3] },
    ];
    assert_eq!(switches_of(&switches, &plan, &[0]), [2]);
    assert_eq!(switches_of(&switches, &plan, &[1]), [0]);
    assert_eq!(switches_of(&switches, &plan, &[2, 3]), [1, 2]);
    assert!(switches_of(&switches, &plan, &[]).is_empty());
}

#[test]
fn layers_are_described_by_their_own_errors() {
    let plan = tied();
    let noise = LayerNoise {
        in_float: None,
        layer: 0,
        weights: 0.01,
        activation: Some(0.1),
        below: Vec::new(),
        informed: true,
    };
    let known = described(&plan, &[0, 1], &[(0, noise)].into());
    assert_eq!((known.layers, known.bytes), (vec!["a".to_owned(), "b".to_owned()], 100));
    assert!((known.layer_weights_db.unwrap() - 20.0).abs() < 1e-9);
    assert!((known.layer_activation_db.unwrap() - 10.0).abs() < 1e-9);
    let unknown = described(&plan, &[], &HashMap::new());
    assert_eq!((unknown.layers.len(), unknown.layer_weights_db), (0, None));
    assert!(lowest_db(&Parity::default()).is_infinite());
}
