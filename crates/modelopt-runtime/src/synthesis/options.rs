//! What a user may fix about invented inputs.

use indexmap::IndexMap;
use modelopt_graph::{DataType, Dim, Tensor, element_count};

use super::dims::axis_name;
use super::fill::{from_floats, from_integers};
use crate::{InputSpec, OptionProblem, SampleError};

/// How to invent inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct SynthesisOptions {
    /// Seed; the same seed gives the same samples.
    pub seed: u64,
    /// Number of samples.
    pub count: usize,
    /// Sizes of symbolic dimensions by name, or of any open dimension by `INPUT.AXIS`.
    pub dims: IndexMap<String, usize>,
    /// Values of inputs by name.
    pub values: IndexMap<String, InputValue>,
}

impl Default for SynthesisOptions {
    fn default() -> Self {
        SynthesisOptions { seed: 0, count: 4, dims: IndexMap::new(), values: IndexMap::new() }
    }
}

/// The values of an input: one for all elements, or one for each.
#[derive(Clone, Debug, PartialEq)]
pub enum InputValue {
    /// Integers; for inputs of any number type or booleans.
    Integers(Vec<i64>),
    /// Floats; for float inputs.
    Floats(Vec<f64>),
}

impl InputValue {
    fn len(&self) -> usize {
        match self {
            InputValue::Integers(values) => values.len(),
            InputValue::Floats(values) => values.len(),
        }
    }

    pub(super) fn tensor(
        &self,
        input: &str,
        dtype: DataType,
        shape: &[usize],
    ) -> Result<Tensor, SampleError> {
        let count = element_count(shape).unwrap_or(usize::MAX);
        if self.len() != 1 && self.len() != count {
            let problem = OptionProblem::Count { given: self.len(), shape: shape.to_vec() };
            return Err(SampleError::option(input, problem));
        }
        let tensor = match self {
            InputValue::Integers(values) if dtype.is_float() => {
                let floats: Vec<f64> = values.iter().map(|&value| value as f64).collect();
                from_floats(dtype, shape, &spread(&floats, count))
            }
            InputValue::Integers(values) => from_integers(dtype, shape, &spread(values, count)),
            InputValue::Floats(values) => from_floats(dtype, shape, &spread(values, count)),
        };
        tensor.ok_or_else(|| SampleError::option(input, OptionProblem::Type(dtype)))
    }
}

fn spread<T: Copy>(values: &[T], count: usize) -> Vec<T> {
    match values {
        [value] => vec![*value; count],
        values => values.to_vec(),
    }
}

/// Parses `name=N`.
pub fn parse_dim(option: &str) -> Result<(String, usize), SampleError> {
    let wrong = || SampleError::option(option, OptionProblem::NoSize);
    let (name, size) = option.rsplit_once('=').ok_or_else(wrong)?;
    let size = size.trim().parse().map_err(|_| wrong())?;
    let name = name.trim();
    if name.is_empty() {
        return Err(wrong());
    }
    Ok((name.to_owned(), size))
}

/// Parses `name=value` or `name=1,2,3`; `true` and `false` stand for 1 and 0.
pub fn parse_value(option: &str) -> Result<(String, InputValue), SampleError> {
    let wrong = || SampleError::option(option, OptionProblem::NoValue);
    let (name, values) = option.rsplit_once('=').ok_or_else(wrong)?;
    let name = name.trim();
    let values = values.trim();
    let values = values
        .strip_prefix('[')
        .and_then(|values| values.strip_suffix(']'))
        .unwrap_or(values)
        .split(',')
        .map(|value| match value.trim() {
            "true" => "1",
            "false" => "0",
            value => value,
        });
    if name.is_empty() {
        return Err(wrong());
    }
    let integers: Result<Vec<i64>, _> = values.clone().map(str::parse).collect();
    let value = if let Ok(integers) = integers {
        InputValue::Integers(integers)
    } else {
        let floats: Result<Vec<f64>, _> = values.map(str::parse).collect();
        InputValue::Floats(floats.map_err(|_| wrong())?)
    };
    Ok((name.to_owned(), value))
}

/// Refuses options that name nothing of the model, which are mostly typing errors.
pub(super) fn check_names(
    options: &SynthesisOptions,
    specs: &[InputSpec],
) -> Result<(), SampleError> {
    let inputs: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    if let Some(unknown) = options.values.keys().find(|&name| !inputs.contains(name)) {
        return Err(SampleError::option(
            unknown,
            OptionProblem::NoInput { inputs: inputs.clone() },
        ));
    }
    let open = open_dims(specs);
    let known = |name: &String| {
        open.iter()
            .any(|(dim, axis)| axis == name || dim.as_ref().is_some_and(|dim| named(dim, name)))
    };
    if let Some(unknown) = options.dims.keys().find(|&name| !known(name)) {
        let dims = open.into_iter().map(|(symbol, axis)| symbol.unwrap_or(axis)).collect();
        return Err(SampleError::option(unknown, OptionProblem::NoDim { dims }));
    }
    Ok(())
}

/// Whether a symbol is this name, or a sum with it.
fn named(symbol: &str, name: &str) -> bool {
    symbol == name || symbol.split('+').any(|part| part.trim() == name)
}

/// Symbol, if any, and `INPUT.AXIS` of every dimension that is not fixed.
fn open_dims(specs: &[InputSpec]) -> Vec<(Option<String>, String)> {
    let dims = specs.iter().flat_map(|spec| {
        let dims = spec.ty.shape().into_iter().flatten().enumerate();
        dims.map(move |(axis, dim)| (dim, axis_name(&spec.name, axis)))
    });
    dims.filter_map(|(dim, axis)| match dim {
        Dim::Fixed(_) => None,
        Dim::Symbol(symbol) => Some((Some(symbol.clone()), axis)),
        Dim::Unknown => Some((None, axis)),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Type;

    use super::*;

    #[test]
    fn options_parse() {
        assert_eq!(parse_dim("a=b=3").unwrap(), ("a=b".into(), 3));
        assert!(
            parse_dim("batch").is_err() && parse_dim("=1").is_err() && parse_dim("a=x").is_err()
        );
        let value = |text| parse_value(text).unwrap().1;
        assert_eq!(value("sr=16000"), InputValue::Integers(vec![16000]));
        assert_eq!(value("x=[1, 2.5]"), InputValue::Floats(vec![1.0, 2.5]));
        assert_eq!(value("x=true,false"), InputValue::Integers(vec![1, 0]));
        let error = parse_value("x=").unwrap_err().to_string();
        assert_eq!(error, "'x=': give it as INPUT=VALUE or INPUT=VALUE,VALUE,… of numbers");
    }

    #[test]
    fn values_spread_and_are_checked() {
        let one = InputValue::Integers(vec![300]);
        let tensor = one.tensor("x", DataType::FLOAT16, &[2]).unwrap();
        assert_eq!(&*tensor.to_f32().unwrap(), [300.0, 300.0]);
        assert!(one.tensor("x", DataType::UINT8, &[2]).is_err());
        assert!(InputValue::Floats(vec![0.5]).tensor("x", DataType::INT64, &[]).is_err());
        let error = InputValue::Integers(vec![1, 2]).tensor("x", DataType::INT64, &[3]);
        let message = "'x': 2 values for shape [3]; give 1 or 3";
        assert_eq!(error.unwrap_err().to_string(), message);
    }

    #[test]
    fn unknown_dims_are_refused() {
        let shape = Some(vec![Dim::Symbol("past + n".into()), Dim::Unknown]);
        let ty = Type::Tensor { elem: DataType::FLOAT, shape };
        let specs = [InputSpec { name: "x".into(), ty }];
        let check = |name: &str| {
            let dims = [(name.to_owned(), 1)].into_iter().collect();
            check_names(&SynthesisOptions { dims, ..SynthesisOptions::default() }, &specs)
        };
        assert!(
            ["n", "past", "past + n", "x.0", "x.1"].into_iter().all(|name| check(name).is_ok())
        );
        let error = check("m").unwrap_err().to_string();
        assert!(error.ends_with("it has 'past + n', 'x.1'"), "{error}");
    }
}
