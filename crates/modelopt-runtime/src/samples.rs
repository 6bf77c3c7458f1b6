//! Inputs to run models on, read from files.

mod files;
mod fit;
mod folder;
mod listing;
mod meant;
mod misfit;
mod npy;
mod npz;
mod pb;
mod sample;

use std::path::{Path, PathBuf};

use modelopt_graph::Type;

pub use self::files::SampleFiles;
pub use self::fit::Oddity;
use self::listing::{Found, list};
pub use self::meant::Meant;
pub use self::misfit::{Cure, Misfit};
pub use self::sample::{Sample, SampleKind};

use crate::{InputSpec, SampleError};

/// Reads the samples at a path, for a model with these inputs, in this order.
///
/// The path is one of, tried in this order:
/// - an `.npz`: one sample, keys are names of inputs;
/// - a folder with folders `test_data_set_*`: one sample each, `input_N.pb` in each is a serialized
///   `TensorProto` for the input of its name, or else for the `N`-th input;
/// - one such folder itself;
/// - a folder of `.npz`: one sample each, by file name;
/// - a folder of `NAME.npy`: one sample.
///
/// Arrays that are not named like an input, such as labels, are left out. An input without an array
/// is no error here: see [`fitting_samples`].
pub fn load_samples(path: &Path, inputs: &[String]) -> Result<Vec<Sample>, SampleError> {
    Ok(read(path, inputs)?.into_iter().map(|found| found.sample).collect())
}

/// Samples that are what a model takes.
#[derive(Clone, Debug)]
pub struct FittingSamples {
    /// All of them.
    pub samples: Vec<Sample>,
    /// What is odd about them, such as elements that are NaN.
    pub oddities: Vec<Oddity>,
}

/// Reads the samples at a path, as [`load_samples`] does, and checks them against the inputs of a
/// model: every input has an array, of the type and the fixed sizes that the model declares.
pub fn fitting_samples(path: &Path, inputs: &[InputSpec]) -> Result<FittingSamples, SampleError> {
    check_types(inputs)?;
    let names: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
    let found = read(path, &names)?;
    for Found { path, sample, others } in &found {
        fit::check(path, sample, others, inputs)?;
    }
    Ok(with_oddities(found.into_iter().map(|found| found.sample).collect()))
}

/// Checks samples that are at hand against the inputs of a model, as [`fitting_samples`] does.
pub fn fit_samples(
    samples: Vec<Sample>,
    inputs: &[InputSpec],
) -> Result<FittingSamples, SampleError> {
    check_types(inputs)?;
    if samples.is_empty() {
        return Err(SampleError::NoSamples { path: PathBuf::new() });
    }
    for sample in &samples {
        fit::check(Path::new(&sample.name), sample, &[], inputs)?;
    }
    Ok(with_oddities(samples))
}

/// Samples hold tensors and nothing else.
fn check_types(inputs: &[InputSpec]) -> Result<(), SampleError> {
    let other = |ty: &Type| !matches!(ty, Type::Tensor { .. } | Type::Other);
    if let Some(input) = inputs.iter().find(|input| other(&input.ty)) {
        let (input, ty) = (input.name.clone(), input.ty.to_string());
        return Err(SampleError::NoTensor { input, ty });
    }
    Ok(())
}

fn with_oddities(samples: Vec<Sample>) -> FittingSamples {
    const MOST: usize = 3;
    let mut oddities: Vec<Oddity> = samples.iter().flat_map(fit::oddities).collect();
    if oddities.len() > MOST {
        let more = oddities.len() - MOST;
        oddities.truncate(MOST);
        oddities.push(Oddity::More(more));
    }
    FittingSamples { samples, oddities }
}

fn read(path: &Path, inputs: &[String]) -> Result<Vec<Found>, SampleError> {
    list(path)?.iter().map(|place| place.read(inputs)).collect()
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Tensor;
    use ndarray::{array, aview0};
    use ndarray_npy::{NpzWriter, write_npy};

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn write_npz(path: &Path, value: f32) {
        let mut npz = NpzWriter::new_compressed(std::fs::File::create(path).unwrap());
        npz.add_array("b", &aview0(&7i64)).unwrap();
        npz.add_array("a", &array![[value, 2.0], [3.0, 4.0]]).unwrap();
        npz.add_array("label", &array![1u8]).unwrap();
        npz.finish().unwrap();
    }

    #[test]
    fn an_npz_is_one_sample_without_its_labels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.npz");
        write_npz(&path, 1.0);
        let samples = load_samples(&path, &names(&["a", "b", "c"])).unwrap();
        let [sample] = samples.as_slice() else { panic!("{samples:?}") };
        assert_eq!((sample.name.as_str(), sample.kind), ("one", SampleKind::Real));
        assert_eq!(sample.inputs.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(sample.inputs["a"].shape(), [2, 2]);
        assert_eq!(sample.inputs["b"], Tensor::scalar(7i64));
        let error = load_samples(&path, &names(&["x"])).unwrap_err().to_string();
        assert!(error.contains("it has 'b', 'a', 'label', the model wants 'x'"), "{error}");
    }

    #[test]
    fn an_npz_without_arrays_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty.npz");
        NpzWriter::new(std::fs::File::create(&path).unwrap()).finish().unwrap();
        let error = load_samples(&path, &names(&["x"])).unwrap_err().to_string();
        assert!(error.ends_with("empty.npz holds no arrays"), "{error}");
    }

    #[test]
    fn folders_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for number in [10, 9, 1] {
            write_npz(&folder.path().join(format!("s{number}.npz")), number as f32);
        }
        let samples = load_samples(folder.path(), &names(&["a"])).unwrap();
        let order: Vec<_> = samples.iter().map(|sample| sample.name.as_str()).collect();
        assert_eq!(order, ["s1", "s9", "s10"]);
    }

    #[test]
    fn a_folder_of_npy_is_one_sample() {
        let folder = tempfile::tempdir().unwrap();
        write_npy(folder.path().join("x.npy"), &array![1i32, 2]).unwrap();
        write_npy(folder.path().join("y.npy"), &array![true]).unwrap();
        let samples = load_samples(folder.path(), &names(&["y", "x"])).unwrap();
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].inputs.keys().collect::<Vec<_>>(), ["y", "x"]);
    }

    #[test]
    fn what_is_no_sample_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = load_samples(folder.path(), &names(&["x"])).unwrap_err().to_string();
        assert!(error.contains("holds no samples; give an .npz"), "{error}");
        let file = folder.path().join("x.txt");
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(load_samples(&file, &[]), Err(SampleError::NoSamples { .. })));
        assert!(matches!(load_samples(&folder.path().join("z"), &[]), Err(SampleError::Io(_))));
    }
}
