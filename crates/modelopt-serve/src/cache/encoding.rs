//! An answer as bytes.
//!
//! ```text
//! 4 bytes   "moa" and the version of this layout, 1
//! 4 bytes   length of the header, little-endian
//! header    JSON: {"outputs": [{"name", "type", "shape", "bytes"}, …]}
//! tensors   one after the other, as OIP sends them: elements little-endian in row-major order; strings as
//!           4 bytes of length, little-endian, and the bytes
//! 16 bytes  start of the BLAKE3 digest of the key and everything above
//! ```
//!
//! `type` is the number of ONNX's `TensorProto.DataType`, `bytes` the length of the tensor. The digest holds an
//! answer to its key. It is no signature: whoever may write to the Redis may also answer.

use bytes::{Buf, Bytes};
use indexmap::IndexMap;
use modelopt_graph::{DataType, Payload, Tensor};
use serde::{Deserialize, Serialize};

use super::CacheKey;
use crate::{Answer, Timing};

const MAGIC: &[u8; 4] = b"moa\x01";
const CHECKSUM: usize = 16;

#[derive(Serialize, Deserialize)]
struct Header {
    outputs: Vec<Output>,
}

#[derive(Serialize, Deserialize)]
struct Output {
    name: String,
    r#type: i32,
    shape: Vec<usize>,
    bytes: usize,
}

/// `answer` as bytes under `key`; `None` where it would take more than `limit`.
pub(super) fn encode(key: &CacheKey, answer: &Answer, limit: usize) -> Option<Vec<u8>> {
    let outputs = answer.outputs.iter().map(|(name, tensor)| {
        Some(Output {
            name: name.clone(),
            r#type: tensor.dtype().number(),
            shape: tensor.shape().to_vec(),
            bytes: encoded_len(tensor)?,
        })
    });
    let header = Header { outputs: outputs.collect::<Option<_>>()? };
    let payload = header.outputs.iter().try_fold(0usize, |sum, o| sum.checked_add(o.bytes))?;
    let header = serde_json::to_vec(&header).ok()?;
    let around = MAGIC.len() + size_of::<u32>() + header.len() + CHECKSUM;
    let total = payload.checked_add(around).filter(|total| *total <= limit)?;
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&u32::try_from(header.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(&header);
    for tensor in answer.outputs.values() {
        append(&mut bytes, tensor)?;
    }
    let checksum = checksum(key, &bytes);
    bytes.extend_from_slice(&checksum);
    Some(bytes)
}

/// The answer in `bytes`, which took no time; `None` where they are not one that was kept under `key`.
pub(super) fn decode(key: &CacheKey, bytes: &Bytes) -> Option<Answer> {
    let content = bytes.len().checked_sub(CHECKSUM)?;
    let (content, found) = (bytes.slice(..content), bytes.slice(content..));
    if found != checksum(key, &content)[..] {
        return None;
    }
    let mut rest = content;
    if take(&mut rest, MAGIC.len())? != MAGIC[..] {
        return None;
    }
    let header = take_u32(&mut rest)?;
    let header: Header = serde_json::from_slice(&take(&mut rest, header)?).ok()?;
    let mut outputs = IndexMap::with_capacity(header.outputs.len().min(64));
    for output in header.outputs {
        let tensor = tensor(&output, take(&mut rest, output.bytes)?)?;
        outputs.insert(output.name, tensor);
    }
    rest.is_empty().then_some(Answer { outputs, timing: Timing::default() })
}

fn encoded_len(tensor: &Tensor) -> Option<usize> {
    let lengths = match tensor.payload() {
        Payload::Strings(strings) => strings.len().checked_mul(size_of::<u32>())?,
        Payload::Dense(_) | Payload::Rounded(_) => 0,
    };
    tensor.byte_len().checked_add(lengths)
}

fn append(bytes: &mut Vec<u8>, tensor: &Tensor) -> Option<()> {
    match tensor.payload() {
        Payload::Dense(elements) => bytes.extend_from_slice(elements),
        Payload::Rounded(rounded) => bytes.extend_from_slice(rounded.bytes()),
        Payload::Strings(strings) => {
            for string in strings {
                bytes.extend_from_slice(&u32::try_from(string.len()).ok()?.to_le_bytes());
                bytes.extend_from_slice(string);
            }
        }
    }
    Some(())
}

fn tensor(output: &Output, mut bytes: Bytes) -> Option<Tensor> {
    let dtype = DataType::from_number(output.r#type);
    let payload = if dtype == DataType::STRING {
        let mut strings = Vec::new();
        while !bytes.is_empty() {
            let length = take_u32(&mut bytes)?;
            strings.push(take(&mut bytes, length)?);
        }
        Payload::Strings(strings)
    } else {
        // Of a type without a known width nobody could say whether the length is right.
        dtype.bits()?;
        Payload::Dense(bytes)
    };
    Tensor::new(dtype, output.shape.clone(), payload).ok()
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

fn take_u32(bytes: &mut Bytes) -> Option<usize> {
    bytes.try_get_u32_le().ok().map(|number| number as usize)
}

fn checksum(key: &CacheKey, content: &[u8]) -> [u8; CHECKSUM] {
    let mut checksum = [0; CHECKSUM];
    blake3::Hasher::new_keyed(key.bytes()).update(content).finalize_xof().fill(&mut checksum);
    checksum
}

#[cfg(test)]
mod tests {
    use super::super::testing::key;
    use super::*;

    fn answer() -> Answer {
        let strings = [&b"caf\xc3\xa9"[..], b"", b"\xff\x00"].map(Bytes::from_static).to_vec();
        let outputs = [
            ("scores", Tensor::of(vec![2, 2], &[1.0f32, -2.5, f32::NAN, 0.0]).unwrap()),
            ("labels", Tensor::new(DataType::STRING, vec![3], Payload::Strings(strings)).unwrap()),
            ("count", Tensor::scalar(-7i64)),
            ("none", Tensor::of::<u8>(vec![0, 5], &[]).unwrap()),
            ("half", Tensor::dense(DataType::FLOAT16, vec![1], vec![0, 0x3c]).unwrap()),
            ("nibbles", Tensor::dense(DataType::INT4, vec![3], vec![0x21, 0x03]).unwrap()),
        ];
        let outputs = outputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
        let timing = Timing { batch_rows: 4, ..Timing::default() };
        Answer { outputs, timing }
    }

    /// With a checksum that is right, so that what is behind it is tried.
    fn sealed(content: &[u8]) -> Bytes {
        let mut bytes = content.to_vec();
        bytes.extend_from_slice(&checksum(&key(1), content));
        bytes.into()
    }

    #[test]
    fn an_answer_comes_back_as_it_was_but_for_its_time() {
        let answer = answer();
        let bytes = Bytes::from(encode(&key(1), &answer, usize::MAX).unwrap());
        let back = decode(&key(1), &bytes).unwrap();
        assert!(back.outputs.iter().eq(answer.outputs.iter()));
        assert_eq!(back.timing, Timing::default());
    }

    #[test]
    fn an_answer_above_the_limit_is_not_encoded() {
        let answer = answer();
        let exact = encode(&key(1), &answer, usize::MAX).unwrap().len();
        assert!(encode(&key(1), &answer, exact).is_some());
        assert!(encode(&key(1), &answer, exact - 1).is_none());
    }

    #[test]
    fn bytes_that_are_another_answer_or_damaged_are_none() {
        let bytes = encode(&key(1), &answer(), usize::MAX).unwrap();
        assert!(decode(&key(2), &bytes.clone().into()).is_none());
        for end in 0..bytes.len() {
            assert!(decode(&key(1), &bytes[..end].to_vec().into()).is_none(), "cut at {end}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            assert!(decode(&key(1), &damaged.into()).is_none(), "damaged at {place}");
        }
        for foreign in [&b""[..], b"moa", b"\x80\x04\x95pickle", b"{\"outputs\":[]}"] {
            assert!(decode(&key(1), &Bytes::from_static(foreign)).is_none());
        }
    }

    #[test]
    fn a_header_that_does_not_fit_its_tensors_is_none() {
        let with = |header: &str, tensors: &[u8]| {
            let mut content = MAGIC.to_vec();
            content.extend_from_slice(&(header.len() as u32).to_le_bytes());
            content.extend_from_slice(header.as_bytes());
            content.extend_from_slice(tensors);
            decode(&key(1), &sealed(&content))
        };
        let one = r#"{"outputs":[{"name":"y","type":1,"shape":[1],"bytes":4}]}"#;
        assert!(with(one, &[0; 4]).is_some());
        assert!(with(one, &[0; 5]).is_none());
        assert!(with(one, &[0; 3]).is_none());
        let wrong = [
            r#"{"outputs":[{"name":"y","type":1,"shape":[2],"bytes":4}]}"#,
            r#"{"outputs":[{"name":"y","type":1,"shape":[-1],"bytes":4}]}"#,
            r#"{"outputs":[{"name":"y","type":99,"shape":[1],"bytes":4}]}"#,
            r#"{"outputs":[{"name":"y","type":8,"shape":[1],"bytes":4}]}"#,
            r#"{"outputs":[{"name":"y","type":1,"shape":[4294967295,4294967295,4294967295],"bytes":4}]}"#,
            r#"{"outputs":[{"name":"y","type":1,"shape":[1],"bytes":18446744073709551615}]}"#,
            r#"{"outputs":7}"#,
            "",
        ];
        for header in wrong {
            assert!(with(header, &[1, 0, 0, 0]).is_none(), "{header}");
        }
        let mut long = MAGIC.to_vec();
        long.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode(&key(1), &sealed(&long)).is_none());
        assert!(decode(&key(1), &sealed(b"moa\x02\0\0\0\0")).is_none());
    }
}
