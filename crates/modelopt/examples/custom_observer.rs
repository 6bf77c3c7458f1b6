//! An observer of one's own: how much of what a rectifier makes is zero. The original runs once over the
//! samples and feeds it; what it saw is saved and read back like that of any other.

mod small_model;

use modelopt::calibration::{Calibration, Kind, Observations, Observer, View};
use modelopt::prelude::*;
use serde::{Deserialize, Serialize};

/// How many numbers were exactly 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Zeros {
    zeros: u64,
    all: u64,
}

impl Observer for Zeros {
    const KIND: &'static str = "zeros";

    /// The share of zeros.
    type Statistic = Option<f64>;

    fn variant(&self) -> String {
        "all".to_owned()
    }

    fn see(&mut self, view: &View<'_>) {
        self.zeros += view.numbers().iter().filter(|&&x| x == 0.0).count() as u64;
        self.all += view.numbers().len() as u64;
    }

    fn merge(&mut self, other: &Self) {
        self.zeros += other.zeros;
        self.all += other.all;
    }

    fn statistic(&self) -> Option<f64> {
        (self.all > 0).then(|| self.zeros as f64 / self.all as f64)
    }

    fn is_sound(&self) -> bool {
        self.zeros <= self.all
    }
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let optimizer = Optimizer::builder()
        .model(small_model::perceptron(4))
        .samples(SampleSource::arrays(small_model::inputs(6)))
        .build()?;
    let rectified = |model: &Model| {
        let mut observations = Observations::default();
        for node in model.walk().into_iter().map(|id| model.node(id)) {
            if let (true, Some(value)) = (node.op.is("Relu"), node.output(0)) {
                observations.watch(model, value, Zeros::default())?;
            }
        }
        Ok(observations)
    };
    let observed = optimizer.observe(rectified, &mut |_| {})?;

    let saved = observed.calibration.to_toml()?;
    let calibration = Calibration::with_kinds(&saved, &[Kind::of::<Zeros>()])?;
    let observations = calibration.observations();
    println!("{} samples in {}", calibration.samples().len(), observed.runtime.name);
    assert_eq!(observations.values().collect::<Vec<_>>(), ["h0", "h1"]);
    for name in observations.values() {
        let zeros = observations.of(name, &Zeros::default()).and_then(Observer::statistic);
        let share = zeros.ok_or("nothing was seen")?;
        println!("{:.0} % of {name} is zero", share * 100.0);
        // Inputs and weights are as often below zero as above.
        assert!((0.3..0.7).contains(&share), "{share}");
    }
    Ok(())
}
