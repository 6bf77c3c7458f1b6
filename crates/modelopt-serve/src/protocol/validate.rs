//! Holds what is asked to what a model takes.

use std::collections::HashMap;

use half::{bf16, f16};
use indexmap::IndexMap;
use modelopt_graph::{DataType, Element, Tensor};

use super::datatype::datatype_name;
use super::elements::shown;
use super::request::invalid;
use crate::{Dimension, Inference, ServeError, Signature, TensorSpec};

/// What is held beyond types and shapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// What is done about NaN and infinity in inputs.
    pub non_finite: NonFinite,
    /// Ranges of inputs by name, for those that are held to one.
    pub ranges: IndexMap<String, InputRange>,
}

/// What is done about NaN and infinity in inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NonFinite {
    /// The model gets them.
    #[default]
    Allow,
    /// The request is refused.
    Refuse,
}

/// From where to where elements of an input may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputRange {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// Refuses what a model would not take, and says which input, and which element, it is about.
pub fn validate(
    inference: &Inference,
    signature: &Signature,
    policy: &Policy,
) -> Result<(), ServeError> {
    for name in inference.inputs.keys() {
        if signature.input(name).is_none() {
            return Err(invalid(format!("the model has no input '{}'", shown(name))));
        }
    }
    for name in &inference.outputs {
        if signature.output(name).is_none() {
            return Err(invalid(format!("the model has no output '{}'", shown(name))));
        }
    }
    let mut named = HashMap::new();
    for spec in &signature.inputs {
        let Some(tensor) = inference.inputs.get(&spec.name) else {
            return Err(invalid(format!("input '{}' is missing", spec.name)));
        };
        hold_type(spec, tensor)?;
        hold_shape(spec, tensor, &mut named)?;
        hold_values(spec, tensor, policy)?;
    }
    Ok(())
}

fn hold_type(spec: &TensorSpec, tensor: &Tensor) -> Result<(), ServeError> {
    if tensor.dtype() == spec.dtype {
        return Ok(());
    }
    let name = |dtype| datatype_name(dtype).unwrap_or("of another type");
    let (wanted, given) = (name(spec.dtype), name(tensor.dtype()));
    Err(invalid(format!("input '{}' is {wanted}, but {given} was given", spec.name)))
}

/// The size of each name so far, and which input gave it.
type NamedSizes<'a> = HashMap<&'a str, (usize, &'a str)>;

fn hold_shape<'a>(
    spec: &'a TensorSpec,
    tensor: &Tensor,
    named: &mut NamedSizes<'a>,
) -> Result<(), ServeError> {
    let Some(dims) = &spec.shape else { return Ok(()) };
    let (input, given) = (&spec.name, tensor.shape());
    if given.len() != dims.len() {
        let (wanted, rank) = (dims.len(), given.len());
        return Err(invalid(format!(
            "input '{input}' has {wanted} dimensions, but {given:?} has {rank}"
        )));
    }
    for (axis, (dim, &size)) in dims.iter().zip(given).enumerate() {
        match dim {
            Dimension::Fixed(wanted) if *wanted != size => {
                return Err(invalid(format!(
                    "input '{input}': dimension {axis} is {wanted}, but {size} was given"
                )));
            }
            Dimension::Named(name) => {
                let (known, other) = *named.entry(name).or_insert((size, input));
                if known != size {
                    return Err(invalid(format!(
                        "input '{input}': dimension {axis} ('{name}') is {size}, but {known} in input '{other}'"
                    )));
                }
            }
            Dimension::Fixed(_) | Dimension::Any => {}
        }
    }
    Ok(())
}

fn hold_values(spec: &TensorSpec, tensor: &Tensor, policy: &Policy) -> Result<(), ServeError> {
    let range = policy.ranges.get(&spec.name).copied();
    let refuses = policy.non_finite == NonFinite::Refuse && spec.dtype.is_float();
    if !refuses && range.is_none() {
        return Ok(());
    }
    let Some((place, value)) = first_outside(tensor, refuses, range) else { return Ok(()) };
    let input = &spec.name;
    Err(invalid(match range {
        Some(InputRange { min, max }) if !refuses || value.is_finite() => {
            format!("input '{input}', element {place}: {value} is not from {min} to {max}")
        }
        _ => format!("input '{input}', element {place}: {value} is not finite"),
    }))
}

/// The first element that may not be.
fn first_outside(
    tensor: &Tensor,
    refuses: bool,
    range: Option<InputRange>,
) -> Option<(usize, f64)> {
    let is_outside = |value: f64| {
        refuses && !value.is_finite()
            // What cannot be compared is outside as well.
            || range.is_some_and(|range| !(range.min..=range.max).contains(&value))
    };
    match tensor.dtype() {
        DataType::FLOAT => find(tensor, |x: f32| f64::from(x), is_outside),
        DataType::DOUBLE => find(tensor, |x: f64| x, is_outside),
        DataType::FLOAT16 => find(tensor, f16::to_f64, is_outside),
        DataType::BFLOAT16 => find(tensor, bf16::to_f64, is_outside),
        DataType::INT8 => find(tensor, |x: i8| f64::from(x), is_outside),
        DataType::INT16 => find(tensor, |x: i16| f64::from(x), is_outside),
        DataType::INT32 => find(tensor, |x: i32| f64::from(x), is_outside),
        DataType::INT64 => find(tensor, |x: i64| x as f64, is_outside),
        DataType::UINT8 | DataType::BOOL => find(tensor, |x: u8| f64::from(x), is_outside),
        DataType::UINT16 => find(tensor, |x: u16| f64::from(x), is_outside),
        DataType::UINT32 => find(tensor, |x: u32| f64::from(x), is_outside),
        DataType::UINT64 => find(tensor, |x: u64| x as f64, is_outside),
        _ => None,
    }
}

fn find<T: Element>(
    tensor: &Tensor,
    value: impl Fn(T) -> f64,
    is_outside: impl Fn(f64) -> bool,
) -> Option<(usize, f64)> {
    let elements = tensor.bytes()?.chunks_exact(size_of::<T>());
    elements.map(|bytes| value(T::read(bytes))).enumerate().find(|(_, value)| is_outside(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, dtype: DataType, shape: &[Dimension]) -> TensorSpec {
        TensorSpec { name: name.to_owned(), dtype, shape: Some(shape.to_vec()) }
    }

    fn signature() -> Signature {
        let batch = || Dimension::Named("batch".to_owned());
        Signature {
            inputs: vec![
                spec("x", DataType::FLOAT, &[batch(), Dimension::Fixed(2)]),
                spec("n", DataType::INT64, &[batch(), Dimension::Any]),
            ],
            outputs: vec![spec("y", DataType::FLOAT, &[batch()])],
        }
    }

    fn inference(x: &Tensor, n: &Tensor) -> Inference {
        let inputs = [("x", x), ("n", n)].map(|(name, tensor)| (name.to_owned(), tensor.clone()));
        Inference { inputs: inputs.into_iter().collect(), ..Inference::default() }
    }

    fn good() -> Inference {
        let x = Tensor::of(vec![2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap();
        inference(&x, &Tensor::of(vec![2, 1], &[5i64, 6]).unwrap())
    }

    fn refused(inference: &Inference, policy: &Policy) -> String {
        let error = validate(inference, &signature(), policy).unwrap_err();
        assert_eq!(error.status(), 400);
        error.to_string()
    }

    #[test]
    fn what_fits_is_taken() {
        let mut good = good();
        good.outputs = vec!["y".to_owned()];
        assert_eq!(validate(&good, &signature(), &Policy::default()), Ok(()));
    }

    #[test]
    fn names_are_held() {
        let policy = Policy::default();
        let mut request = good();
        request.inputs.shift_remove("n");
        assert_eq!(refused(&request, &policy), "input 'n' is missing");
        let mut request = good();
        request.inputs.insert("z".to_owned(), Tensor::scalar(1f32));
        assert_eq!(refused(&request, &policy), "the model has no input 'z'");
        let mut request = good();
        request.outputs = vec!["x".to_owned()];
        assert_eq!(refused(&request, &policy), "the model has no output 'x'");
    }

    #[test]
    fn types_and_shapes_are_held() {
        let policy = Policy::default();
        let n = Tensor::of(vec![2, 1], &[5i64, 6]).unwrap();
        let of = |x: &Tensor| refused(&inference(x, &n), &policy);
        let double = Tensor::of(vec![2, 2], &[0f64; 4]).unwrap();
        assert_eq!(of(&double), "input 'x' is FP32, but FP64 was given");
        let flat = Tensor::of(vec![4], &[0f32; 4]).unwrap();
        assert_eq!(of(&flat), "input 'x' has 2 dimensions, but [4] has 1");
        let wide = Tensor::of(vec![2, 3], &[0f32; 6]).unwrap();
        assert_eq!(of(&wide), "input 'x': dimension 1 is 2, but 3 was given");
        let more = Tensor::of(vec![3, 2], &[0f32; 6]).unwrap();
        assert_eq!(of(&more), "input 'n': dimension 0 ('batch') is 2, but 3 in input 'x'");
    }

    #[test]
    fn values_are_held_where_that_is_asked() {
        let x = Tensor::of(vec![2, 2], &[1f32, 2.0, f32::NAN, 4.0]).unwrap();
        let request = inference(&x, &Tensor::of(vec![2, 1], &[5i64, 60]).unwrap());
        assert_eq!(validate(&request, &signature(), &Policy::default()), Ok(()));
        let mut policy = Policy { non_finite: NonFinite::Refuse, ..Policy::default() };
        assert_eq!(refused(&request, &policy), "input 'x', element 2: NaN is not finite");
        policy.ranges.insert("x".to_owned(), InputRange { min: 0.0, max: 1.5 });
        assert_eq!(refused(&request, &policy), "input 'x', element 1: 2 is not from 0 to 1.5");
        let ranges = IndexMap::from([("n".to_owned(), InputRange { min: 0.0, max: 9.0 })]);
        let policy = Policy { ranges, ..Policy::default() };
        assert_eq!(refused(&request, &policy), "input 'n', element 1: 60 is not from 0 to 9");
    }

    #[test]
    fn a_range_refuses_what_cannot_be_compared() {
        let x = Tensor::of(vec![2, 2], &[1f32, 2.0, f32::NAN, 4.0]).unwrap();
        let request = inference(&x, &Tensor::of(vec![2, 1], &[5i64, 6]).unwrap());
        let ranges = IndexMap::from([("x".to_owned(), InputRange { min: 0.0, max: 9.0 })]);
        let policy = Policy { ranges, ..Policy::default() };
        assert_eq!(refused(&request, &policy), "input 'x', element 2: NaN is not from 0 to 9");
    }
}
