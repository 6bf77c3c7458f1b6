//! What a file seems to be that is no model.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Result, bail};

/// How much of a file is looked at.
const LOOKED_AT: u64 = 4096;

/// Refuses a file that is clearly something else. What may be a model, and what cannot be read, is
/// left to the loader.
pub(crate) fn check_model(path: &Path) -> Result<()> {
    check(path, &path.display().to_string())
}

/// The same, with a name for the file.
pub(crate) fn check(path: &Path, name: &str) -> Result<()> {
    if path.is_dir() {
        bail!("{name}: it is a folder; name the model file in it");
    }
    let mut start = Vec::new();
    let Ok(file) = File::open(path) else { return Ok(()) };
    if file.take(LOOKED_AT).read_to_end(&mut start).is_err() {
        return Ok(());
    }
    match other_kind(&start) {
        Some(kind) => bail!("{name}: no ONNX model; {kind}"),
        None => Ok(()),
    }
}

/// What a file that begins like this is, and what to do about it.
fn other_kind(start: &[u8]) -> Option<&'static str> {
    if start.is_empty() {
        return Some("the file is empty");
    }
    let magic = MAGIC
        .iter()
        .find(|(at, bytes, _)| start.get(*at..).is_some_and(|rest| rest.starts_with(bytes)));
    if let Some((_, _, kind)) = magic {
        return Some(kind);
    }
    if start.starts_with(b"PK\x03\x04") {
        return Some(archive(start));
    }
    if start.get(8) == Some(&b'{') && start.get(5..8) == Some(&[0; 3]) {
        return Some(
            "it seems to be a safetensors file, which has weights only; export the model with torch.onnx.export",
        );
    }
    is_text(start).then(|| text(start))
}

const TORCH: &str = "it seems to be a PyTorch checkpoint; export the model with torch.onnx.export";
const PACKED: &str = "it is compressed; unpack it first";

/// Where which bytes stand in files of a kind.
const MAGIC: &[(usize, &[u8], &str)] = &[
    (0, b"\x80\x02", TORCH),
    (0, b"\x80\x03", "it seems to be a Python pickle"),
    (0, b"\x80\x04", "it seems to be a Python pickle"),
    (0, b"\x80\x05", "it seems to be a Python pickle"),
    (0, b"\x89HDF", "it seems to be an HDF5 file, as Keras writes; convert it with tf2onnx"),
    (4, b"TFL3", "it seems to be a TensorFlow Lite model; convert it with tf2onnx"),
    (4, b"ORTM", "it seems to be a model in ORT format; start from the ONNX file it was made of"),
    (0, b"GGUF", "it seems to be a GGUF file"),
    (0, b"\x93NUMPY", "it seems to be a NumPy array"),
    (0, b"\x1f\x8b", PACKED),
    (0, b"\x28\xb5\x2f\xfd", PACKED),
    (0, b"\xfd7zXZ", PACKED),
    (0, b"BZh", PACKED),
    (0, b"7z\xbc\xaf", PACKED),
    (0, b"\x89PNG", "it seems to be a picture"),
    (0, b"\xff\xd8\xff", "it seems to be a picture"),
    (0, b"%PDF", "it seems to be a PDF document"),
    (0, b"\x7fELF", "it seems to be a program or a library"),
    (0, b"MZ\x90", "it seems to be a program or a library"),
];

fn archive(start: &[u8]) -> &'static str {
    let has = |name: &[u8]| start.windows(name.len()).any(|window| window == name);
    if has(b"data.pkl") || has(b"/version") || has(b"constants.pkl") {
        TORCH
    } else if has(b".npy") {
        "it seems to be an .npz of NumPy arrays"
    } else if has(b"model.weights.h5") || has(b"metadata.json") {
        "it seems to be a Keras model; convert it with tf2onnx"
    } else {
        "it seems to be a zip archive; unpack it first"
    }
}

/// Whether all of it is text; a model has control characters within its first few bytes.
fn is_text(start: &[u8]) -> bool {
    // The last character may be cut.
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            let whole = start.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(whole).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && !text.chars().any(|c| c.is_control() && !"\n\r\t".contains(c))
}

fn text(start: &[u8]) -> &'static str {
    let start = start.trim_ascii_start();
    let begins =
        |with: &[u8]| start.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    if begins(b"version https://git-lfs") {
        "it is a pointer of Git LFS; fetch the model itself with `git lfs pull`"
    } else if begins(b"<!doctype html") || begins(b"<html") {
        "it is a web page; the download of the model failed"
    } else if begins(b"<?xml") || begins(b"<") {
        "it seems to be an XML file"
    } else if begins(b"{") || begins(b"[") {
        "it seems to be a JSON file"
    } else {
        "it is a text file"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_how_they_begin() {
        for (start, word) in [
            (&b""[..], "empty"),
            (b"PK\x03\x04........archive/data.pkl", "PyTorch"),
            (b"PK\x03\x04........x.npy", "npz"),
            (b"PK\x03\x04........a.txt", "zip"),
            (b"\x80\x02\x8a\nl\xfc", "PyTorch"),
            (b"\x1c\0\0\0TFL3", "Lite"),
            (b"\x10\x01\0\0\0\0\0\0{\"a\"", "safetensors"),
            (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
            (b"\n<!DOCTYPE html><html>", "web page"),
            (b"{\"a\": 1}", "JSON"),
            (b"hello\n", "text"),
            ("gr\u{fc}\u{df}e".as_bytes(), "text"),
        ] {
            let kind = other_kind(start).unwrap_or("nothing");
            assert!(kind.contains(word), "{word}: {kind}");
        }
    }

    #[test]
    fn what_may_be_a_model_is_left_to_the_loader() {
        assert_eq!(other_kind(b"\x08\x08\x12\x07pytorch"), None);
        assert_eq!(other_kind(b"\x08\x08"), None);
        assert_eq!(other_kind(&[0xff; 64]), None);
    }
}
