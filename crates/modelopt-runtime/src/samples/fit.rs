//! Whether samples are what a model takes, before anything runs.
//!
//! Names of element types are `NumPy`'s here, since that is where samples come from.

use std::path::Path;

use modelopt_graph::{DataType, Dim, Tensor, Type};

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
        let advice = advice(&missing, others);
        return Err(SampleError::Missing { path: path.to_owned(), missing, found, advice });
    }
    for input in inputs {
        if let (Type::Tensor { elem, shape }, Some(tensor)) =
            (&input.ty, sample.inputs.get(&input.name))
        {
            let wrong = wrong_type(tensor, *elem)
                .or_else(|| shape.as_ref().and_then(|dims| wrong_shape(tensor, dims)));
            if let Some(message) = wrong {
                let (path, input) = (path.to_owned(), input.name.clone());
                return Err(SampleError::Unfit { path, input, message });
            }
        }
    }
    Ok(())
}

/// Values that no sensible input has, for a warning.
pub(super) fn oddities(sample: &Sample) -> Vec<String> {
    let odd = |(input, tensor): (&String, &Tensor)| {
        if !tensor.dtype().is_float() {
            return None;
        }
        let elements = tensor.to_f32()?;
        let (nans, infinities) = elements.iter().fold((0usize, 0usize), |(nans, inf), x| {
            (nans + usize::from(x.is_nan()), inf + usize::from(x.is_infinite()))
        });
        let total = elements.len();
        let what = match (nans, infinities) {
            (0, 0) => return None,
            (nans, 0) => format!("{nans} of {total} elements that are NaN"),
            (0, infinities) => format!("{infinities} of {total} elements that are infinite"),
            _ => format!("{nans} of {total} elements that are NaN and {infinities} infinite ones"),
        };
        Some(format!("sample '{}': input '{input}' has {what}", sample.name))
    };
    sample.inputs.iter().filter_map(odd).collect()
}

fn wrong_type(tensor: &Tensor, wanted: DataType) -> Option<String> {
    let is = tensor.dtype();
    if is == wanted {
        return None;
    }
    let (is_name, wanted_name) = (numpy_name(is), numpy_name(wanted));
    let convertible = |dtype: DataType| dtype != DataType::STRING && numpy_has(dtype);
    let cure = if convertible(is) && convertible(wanted) {
        let dtype = if wanted == DataType::BOOL { "bool" } else { &wanted_name };
        format!("; convert it with .astype('{dtype}')")
    } else {
        String::new()
    };
    Some(format!("is {is_name}, the model wants {wanted_name}{cure}"))
}

fn wrong_shape(tensor: &Tensor, wanted: &[Dim]) -> Option<String> {
    let shape = tensor.shape();
    let shown = Type::Tensor { elem: tensor.dtype(), shape: Some(wanted.to_vec()) }.to_string();
    let shown = shown.split_once('[').map_or(shown.clone(), |(_, dims)| format!("[{dims}"));
    if fits(wanted, shape) {
        return None;
    }
    let cure = cure(wanted, shape).map(|cure| format!("; {cure}")).unwrap_or_default();
    if shape.len() != wanted.len() {
        let (is, wants) = (shape.len(), wanted.len());
        return Some(format!(
            "has shape {shape:?}, of rank {is}, the model wants {shown}, of rank {wants}{cure}"
        ));
    }
    Some(format!("has shape {shape:?}, the model wants {shown}{cure}"))
}

/// Exporters write 0 for a size they do not know, so 0 fits everything.
fn fits(wanted: &[Dim], shape: &[usize]) -> bool {
    let fits =
        |(dim, size): (&Dim, &usize)| dim.fixed().is_none_or(|fixed| fixed == 0 || fixed == *size);
    wanted.len() == shape.len() && wanted.iter().zip(shape).all(fits)
}

/// How the shape could be made right, where one thing would do.
fn cure(wanted: &[Dim], shape: &[usize]) -> Option<String> {
    let with_batch: Vec<usize> = [&[1], shape].concat();
    if fits(wanted, &with_batch) {
        return Some("put a batch of 1 in front with [None]".to_owned());
    }
    if let [1, rest @ ..] = shape
        && fits(wanted, rest)
    {
        return Some("take the first dimension away with [0]".to_owned());
    }
    match *shape {
        [n, h, w, c] if fits(wanted, &[n, c, h, w]) => {
            Some("put channels first with .transpose(0, 3, 1, 2)".to_owned())
        }
        [n, c, h, w] if fits(wanted, &[n, h, w, c]) => {
            Some("put channels last with .transpose(0, 2, 3, 1)".to_owned())
        }
        [h, w, c] if fits(wanted, &[1, c, h, w]) => {
            Some("make it a batch with channels first with .transpose(2, 0, 1)[None]".to_owned())
        }
        _ => None,
    }
}

/// What was probably meant for a missing input.
fn advice(missing: &[String], others: &[String]) -> String {
    if let ([missing], [other]) = (missing, others) {
        return format!("; rename '{other}' if it is meant for '{missing}'");
    }
    let near = missing.iter().filter_map(|missing| {
        let close = others.iter().filter(|other| is_near(missing, other));
        let other = close.min_by_key(|other| (distance(missing, other), other.len()))?;
        Some((other.clone(), missing.clone()))
    });
    let near: Vec<String> =
        near.map(|(other, missing)| format!("'{missing}' is not '{other}'")).collect();
    if near.is_empty() { String::new() } else { format!("; note that {}", near.join(", ")) }
}

fn is_near(a: &str, b: &str) -> bool {
    let plain = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
    };
    let (a, b) = (plain(a), plain(b));
    let contains = a.len() > 2 && b.len() > 2 && (a.contains(&b) || b.contains(&a));
    contains || distance(&a, &b) * 3 <= a.len().max(b.len())
}

/// How many characters have to be put in, left out or exchanged.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, a) in a.chars().enumerate() {
        let mut above_left = index;
        let mut left = index + 1;
        let mut next = vec![left];
        for (b, above) in b.iter().zip(row.iter().skip(1)) {
            left = (above_left + usize::from(a != *b)).min(above + 1).min(left + 1);
            above_left = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn numpy_has(dtype: DataType) -> bool {
    dtype == DataType::BOOL || NUMPY.iter().any(|(known, _)| *known == dtype)
}

const NUMPY: [(DataType, &str); 11] = [
    (DataType::FLOAT, "float32"),
    (DataType::DOUBLE, "float64"),
    (DataType::FLOAT16, "float16"),
    (DataType::INT64, "int64"),
    (DataType::INT32, "int32"),
    (DataType::INT16, "int16"),
    (DataType::INT8, "int8"),
    (DataType::UINT64, "uint64"),
    (DataType::UINT32, "uint32"),
    (DataType::UINT16, "uint16"),
    (DataType::UINT8, "uint8"),
];

fn numpy_name(dtype: DataType) -> String {
    let known = NUMPY.iter().find(|(known, _)| *known == dtype);
    known.map_or_else(|| dtype.to_string(), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

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
        assert_eq!(
            oddities(&sample(&[("x", odd), ("y", zeros(&[2]))])),
            ["sample 's': input 'x' has 2 of 4 elements that are NaN and 1 infinite ones"]
        );
    }
}
