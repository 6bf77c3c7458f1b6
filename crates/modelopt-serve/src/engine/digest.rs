//! What a model is made of, as one number.

use std::path::Path;

use modelopt_graph::{AttributeValue, Constant, Model, Payload, Tensor};

use super::error::LoadError;

/// BLAKE3 of a model's file, and of the values of its tensors where some lie in other files, in
/// hexadecimal. Two models of one digest give the same answers.
pub(crate) fn digest(path: &Path, model: &Model) -> Result<String, LoadError> {
    let failed = |cause| LoadError::Io { path: path.to_owned(), cause };
    let file = modelopt_onnx::digest(path).map_err(failed)?;
    let size = fs_err::metadata(path).map_err(failed)?.len();
    if modelopt_onnx::stored_size(path, model)? == size {
        return Ok(file);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(file.as_bytes());
    tensors(model, &mut |tensor| add(&mut hasher, tensor));
    Ok(hasher.finalize().to_hex().to_string())
}

/// Every tensor that a file may keep elsewhere, in the order of the model.
fn tensors(model: &Model, see: &mut dyn FnMut(&Tensor)) {
    for value in model.values() {
        match model.value(value).constant() {
            Some(Constant::Dense(tensor)) => see(tensor),
            Some(Constant::Sparse(sparse)) => {
                see(&sparse.values);
                see(&sparse.indices);
            }
            None => {}
        }
    }
    for node in model.all_graphs().into_iter().flat_map(|graph| model.nodes_of(graph)) {
        for attribute in &model.node(node).attributes {
            match &attribute.value {
                AttributeValue::Tensor(tensor) => see(tensor),
                AttributeValue::Tensors(tensors) => tensors.iter().for_each(|tensor| see(tensor)),
                _ => {}
            }
        }
    }
}

fn add(hasher: &mut blake3::Hasher, tensor: &Tensor) {
    match tensor.payload() {
        Payload::Strings(strings) => {
            for text in strings {
                hasher.update(&(text.len() as u64).to_le_bytes()).update(text);
            }
        }
        _ => {
            if let Some(bytes) = tensor.bytes() {
                hasher.update(&(bytes.len() as u64).to_le_bytes()).update_rayon(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use xtask::testdata::fixture;

    use super::*;

    fn digest_of(path: &Path) -> String {
        digest(path, &modelopt_onnx::load(path).unwrap()).unwrap()
    }

    #[test]
    fn a_model_of_one_file_has_the_digest_of_that() {
        let path = fixture("digits/mlp.onnx");
        assert_eq!(digest_of(&path), modelopt_onnx::digest(&path).unwrap());
    }

    #[test]
    fn what_lies_in_other_files_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        std::fs::copy(fixture("attacks/external_good.onnx"), &path).unwrap();
        let data = folder.path().join("external.bin");
        std::fs::copy(fixture("attacks/external.bin"), &data).unwrap();
        let before = digest_of(&path);
        assert_ne!(before, modelopt_onnx::digest(&path).unwrap());
        assert_eq!(digest_of(&path), before);
        let mut bytes = std::fs::read(&data).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&data, bytes).unwrap();
        assert_ne!(digest_of(&path), before);
    }
}
