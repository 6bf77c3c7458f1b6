//! `.npy`, as in `NumPy`'s format specification (NEP 1), versions 1 to 3.
//!
//! Its own reader, because samples come in float16, strings and byte orders that typed readers
//! leave out, and because a header may claim any size.

use std::io::Read;

use bytes::Bytes;
use modelopt_graph::{DataType, Payload, Tensor, TensorError, element_count};

/// Longest header that is read; real ones take about a hundred bytes.
const LONGEST_HEADER: usize = 64 << 10;

/// Largest array that is read: a small compressed file may claim, and inflate to, almost anything.
const LARGEST_ARRAY: u64 = 4 << 30;

/// Highest number of dimensions; `NumPy`'s own limit is 64.
const HIGHEST_RANK: usize = 64;

/// Why an array cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum NpyError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it is not an .npy: {0}")]
    Header(&'static str),
    #[error("elements of type '{0}' cannot be read; save numbers, booleans or fixed-width strings")]
    Type(String),
    #[error(
        "it holds Python objects, which only Python can read; save text with a fixed width, by \
         np.array(values, dtype=str)"
    )]
    Objects,
    #[error("shape {shape:?} takes {needed} bytes, but there are only {available}")]
    Truncated { shape: Vec<usize>, needed: u64, available: u64 },
    #[error("shape {0:?} takes more than 4 GiB")]
    TooLarge(Vec<usize>),
    #[error("it holds text that is not Unicode")]
    Text,
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// How one element is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Elements {
    /// Numbers, made of parts of this many bytes to be swapped if big-endian.
    Number {
        dtype: DataType,
        part: usize,
        big_endian: bool,
    },
    Bool,
    /// NUL-padded bytes.
    Bytes,
    /// NUL-padded UTF-32.
    Unicode {
        big_endian: bool,
    },
}

#[derive(Debug, PartialEq)]
struct Header {
    elements: Elements,
    /// Bytes per element; never 0.
    width: usize,
    column_major: bool,
    shape: Vec<usize>,
}

/// Reads an array; `available` is how many bytes the reader has at most.
pub(super) fn read(mut reader: impl Read, available: u64) -> Result<Tensor, NpyError> {
    let text = read_header(&mut reader)?;
    let header = parse_header(&text)?;
    let too_large = || NpyError::TooLarge(header.shape.clone());
    let count = element_count(&header.shape).ok_or_else(too_large)?;
    let length = count.checked_mul(header.width).ok_or_else(too_large)?;
    let needed = length as u64;
    if needed > LARGEST_ARRAY {
        return Err(too_large());
    }
    let truncated =
        |available| NpyError::Truncated { shape: header.shape.clone(), needed, available };
    if needed > available {
        return Err(truncated(available));
    }
    // Grows with what really arrives.
    let mut payload = Vec::new();
    reader.take(needed).read_to_end(&mut payload)?;
    if payload.len() != length {
        return Err(truncated(payload.len() as u64));
    }
    if header.column_major && header.shape.len() > 1 && count > 1 {
        payload = row_major(&payload, header.width, &header.shape);
    }
    tensor(header, payload)
}

fn read_header(reader: &mut impl Read) -> Result<String, NpyError> {
    let mut magic = [0; 8];
    reader.read_exact(&mut magic)?;
    let [b'\x93', b'N', b'U', b'M', b'P', b'Y', major, _] = magic else {
        return Err(NpyError::Header("its first bytes are others"));
    };
    let length = match major {
        1 => {
            let mut length = [0; 2];
            reader.read_exact(&mut length)?;
            usize::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0; 4];
            reader.read_exact(&mut length)?;
            u32::from_le_bytes(length) as usize
        }
        _ => return Err(NpyError::Header("its version is unknown")),
    };
    if length > LONGEST_HEADER {
        return Err(NpyError::Header("its header is too long"));
    }
    let mut header = vec![0; length];
    reader.read_exact(&mut header)?;
    String::from_utf8(header).map_err(|_| NpyError::Header("its header is not text"))
}

/// Reads a Python dictionary such as
/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse_header(text: &str) -> Result<Header, NpyError> {
    let descr = entry(text, "descr").ok_or(NpyError::Header("it gives no element type"))?;
    let order = entry(text, "fortran_order").ok_or(NpyError::Header("it gives no order"))?;
    let shape = entry(text, "shape").ok_or(NpyError::Header("it gives no shape"))?;
    let (elements, width) = parse_descr(quoted(descr).unwrap_or(descr))?;
    let bad_shape = || NpyError::Header("its shape is malformed");
    let dims = shape.strip_prefix('(').and_then(|rest| rest.split(')').next());
    let shape = dims
        .ok_or_else(bad_shape)?
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty())
        .map(|dim| dim.trim_end_matches('L').parse().map_err(|_| bad_shape()))
        .collect::<Result<Vec<usize>, _>>()?;
    if shape.len() > HIGHEST_RANK {
        return Err(bad_shape());
    }
    Ok(Header { elements, width, column_major: order.starts_with("True"), shape })
}

/// What follows `'key':`.
fn entry<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let after = ['\'', '"'].iter().find_map(|quote| {
        let quoted = format!("{quote}{key}{quote}");
        text.split_once(&quoted).map(|(_, after)| after)
    })?;
    Some(after.trim_start().strip_prefix(':')?.trim_start())
}

fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|&quote| quote == '\'' || quote == '"')?;
    text.get(1..)?.split(quote).next()
}

/// Reads a type string such as `<f4`: byte order, kind, bytes per element (characters for `U`).
fn parse_descr(descr: &str) -> Result<(Elements, usize), NpyError> {
    let unknown = || NpyError::Type(descr.chars().take(40).collect());
    let rest = descr.trim_start_matches(['<', '>', '|', '=']);
    let big_endian = descr.starts_with('>');
    let mut chars = rest.chars();
    let kind = chars.next().ok_or_else(unknown)?;
    // Pickled objects, and the text of variable width that NumPy has since 2.0.
    if matches!(kind, 'O' | 'T') {
        return Err(NpyError::Objects);
    }
    let size: usize = chars.as_str().parse().map_err(|_| unknown())?;
    let dtype = match (kind, size) {
        ('b', 1) => return Ok((Elements::Bool, 1)),
        ('S' | 'a', 1..) => return Ok((Elements::Bytes, size)),
        ('U', 1..) => {
            let width = size.checked_mul(4).ok_or_else(unknown)?;
            return Ok((Elements::Unicode { big_endian }, width));
        }
        ('f', 2) => DataType::FLOAT16,
        ('f', 4) => DataType::FLOAT,
        ('f', 8) => DataType::DOUBLE,
        ('i', 1) => DataType::INT8,
        ('i', 2) => DataType::INT16,
        ('i', 4) => DataType::INT32,
        ('i', 8) => DataType::INT64,
        ('u', 1) => DataType::UINT8,
        ('u', 2) => DataType::UINT16,
        ('u', 4) => DataType::UINT32,
        ('u', 8) => DataType::UINT64,
        ('c', 8) => DataType::COMPLEX64,
        ('c', 16) => DataType::COMPLEX128,
        _ => return Err(unknown()),
    };
    let part = if kind == 'c' { size / 2 } else { size };
    Ok((Elements::Number { dtype, part, big_endian }, size))
}

/// Elements of a column-major array (the first index runs fastest) in row-major order.
fn row_major(payload: &[u8], width: usize, shape: &[usize]) -> Vec<u8> {
    let strides: Vec<usize> = shape
        .iter()
        .scan(width, |stride, &dim| Some(std::mem::replace(stride, *stride * dim)))
        .collect();
    let mut index = vec![0; shape.len()];
    let mut out = Vec::with_capacity(payload.len());
    for _ in 0..payload.len() / width {
        let at: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        out.extend_from_slice(payload.get(at..at + width).unwrap_or_default());
        for (i, &dim) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < dim {
                break;
            }
            *i = 0;
        }
    }
    out
}

fn tensor(header: Header, mut payload: Vec<u8>) -> Result<Tensor, NpyError> {
    let Header { elements, width, shape, .. } = header;
    let (dtype, payload) = match elements {
        Elements::Number { dtype, part, big_endian } => {
            if big_endian {
                payload.chunks_exact_mut(part).for_each(<[u8]>::reverse);
            }
            (dtype, Payload::Dense(payload.into()))
        }
        Elements::Bool => {
            for byte in &mut payload {
                *byte = u8::from(*byte != 0);
            }
            (DataType::BOOL, Payload::Dense(payload.into()))
        }
        Elements::Bytes => {
            let strings = payload.chunks_exact(width).map(|text| {
                let padding = text.iter().rev().take_while(|&&byte| byte == 0).count();
                Bytes::copy_from_slice(text.get(..width - padding).unwrap_or_default())
            });
            (DataType::STRING, Payload::Strings(strings.collect()))
        }
        Elements::Unicode { big_endian } => {
            let strings = payload.chunks_exact(width).map(|text| utf8(text, big_endian));
            (DataType::STRING, Payload::Strings(strings.collect::<Result<_, _>>()?))
        }
    };
    Ok(Tensor::new(dtype, shape, payload)?)
}

fn utf8(utf32: &[u8], big_endian: bool) -> Result<Bytes, NpyError> {
    let mut text = String::new();
    for code in utf32.chunks_exact(4) {
        let code: [u8; 4] = code.try_into().map_err(|_| NpyError::Text)?;
        let code = if big_endian { u32::from_be_bytes(code) } else { u32::from_le_bytes(code) };
        text.push(char::from_u32(code).ok_or(NpyError::Text)?);
    }
    Ok(Bytes::from(text.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, ShapeBuilder, array};
    use ndarray_npy::WriteNpyExt;

    use super::*;

    fn file(descr: &str, shape: &str, payload: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(payload);
        file
    }

    fn parse(file: &[u8]) -> Result<Tensor, NpyError> {
        read(file, file.len() as u64)
    }

    #[test]
    fn arrays_of_another_writer_are_read() {
        let mut file = Vec::new();
        array![[1.5f64, 2.0], [3.0, 4.0], [5.0, 6.0]].write_npy(&mut file).unwrap();
        let tensor = parse(&file).unwrap();
        assert_eq!(tensor, Tensor::of(vec![3, 2], &[1.5f64, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap());
    }

    #[test]
    fn column_major_arrays_become_row_major() {
        let columns = Array::from_shape_vec((2, 3, 2).f(), (0..12i16).collect()).unwrap();
        let mut file = Vec::new();
        columns.write_npy(&mut file).unwrap();
        assert!(String::from_utf8_lossy(&file).contains("'fortran_order': True"));
        let rows: Vec<i16> = columns.iter().copied().collect();
        assert_eq!(parse(&file).unwrap(), Tensor::of(vec![2, 3, 2], &rows).unwrap());
    }

    #[test]
    fn half_floats_strings_and_other_byte_orders_are_read() {
        let half = parse(&file("'<f2'", "()", &[0x00, 0x3e])).unwrap();
        assert_eq!(half, Tensor::scalar(half::f16::from_f32(1.5)));
        let big = parse(&file("'>i4'", "(1,)", &[0, 0, 1, 2])).unwrap();
        assert_eq!(big.to_i64().unwrap(), [258]);
        let text = parse(&file("'|S3'", "(2,)", b"ab\0xyz")).unwrap();
        let strings = Payload::Strings(vec!["ab".into(), "xyz".into()]);
        assert_eq!(text, Tensor::new(DataType::STRING, vec![2], strings).unwrap());
        let text = parse(&file("'<U2'", "(1,)", &[0xfc, 0, 0, 0, 0, 0, 0, 0])).unwrap();
        let strings = Payload::Strings(vec!["ü".into()]);
        assert_eq!(text, Tensor::new(DataType::STRING, vec![1], strings).unwrap());
        let flags = parse(&file("'|b1'", "(2, 1)", &[0, 9])).unwrap();
        assert_eq!(flags, Tensor::dense(DataType::BOOL, vec![2, 1], vec![0, 1]).unwrap());
    }

    #[test]
    fn claims_beyond_the_file_are_refused() {
        let huge = parse(&file("'<f4'", "(1000000,)", &[0; 8]));
        assert!(matches!(huge, Err(NpyError::Truncated { needed: 4_000_000, .. })));
        let huge = parse(&file("'<f4'", "(4611686018427387904, 4)", &[]));
        assert!(matches!(huge, Err(NpyError::TooLarge(_))));
        let lie = read(&file("'<f4'", "(3,)", &[0; 8])[..], 1 << 40);
        assert!(matches!(lie, Err(NpyError::Truncated { available: 8, .. })));
        assert!(matches!(parse(&file("'<U0'", "(9,)", &[])), Err(NpyError::Type(_))));
    }

    #[test]
    fn malformed_files_are_refused() {
        let objects = parse(&file("'|O'", "(1,)", &[])).unwrap_err().to_string();
        assert!(objects.contains("np.array(values, dtype=str)"), "{objects}");
        assert!(parse(&file("[('a', '<f4')]", "(1,)", &[0; 4])).is_err());
        assert!(parse(&file("'<f4'", "(-1,)", &[])).is_err());
        assert!(parse(&file("'<f4'", "1", &[0; 4])).is_err());
        let good = file("'<f4'", "(1,)", &[0; 4]);
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_err());
        }
    }
}
