//! What becomes of small models of each kind: where numbers are quantized, that the interface stays, and that
//! the numbers do.

mod layers;
mod plans;
mod qoperator;
mod tensors;

use modelopt_graph::{Tensor, ValueId};

use crate::testing::integers::{Pair, conv, drawn, filters, made, made_with};
use crate::testing::interpreter::{first_output, run};
use crate::testing::{Build, float, noise};

/// An input of 4 channels of 6 by 6.
fn image(b: &mut Build) -> ValueId {
    b.input("x", float(&[1, 4, 6, 6]))
}

/// A model with an image and one output that is made of it.
fn of_image(make: impl FnOnce(&mut Build, ValueId) -> ValueId) -> Build {
    let mut b = Build::new(13);
    let x = image(&mut b);
    let y = make(&mut b, x);
    finished(b, y)
}

/// A model whose only output is a value.
fn finished(mut b: Build, y: ValueId) -> Build {
    modelopt_graph::infer::infer(&mut b.model);
    let ty = b.model.value(y).ty().unwrap().clone();
    b.output(y, ty);
    b
}

/// Whether the numbers stay, by so many dB, and are those of the model in which all errors are switched on.
#[track_caller]
fn check_numbers(pair: &Pair, least: f64) {
    let found = pair.sqnr();
    assert!(found > least, "{found} dB");
    let board = crate::switchboard(&pair.before, &pair.plan).unwrap();
    let count = board.switches.len();
    let with = |on: &[usize]| {
        let mut feeds = pair.feeds.clone();
        feeds.push(board.settings(on, 1.0));
        first_output(&board.model, &feeds)
    };
    let before = first_output(&pair.before, &pair.feeds);
    let after = first_output(&pair.after, &pair.feeds);
    // Nothing is switched on, then everything; biases, which have no switch, are rounded by far less.
    assert!(distance(&with(&[]), &before) < 1e-5 * largest(&before));
    let all: Vec<usize> = (0..count).collect();
    let emulated = with(&all);
    assert!(crate::testing::integers::sqnr(&emulated, &after) > least + 6.0);
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.to_f32().unwrap().iter().fold(0f32, |largest, x| largest.max(x.abs()))
}

fn distance(a: &Tensor, b: &Tensor) -> f32 {
    let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
    a.iter().zip(b.iter()).fold(0f32, |most, (a, b)| most.max((a - b).abs()))
}

/// How often an operator stands in a model.
fn count(pair: &Pair, op: &str) -> usize {
    let all = pair.after.walk().into_iter();
    all.filter(|&node| pair.after.node(node).op.is(op)).count()
}
