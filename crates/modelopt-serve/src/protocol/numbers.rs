//! Single elements of tensors: from the text of JSON into little-endian bytes, and back.

use std::io;
use std::ops::Range;
use std::str::FromStr;

use bytes::Bytes;
use half::{bf16, f16};
use modelopt_graph::{DataType, Element, Payload, Tensor};
use serde_json::ser::{CompactFormatter, Formatter};

use super::datatype::datatype_name;
use super::json::{JsonError, Number, Scanner};
use crate::ServeError;

/// Elements that were read.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    /// Those of numbers and booleans.
    pub(crate) dense: Vec<u8>,
    /// Those of strings.
    pub(crate) strings: Vec<Bytes>,
}

/// Reads one element.
pub(crate) type ReadElement = fn(&mut Scanner<'_>, &mut Sink) -> Result<(), JsonError>;

/// What reads elements of a type; none for types that do not go over the wire.
pub(crate) fn reader(dtype: DataType) -> Option<ReadElement> {
    Some(match dtype {
        DataType::BOOL => boolean,
        DataType::UINT8 => integer::<u8>,
        DataType::UINT16 => integer::<u16>,
        DataType::UINT32 => integer::<u32>,
        DataType::UINT64 => integer::<u64>,
        DataType::INT8 => integer::<i8>,
        DataType::INT16 => integer::<i16>,
        DataType::INT32 => integer::<i32>,
        DataType::INT64 => integer::<i64>,
        DataType::FLOAT => float::<f32, f32>,
        DataType::DOUBLE => float::<f64, f64>,
        DataType::FLOAT16 => float::<f64, f16>,
        DataType::BFLOAT16 => float::<f64, bf16>,
        DataType::STRING => string,
        _ => return None,
    })
}

fn boolean(scanner: &mut Scanner<'_>, sink: &mut Sink) -> Result<(), JsonError> {
    let value = scanner.boolean("true or false")?;
    sink.dense.push(u8::from(value));
    Ok(())
}

fn string(scanner: &mut Scanner<'_>, sink: &mut Sink) -> Result<(), JsonError> {
    let value = scanner.string("a string")?;
    sink.strings.push(Bytes::copy_from_slice(value.as_bytes()));
    Ok(())
}

fn integer<T: Element + FromStr>(
    scanner: &mut Scanner<'_>,
    sink: &mut Sink,
) -> Result<(), JsonError> {
    let number = scanner.number("an integer")?;
    if !number.is_integer {
        return Err(wrong(number, "where an integer should be"));
    }
    // Unsigned types do not know the sign of zero.
    let digits = if number.text == "-0" { "0" } else { number.text };
    let value: T = digits.parse().map_err(|_| out_of_range(number, T::DTYPE))?;
    value.write(&mut sink.dense);
    Ok(())
}

/// A float that is read as one of another type, from which the elements are rounded.
trait Float<From>: Element {
    fn round(from: From) -> Self;
    fn is_finite(self) -> bool;
}

macro_rules! float {
    ($($from:ty, $to:ty, $round:expr;)*) => {$(
        impl Float<$from> for $to {
            fn round(from: $from) -> Self {
                $round(from)
            }
            fn is_finite(self) -> bool {
                <$to>::is_finite(self)
            }
        }
    )*};
}

float! {
    f32, f32, std::convert::identity;
    f64, f64, std::convert::identity;
    f64, f16, f16::from_f64;
    f64, bf16, bf16::from_f64;
}

fn float<From: FromStr, To: Float<From>>(
    scanner: &mut Scanner<'_>,
    sink: &mut Sink,
) -> Result<(), JsonError> {
    let number = scanner.number("a number")?;
    let value: From = number.text.parse().map_err(|_| wrong(number, "is no number"))?;
    let value = To::round(value);
    // The number itself is finite; what is not is what it is rounded to.
    if !value.is_finite() {
        return Err(out_of_range(number, To::DTYPE));
    }
    value.write(&mut sink.dense);
    Ok(())
}

fn out_of_range(number: Number<'_>, dtype: DataType) -> JsonError {
    wrong(number, &format!("is out of the range of {}", datatype_name(dtype).unwrap_or_default()))
}

fn wrong(number: Number<'_>, what: &str) -> JsonError {
    /// As many digits as people read.
    const SHOWN: usize = 32;
    let (shown, rest) = match number.text.get(..SHOWN) {
        Some(start) if number.text.len() > SHOWN => (start, "…"),
        _ => (number.text, ""),
    };
    JsonError { what: format!("{shown}{rest} {what}").into(), at: number.at }
}

/// Writes elements as JSON with commas between them. `name` is that of the output.
pub(crate) fn write_elements(
    out: &mut Vec<u8>,
    name: &str,
    tensor: &Tensor,
    range: Range<usize>,
) -> Result<(), ServeError> {
    if let Payload::Strings(strings) = tensor.payload() {
        return write_strings(
            out,
            name,
            strings.get(range.clone()).unwrap_or_default(),
            range.start,
        );
    }
    let mut json = CompactFormatter;
    let written = match tensor.dtype() {
        DataType::FLOAT => each(out, tensor, range, write_f32),
        DataType::FLOAT16 => each(out, tensor, range, |out, x: f16| write_f32(out, x.to_f32())),
        DataType::BFLOAT16 => each(out, tensor, range, |out, x: bf16| write_f32(out, x.to_f32())),
        DataType::DOUBLE => each(out, tensor, range, |out, x: f64| {
            if x.is_finite() { CompactFormatter.write_f64(out, x) } else { null(out) }
        }),
        DataType::BOOL => each(out, tensor, range, |out, x: u8| json.write_bool(out, x != 0)),
        DataType::UINT8 => each(out, tensor, range, |out, x| json.write_u8(out, x)),
        DataType::UINT16 => each(out, tensor, range, |out, x| json.write_u16(out, x)),
        DataType::UINT32 => each(out, tensor, range, |out, x| json.write_u32(out, x)),
        DataType::UINT64 => each(out, tensor, range, |out, x| json.write_u64(out, x)),
        DataType::INT8 => each(out, tensor, range, |out, x| json.write_i8(out, x)),
        DataType::INT16 => each(out, tensor, range, |out, x| json.write_i16(out, x)),
        DataType::INT32 => each(out, tensor, range, |out, x| json.write_i32(out, x)),
        DataType::INT64 => each(out, tensor, range, |out, x| json.write_i64(out, x)),
        other => {
            return Err(ServeError::Unsupported(format!(
                "output '{name}' is of {other}, which does not go over the wire"
            )));
        }
    };
    written.map_err(|error| ServeError::Runtime(format!("output '{name}': {error}")))
}

/// The shortest digits that are this float32 and no other, which those of the same value as float64
/// are not.
pub(crate) fn write_f32(out: &mut Vec<u8>, x: f32) -> io::Result<()> {
    if x.is_finite() { CompactFormatter.write_f32(out, x) } else { null(out) }
}

fn null(out: &mut Vec<u8>) -> io::Result<()> {
    CompactFormatter.write_null(out)
}

fn each<T: Element>(
    out: &mut Vec<u8>,
    tensor: &Tensor,
    range: Range<usize>,
    mut write: impl FnMut(&mut Vec<u8>, T) -> io::Result<()>,
) -> io::Result<()> {
    let size = size_of::<T>();
    let bytes = tensor.bytes().map(Bytes::as_ref).unwrap_or_default();
    let wanted = range.start.saturating_mul(size)..range.end.saturating_mul(size);
    let elements = bytes.get(wanted).ok_or(io::ErrorKind::UnexpectedEof)?.chunks_exact(size);
    for (place, element) in elements.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(out, T::read(element))?;
    }
    Ok(())
}

fn write_strings(
    out: &mut Vec<u8>,
    name: &str,
    strings: &[Bytes],
    first: usize,
) -> Result<(), ServeError> {
    for (place, string) in strings.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        let text = std::str::from_utf8(string).map_err(|_| {
            let place = first + place;
            ServeError::Unsupported(format!(
                "output '{name}', element {place} is not UTF-8: ask for it as binary data"
            ))
        })?;
        serde_json::to_writer(&mut *out, text)
            .map_err(|error| ServeError::Runtime(format!("output '{name}': {error}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dtype: DataType, text: &str) -> Result<Sink, String> {
        let mut sink = Sink::default();
        let mut scanner = Scanner::new(text.as_bytes(), 1);
        reader(dtype).unwrap()(&mut scanner, &mut sink).map_err(|error| error.to_string())?;
        Ok(sink)
    }

    #[test]
    fn numbers_are_rounded_once() {
        // Just above the middle of two float32, where float64 has only the middle.
        let text = "1.00000005960464477539062500001";
        let above = 1f32.next_up();
        assert_eq!(read(DataType::FLOAT, text).unwrap().dense, above.to_le_bytes());
        assert!((text.parse::<f64>().unwrap() as f32) < above);
        assert_eq!(read(DataType::FLOAT16, "0.1").unwrap().dense, f16::from_f64(0.1).to_le_bytes());
        assert_eq!(read(DataType::DOUBLE, "-0.0").unwrap().dense, (-0.0f64).to_le_bytes());
    }

    #[test]
    fn what_is_no_element_of_the_type_is_refused() {
        let error = |dtype, text| read(dtype, text).unwrap_err();
        assert_eq!(error(DataType::UINT8, "256"), "256 is out of the range of UINT8 at byte 0");
        assert_eq!(error(DataType::UINT8, "-1"), "-1 is out of the range of UINT8 at byte 0");
        assert_eq!(error(DataType::INT64, " 1.0"), "1.0 where an integer should be at byte 1");
        assert_eq!(error(DataType::INT32, "1e2"), "1e2 where an integer should be at byte 0");
        let large = "18446744073709551616";
        assert!(error(DataType::UINT64, large).contains("is out of the range of UINT64"));
        assert_eq!(error(DataType::FLOAT, "1e39"), "1e39 is out of the range of FP32 at byte 0");
        assert_eq!(
            error(DataType::FLOAT16, "65520"),
            "65520 is out of the range of FP16 at byte 0"
        );
        assert_eq!(error(DataType::FLOAT, "\"1\""), "a string where a number should be at byte 0");
        assert_eq!(
            error(DataType::FLOAT, "true"),
            "true or false where a number should be at byte 0"
        );
        assert!(
            error(DataType::FLOAT, "NaN").starts_with("NaN or infinity, which only binary data")
        );
        assert_eq!(error(DataType::BOOL, "1"), "a number where true or false should be at byte 0");
        assert_eq!(error(DataType::STRING, "1"), "a number where a string should be at byte 0");
        assert!(error(DataType::INT8, &"9".repeat(1000)).len() < 100);
    }

    #[test]
    fn the_ends_of_ranges_are_taken() {
        assert_eq!(read(DataType::INT8, "-128").unwrap().dense, [128]);
        assert_eq!(read(DataType::UINT64, "18446744073709551615").unwrap().dense, [255; 8]);
        assert_eq!(read(DataType::UINT8, "-0").unwrap().dense, [0]);
        assert_eq!(read(DataType::FLOAT16, "65504").unwrap().dense, f16::MAX.to_le_bytes());
    }

    fn written(tensor: &Tensor) -> String {
        let mut out = Vec::new();
        write_elements(&mut out, "y", tensor, 0..tensor.len()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_are_written_in_as_few_digits_as_they_need() {
        let tensor = Tensor::of(vec![4], &[0.1f32, -1.0, f32::NAN, f32::INFINITY]).unwrap();
        assert_eq!(written(&tensor), "0.1,-1.0,null,null");
        let tensor = Tensor::of(vec![1], &[f16::from_f32(0.1)]).unwrap();
        assert_eq!(written(&tensor), "0.099975586");
        assert_eq!(written(&Tensor::of(vec![1], &[0.1f64]).unwrap()), "0.1");
    }

    #[test]
    fn integers_booleans_and_strings_are_written_as_they_are() {
        assert_eq!(
            written(&Tensor::of(vec![2], &[u64::MAX, 0]).unwrap()),
            "18446744073709551615,0"
        );
        let tensor = Tensor::dense(DataType::BOOL, vec![2], vec![1, 0]).unwrap();
        assert_eq!(written(&tensor), "true,false");
        let strings = vec![Bytes::from("é\""), Bytes::from(vec![0xff])];
        let tensor = Tensor::new(DataType::STRING, vec![2], Payload::Strings(strings)).unwrap();
        let mut out = Vec::new();
        write_elements(&mut out, "y", &tensor, 0..1).unwrap();
        assert_eq!(out, "\"é\\\"\"".as_bytes());
        let error = write_elements(&mut out, "y", &tensor, 1..2).unwrap_err();
        assert!(error.to_string().contains("output 'y', element 1 is not UTF-8"), "{error}");
    }

    #[test]
    fn a_range_beyond_the_elements_is_an_error() {
        let tensor = Tensor::of(vec![2], &[1f32, 2.0]).unwrap();
        assert!(write_elements(&mut Vec::new(), "y", &tensor, 1..3).is_err());
    }
}
