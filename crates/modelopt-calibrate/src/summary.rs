//! What was seen of each tensor, in short.

use rayon::prelude::*;

use crate::activations::Activations;
use crate::calibration::Calibration;
use crate::observers::Extremes;
use crate::range::Method;

/// What was seen of one tensor, and the ranges that come from it.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorRanges {
    /// Name of the tensor.
    pub name: String,
    /// What it reached, and how many numbers there were.
    pub extremes: Extremes,
    /// The range that each method gives; none where no finite number was seen.
    pub ranges: Vec<(Method, Option<(f32, f32)>)>,
}

impl TensorRanges {
    /// How long the range of a method is, as a share of all that was seen, with 0; none for a tensor that
    /// is 0 throughout.
    pub fn share(&self, method: Method) -> Option<f64> {
        let length = |(low, high): (f32, f32)| f64::from(high) - f64::from(low);
        let (low, high) = self.extremes.range?;
        let whole = length((low.min(0.0), high.max(0.0)));
        let own = self.ranges.iter().find(|(known, _)| *known == method)?.1?;
        (whole > 0.0).then(|| length(own) / whole)
    }
}

impl Calibration {
    /// All tensors that were observed for their ranges, by name, with those on so many levels.
    pub fn ranges(&self, levels: u32) -> Vec<TensorRanges> {
        let observations = self.observations();
        let mut names: Vec<&str> = observations.values().collect();
        names.sort_unstable();
        let of = |name: &&str| {
            let spread = Activations::spread(observations, name)?;
            let range = |method: Method| (method, method.range(&spread, levels));
            let ranges = Method::ALL.into_iter().map(range).collect();
            let extremes = spread.distribution.extremes;
            Some(TensorRanges { name: (*name).to_owned(), extremes, ranges })
        };
        names.par_iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observations::Observations;
    use crate::observer::View;
    use crate::range::EIGHT_BITS;
    use crate::testing::{self, tensor};

    #[test]
    fn every_tensor_is_there_by_name() {
        let mut model = testing::model();
        modelopt_graph::infer::infer(&mut model);
        let mut observations = Observations::default();
        Activations::of(&model).watch(&model, &mut observations);
        for (place, numbers) in [[0.0, 1.0], [1.0, 3.0]].iter().enumerate() {
            observations.see("z", &View::new(&tensor(&[1, 2], numbers), place as u64));
        }
        observations.see("y", &View::new(&tensor(&[1, 2], &[0.0, 0.0]), 0));
        let told = Calibration::new("abc", [0, 1], observations).ranges(EIGHT_BITS);
        let of = |name: &str| told.iter().find(|tensor| tensor.name == name).unwrap();
        assert!(told.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(of("z").share(Method::MinMax), Some(1.0));
        assert_eq!(of("z").share(Method::Moving), Some(2.0 / 3.0));
        assert_eq!(of("y").share(Method::MinMax), None);
        assert_eq!(of("x").ranges[0], (Method::MinMax, None));
    }
}
