//! Samples in files that are read one at a time.

use std::path::Path;

use super::listing::{Found, Place, list};
use super::{Sample, check_types, fit};
use crate::{InputSpec, SampleError};

/// Samples at a path, for a model with these inputs: listed, and read one at a time.
#[derive(Clone, Debug)]
pub struct SampleFiles {
    places: Vec<Listed>,
    inputs: Vec<InputSpec>,
    names: Vec<String>,
}

#[derive(Clone, Debug)]
struct Listed {
    place: Place,
    bytes: u64,
}

impl SampleFiles {
    /// Lists the samples at a path, which may be what [`load_samples`](crate::load_samples) takes, in
    /// the same order.
    pub fn list(path: &Path, inputs: &[InputSpec]) -> Result<Self, SampleError> {
        check_types(inputs)?;
        let listed = |place: Place| Ok(Listed { bytes: place.bytes()?, place });
        let places = list(path)?.into_iter().map(listed).collect::<Result<_, SampleError>>()?;
        let names = inputs.iter().map(|input| input.name.clone()).collect();
        Ok(SampleFiles { places, inputs: inputs.to_vec(), names })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Reads the sample at a place, and checks it as [`fitting_samples`](crate::fitting_samples) does.
    pub fn read(&self, place: usize) -> Result<Sample, SampleError> {
        let nothing = || SampleError::NoSamples { path: std::path::PathBuf::new() };
        let listed = self.places.get(place).ok_or_else(nothing)?;
        let Found { path, sample, others } = listed.place.read(&self.names)?;
        fit::check(&path, &sample, &others, &self.inputs)?;
        Ok(sample)
    }

    /// The place of the one with the largest file; none where there are none.
    pub fn largest(&self) -> Option<usize> {
        (0..self.places.len()).max_by_key(|&place| self.places.get(place).map(|at| at.bytes))
    }

    /// Names of all samples with the sizes of their files: what tells one list from another.
    pub fn listing(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.places.iter().map(|listed| (listed.place.name(), listed.bytes))
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{DataType, Dim, Type};
    use ndarray::Array1;
    use ndarray_npy::NpzWriter;

    use super::*;

    fn spec(size: usize) -> Vec<InputSpec> {
        let shape = Some(vec![Dim::Fixed(size)]);
        vec![InputSpec { name: "x".into(), ty: Type::Tensor { elem: DataType::FLOAT, shape } }]
    }

    fn write(folder: &Path, name: &str, numbers: &[f32]) {
        let mut npz = NpzWriter::new(std::fs::File::create(folder.join(name)).unwrap());
        npz.add_array("x", &Array1::from(numbers.to_vec())).unwrap();
        npz.finish().unwrap();
    }

    #[test]
    fn they_are_read_one_by_one_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for number in [10u8, 2, 1] {
            write(folder.path(), &format!("s{number}.npz"), &[f32::from(number), 0.0]);
        }
        let files = SampleFiles::list(folder.path(), &spec(2)).unwrap();
        assert_eq!((files.len(), files.is_empty()), (3, false));
        let read: Vec<Sample> = (0..3).map(|place| files.read(place).unwrap()).collect();
        let all = crate::load_samples(folder.path(), &["x".to_owned()]).unwrap();
        for (one, of_all) in read.iter().zip(&all) {
            assert_eq!((&one.name, &one.inputs), (&of_all.name, &of_all.inputs));
        }
        assert_eq!(files.listing().map(|(name, _)| name).collect::<Vec<_>>(), ["s1", "s2", "s10"]);
        assert!(files.read(3).is_err());
    }

    #[test]
    fn what_does_not_fit_is_said_when_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "good.npz", &[1.0, 2.0]);
        write(folder.path(), "odd.npz", &[1.0; 300]);
        let files = SampleFiles::list(folder.path(), &spec(2)).unwrap();
        assert_eq!(files.largest(), Some(1));
        assert!(files.read(0).is_ok());
        let error = files.read(1).unwrap_err();
        assert!(matches!(error, SampleError::Unfit { .. }), "{error}");
        assert!(error.to_string().contains("odd.npz"), "{error}");
        let nothing = tempfile::tempdir().unwrap();
        assert!(SampleFiles::list(nothing.path(), &spec(2)).is_err());
    }
}
