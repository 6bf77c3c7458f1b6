//! Finds and checks the value of every input.

use indexmap::IndexMap;
use modelopt_graph::{Dim, Tensor, Type};

use crate::{InputSpec, RuntimeError};

/// The values for `specs`, in their order.
pub(crate) fn bind<'a>(
    runtime: &'static str,
    specs: &[InputSpec],
    given: &'a IndexMap<String, Tensor>,
) -> Result<Vec<&'a Tensor>, RuntimeError> {
    specs
        .iter()
        .map(|spec| {
            let tensor = given.get(&spec.name).ok_or_else(|| RuntimeError::MissingInput {
                input: spec.name.clone(),
                given: given.keys().cloned().collect(),
            })?;
            check(runtime, spec, tensor)?;
            Ok(tensor)
        })
        .collect()
}

fn check(runtime: &'static str, spec: &InputSpec, tensor: &Tensor) -> Result<(), RuntimeError> {
    let fits = match &spec.ty {
        Type::Tensor { elem, shape } => {
            *elem == tensor.dtype()
                && shape.as_ref().is_none_or(|dims| shape_fits(dims, tensor.shape()))
        }
        Type::Other => true,
        ty => {
            let what = format!("inputs that are not tensors ('{}' is {ty})", spec.name);
            return Err(RuntimeError::Unsupported { runtime, what });
        }
    };
    if fits {
        return Ok(());
    }
    Err(RuntimeError::Mismatch {
        input: spec.name.clone(),
        expected: spec.ty.to_string(),
        actual: format!("{}{:?}", tensor.dtype(), tensor.shape()),
    })
}

/// Exporters write 0 for a size they do not know, so 0 fits everything.
fn shape_fits(dims: &[Dim], shape: &[usize]) -> bool {
    dims.len() == shape.len()
        && dims
            .iter()
            .zip(shape)
            .all(|(dim, size)| dim.fixed().is_none_or(|fixed| fixed == 0 || fixed == *size))
}

#[cfg(test)]
mod tests {
    use modelopt_graph::DataType;

    use super::*;

    fn spec() -> Vec<InputSpec> {
        let shape = Some(vec![Dim::Symbol("n".into()), Dim::Fixed(2)]);
        vec![InputSpec { name: "x".into(), ty: Type::Tensor { elem: DataType::FLOAT, shape } }]
    }

    fn given(name: &str, tensor: Tensor) -> IndexMap<String, Tensor> {
        [(name.to_owned(), tensor)].into_iter().collect()
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_named() {
        let good = Tensor::of(vec![1, 2], &[1f32, 2.0]).unwrap();
        assert_eq!(bind("tract", &spec(), &given("x", good.clone())).unwrap().len(), 1);
        let error = bind("tract", &spec(), &given("y", good)).unwrap_err();
        assert_eq!(error.to_string(), "no value for input 'x'; the sample has 'y'");
        let wide = Tensor::of(vec![1, 3], &[1f32, 2.0, 3.0]).unwrap();
        let error = bind("tract", &spec(), &given("x", wide)).unwrap_err();
        let message = "input 'x' must be float[n, 2], but the sample has float[1, 3]";
        assert_eq!(error.to_string(), message);
    }
}
