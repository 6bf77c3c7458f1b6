//! Tensors as bytes: little-endian and row-major, booleans as one byte, strings with their length in four
//! bytes before each.

use bytes::Bytes;
use modelopt_graph::{DataType, Payload, Tensor, TensorError};

use super::elements::shown;
use crate::ServeError;

/// The bytes of a length before a string.
const LENGTH: usize = 4;

/// The tensor of an input. Numbers stay where they are in the body.
pub(crate) fn read_binary(
    input: &str,
    (dtype, shape): (DataType, Vec<usize>),
    count: usize,
    bytes: Bytes,
) -> Result<Tensor, ServeError> {
    let payload = match dtype {
        DataType::STRING => Payload::Strings(strings(input, count, &bytes)?),
        DataType::BOOL => {
            if let Some(place) = bytes.iter().position(|byte| *byte > 1) {
                return Err(ServeError::Invalid(format!(
                    "input '{}', element {place}: a BOOL is a byte that is 0 or 1",
                    shown(input)
                )));
            }
            Payload::Dense(bytes)
        }
        _ => Payload::Dense(bytes),
    };
    Tensor::new(dtype, shape, payload).map_err(|error| tensor_error(input, &error))
}

/// What is wrong with a tensor that a client sent.
pub(crate) fn tensor_error(input: &str, error: &TensorError) -> ServeError {
    ServeError::Invalid(format!("input '{}': {error}", shown(input)))
}

fn strings(input: &str, count: usize, bytes: &Bytes) -> Result<Vec<Bytes>, ServeError> {
    let wrong = |place: usize, what: &str| {
        ServeError::Invalid(format!("input '{}', element {place}: {what}", shown(input)))
    };
    // As many as the bytes can have, whatever the shape says.
    let mut strings = Vec::with_capacity(count.min(bytes.len() / LENGTH));
    let mut rest = bytes.clone();
    while strings.len() < count {
        let Some(length) = rest.first_chunk::<LENGTH>() else {
            return Err(wrong(strings.len(), "the binary data ends before its length"));
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > rest.len() - LENGTH {
            return Err(wrong(strings.len(), "it is longer than the binary data"));
        }
        let mut string = rest.split_off(LENGTH);
        rest = string.split_off(length);
        strings.push(string);
    }
    if !rest.is_empty() {
        let what = format!("{} bytes follow the last element", rest.len());
        return Err(ServeError::Invalid(format!("input '{}': {what}", shown(input))));
    }
    Ok(strings)
}

/// How many bytes a tensor is.
pub(crate) fn binary_len(tensor: &Tensor) -> usize {
    match tensor.payload() {
        Payload::Strings(strings) => strings.iter().map(|string| LENGTH + string.len()).sum(),
        _ => tensor.byte_len(),
    }
}

/// Appends a tensor.
pub(crate) fn write_binary(out: &mut Vec<u8>, tensor: &Tensor) {
    if let Payload::Strings(strings) = tensor.payload() {
        for string in strings {
            // A tensor that goes over the wire has no string of 4 GiB.
            out.extend_from_slice(&(string.len() as u32).to_le_bytes());
            out.extend_from_slice(string);
        }
    } else if let Some(bytes) = tensor.bytes() {
        out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dtype: DataType, shape: &[usize], bytes: &[u8]) -> Result<Tensor, String> {
        let count = shape.iter().product();
        let bytes = Bytes::copy_from_slice(bytes);
        read_binary("x", (dtype, shape.to_vec()), count, bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn strings_have_their_length_before_them() {
        let bytes = [2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0];
        let tensor = read(DataType::STRING, &[2], &bytes).unwrap();
        assert!(
            matches!(tensor.payload(), Payload::Strings(all) if all[0] == "ab" && all[1].is_empty())
        );
        let mut out = Vec::new();
        write_binary(&mut out, &tensor);
        assert_eq!(out, bytes);
        assert_eq!(binary_len(&tensor), bytes.len());
    }

    #[test]
    fn wrong_lengths_name_the_element() {
        let error = |bytes: &[u8]| read(DataType::STRING, &[2], bytes).unwrap_err();
        assert!(error(&[0, 0, 0, 0, 1, 0]).contains("element 1: the binary data ends"));
        assert!(error(&[0, 0, 0, 0, 1, 0, 0, 0]).contains("element 1: it is longer"));
        assert!(error(&[255; 8]).contains("element 0: it is longer"));
        assert!(error(&[0; 9]).contains("1 bytes follow"));
    }

    #[test]
    fn booleans_are_zero_or_one() {
        assert!(read(DataType::BOOL, &[2], &[0, 1]).is_ok());
        let error = read(DataType::BOOL, &[2], &[0, 2]).unwrap_err();
        assert_eq!(error, "input 'x', element 1: a BOOL is a byte that is 0 or 1");
    }

    #[test]
    fn numbers_stay_where_they_are() {
        let body = Bytes::from(vec![1u8; 8]);
        let tensor = read_binary("x", (DataType::FLOAT, vec![2]), 2, body.clone()).unwrap();
        assert_eq!(tensor.bytes().unwrap().as_ptr(), body.as_ptr());
        assert!(read(DataType::FLOAT, &[2], &[0; 7]).is_err());
    }
}
