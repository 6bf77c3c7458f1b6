//! `test_data_set_*`: the layout of ONNX's own test data.

use std::path::Path;

use modelopt_graph::Tensor;

use super::folder::{entries, trailing_number};
use super::sample::Arrays;
use crate::SampleError;

/// The inputs in one `test_data_set_*` folder: each `input_N.pb` is for the input of its name, or
/// else for the `N`-th. And the names of those that are for none.
pub(super) fn read(folder: &Path, inputs: &[String]) -> Result<(Arrays, Vec<String>), SampleError> {
    let mut arrays = Arrays::new();
    let mut others = Vec::new();
    for file in entries(folder)? {
        let Some(number) = input_number(&file) else { continue };
        let (name, tensor) = read_tensor(&file)?;
        let place = usize::try_from(number).ok().and_then(|number| inputs.get(number));
        match inputs.iter().find(|&input| *input == name).or(place) {
            Some(input) => {
                arrays.insert(input.clone(), tensor);
            }
            None => others.push(name),
        }
    }
    Ok((arrays, others))
}

/// `N` of a file called `input_N.pb`.
pub(super) fn input_number(file: &Path) -> Option<u64> {
    let name = file.file_name()?.to_str()?;
    let number = trailing_number(file)?;
    (name == format!("input_{number}.pb")).then_some(number)
}

fn read_tensor(file: &Path) -> Result<(String, Tensor), SampleError> {
    let bytes = fs_err::read(file)?;
    modelopt_onnx::read_tensor(bytes.into())
        .map_err(|error| SampleError::invalid(file, None, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `TensorProto` with `dims` \[1\], `data_type` int64, a name and one element.
    fn proto(name: &str, element: u8) -> Vec<u8> {
        let mut bytes = vec![0x08, 1, 0x10, 7, 0x42, name.len() as u8];
        bytes.extend(name.as_bytes());
        bytes.extend([0x4a, 8, element, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn inputs_go_by_name_or_else_by_number() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("input_0.pb"), proto("b", 5)).unwrap();
        std::fs::write(folder.path().join("input_2.pb"), proto("", 6)).unwrap();
        std::fs::write(folder.path().join("output_0.pb"), "not read").unwrap();
        let inputs = ["a", "b", "c"].map(str::to_owned);
        let (arrays, _) = read(folder.path(), &inputs).unwrap();
        let values = |name: &str| arrays[name].to_i64().unwrap();
        assert_eq!((values("b"), values("c")), (vec![5], vec![6]));
        assert!(!arrays.contains_key("a"));
    }

    #[test]
    fn damaged_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("input_0.pb"), [0x0b]).unwrap();
        let error = read(folder.path(), &["a".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("input_0.pb"), "{error}");
    }
}
