//! The program from outside, as one test binary: a change of the library links it once.
//!
//! `latency` measures, and so runs by itself.

#[macro_use]
mod support;

mod accuracy;
mod bad_input;
mod calibrate;
mod cases;
mod convert;
mod determinism;
mod gate;
mod hard_cases;
mod inputs;
mod messages;
mod metric;
mod output;
mod output_types;
mod planted;
mod proof;
mod random_models;
mod ranges;
mod real_models;
mod regions;
mod runtimes;
mod search;
mod serve;
mod sixteen_bit_weights;
mod upgrade;
