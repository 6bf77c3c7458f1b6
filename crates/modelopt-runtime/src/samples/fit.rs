//! Whether samples are what a model takes, before anything runs.

use std::fmt;
use std::path::Path;

use modelopt_graph::{Tensor, Type};

use super::meant::Meant;
use super::misfit::Misfit;
use crate::{InputSpec, Sample, SampleError};

/// Checks one sample, which came from a file, against the inputs of a model. `others` are arrays
/// of the file that are no inputs.
pub(super) fn check(
    path: &Path,
    sample: &Sample,
    others: &[String],
    inputs: &[InputSpec],
) -> Result<(), SampleError> {
    let missing = |input: &&InputSpec| !sample.inputs.contains_key(&input.name);
    let missing: Vec<String> = inputs.iter().filter(missing).map(|i| i.name.clone()).collect();
    if !missing.is_empty() {
        let found = sample.inputs.keys().chain(others).cloned().collect();
        let meant = Meant::of(&missing, others);
        return Err(SampleError::Missing { path: path.to_owned(), missing, found, meant });
    }
    for input in inputs {
        if let (Type::Tensor { elem, shape }, Some(tensor)) =
            (&input.ty, sample.inputs.get(&input.name))
            && let Some(misfit) = Misfit::of(tensor, *elem, shape.as_deref())
        {
            let (path, input) = (path.to_owned(), input.name.clone());
            return Err(SampleError::Unfit { path, input, misfit });
        }
    }
    Ok(())
}

/// What is odd about samples, though they fit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Oddity {
    /// An input has elements that no sensible input has.
    NotFinite {
        /// Name of the sample.
        sample: String,
        /// Input of the model.
        input: String,
        /// How many elements are NaN.
        nans: usize,
        /// How many are infinite.
        infinities: usize,
        /// How many there are.
        total: usize,
    },
    /// So many more inputs of samples have such elements.
    More(usize),
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Oddity::More(more) => {
                write!(f, "{more} more inputs of samples have elements that are not finite")
            }
            Oddity::NotFinite { sample, input, nans, infinities, total } => {
                write!(f, "sample '{sample}': input '{input}' has ")?;
                match (nans, infinities) {
                    (nans, 0) => write!(f, "{nans} of {total} elements that are NaN"),
                    (0, infinite) => write!(f, "{infinite} of {total} elements that are infinite"),
                    (nans, infinite) => write!(
                        f,
                        "{nans} of {total} elements that are NaN and {infinite} infinite ones"
                    ),
                }
            }
        }
    }
}

/// Values that no sensible input has.
pub(super) fn oddities(sample: &Sample) -> Vec<Oddity> {
    let odd = |(input, tensor): (&String, &Tensor)| {
        if !tensor.dtype().is_float() {
            return None;
        }
        let elements = tensor.to_f32()?;
        let (nans, infinities) = elements.iter().fold((0usize, 0usize), |(nans, inf), x| {
            (nans + usize::from(x.is_nan()), inf + usize::from(x.is_infinite()))
        });
        (nans + infinities > 0).then(|| Oddity::NotFinite {
            sample: sample.name.clone(),
            input: input.clone(),
            nans,
            infinities,
            total: elements.len(),
        })
    };
    sample.inputs.iter().filter_map(odd).collect()
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use modelopt_graph::{DataType, Dim};

    use super::*;
    use crate::SampleKind;

    fn spec(name: &str, elem: DataType, dims: &[&str]) -> InputSpec {
        let dim = |text: &&str| match text.parse() {
            Ok(size) => Dim::Fixed(size),
            Err(_) => Dim::Symbol((*text).to_owned()),
        };
        let shape = Some(dims.iter().map(dim).collect());
        InputSpec { name: name.into(), ty: Type::Tensor { elem, shape } }
    }

    fn sample(inputs: &[(&str, Tensor)]) -> Sample {
        let inputs: IndexMap<String, Tensor> =
            inputs.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
        Sample { name: "s".into(), inputs, kind: SampleKind::Real }
    }

    fn zeros(shape: &[usize]) -> Tensor {
        Tensor::of(shape.to_vec(), &vec![0f32; shape.iter().product()]).unwrap()
    }

    #[track_caller]
    fn said(inputs: &[(&str, Tensor)], others: &[&str], specs: &[InputSpec]) -> String {
        let others: Vec<String> = others.iter().map(|&name| name.to_owned()).collect();
        let checked = check(Path::new("s.npz"), &sample(inputs), &others, specs);
        checked.unwrap_err().to_string()
    }

    #[test]
    fn what_fits_passes() {
        let specs = [spec("x", DataType::FLOAT, &["n", "3", "0"])];
        check(Path::new("s.npz"), &sample(&[("x", zeros(&[2, 3, 9]))]), &["y".into()], &specs)
            .unwrap();
    }

    #[test]
    fn types_are_named_as_numpy_does() {
        let specs = [spec("data", DataType::FLOAT, &["n"])];
        let doubles = Tensor::of(vec![1], &[0f64]).unwrap();
        assert_eq!(
            said(&[("data", doubles)], &[], &specs),
            "s.npz: 'data' is float64, the model wants float32; convert it with .astype('float32')"
        );
    }

    #[test]
    fn shapes_come_with_a_cure_where_there_is_one() {
        let picture = [spec("x", DataType::FLOAT, &["n", "3", "h", "w"])];
        let say = |shape: &[usize]| said(&[("x", zeros(shape))], &[], &picture);
        let wants = "the model wants [n, 3, h, w]";
        assert_eq!(
            say(&[3, 8, 8]),
            format!(
                "s.npz: 'x' has shape [3, 8, 8], of rank 3, {wants}, of rank 4; \
                 put a batch of 1 in front with [None]"
            )
        );
        assert_eq!(
            say(&[1, 8, 8, 3]),
            format!(
                "s.npz: 'x' has shape [1, 8, 8, 3], {wants}; \
                 put channels first with .transpose(0, 3, 1, 2)"
            )
        );
        assert_eq!(say(&[1, 4, 8, 8]), format!("s.npz: 'x' has shape [1, 4, 8, 8], {wants}"));
    }

    #[test]
    fn missing_inputs_are_named_with_what_was_meant() {
        let specs =
            [spec("pixel_values", DataType::FLOAT, &["n"]), spec("mask", DataType::FLOAT, &["n"])];
        assert_eq!(
            said(&[("mask", zeros(&[1]))], &["pixels"], &specs),
            "s.npz: no array for input 'pixel_values'; there are 'mask', 'pixels'; \
             rename 'pixels' if it is meant for 'pixel_values'"
        );
        assert_eq!(
            said(&[("mask", zeros(&[1]))], &["label", "PixelValues"], &specs),
            "s.npz: no array for input 'pixel_values'; there are 'mask', 'label', 'PixelValues'; \
             note that 'pixel_values' is not 'PixelValues'"
        );
    }

    #[test]
    fn what_is_not_finite_is_counted() {
        let odd = Tensor::of(vec![4], &[f32::NAN, f32::NAN, f32::INFINITY, 1.0]).unwrap();
        let found = oddities(&sample(&[("x", odd), ("y", zeros(&[2]))]));
        let [found] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            found.to_string(),
            "sample 's': input 'x' has 2 of 4 elements that are NaN and 1 infinite ones"
        );
    }
}
