//! What goes into a model and comes out of it, as a protocol tells it.

use modelopt_graph::{DataType, Dim, Model, Shape, Type};
use modelopt_runtime::{LeftOut, graph_inputs, graph_outputs};

use crate::protocol::datatype_name;

/// Inputs and outputs of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Inputs that a client must give.
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DataType,
    /// Dimensions; none where the model does not even declare how many there are.
    pub shape: Option<Vec<Dimension>>,
}

/// One dimension of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Always so many.
    Fixed(usize),
    /// Any number, the same wherever the name is the same.
    Named(String),
    /// Any number.
    Any,
}

impl Dimension {
    /// The size, where it is always the same.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Dimension::Fixed(size) => Some(*size),
            Dimension::Named(_) | Dimension::Any => None,
        }
    }
}

/// Why a model cannot be asked over the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// An input is no tensor: a sequence, a map, an optional, or nothing that is declared.
    #[error("input '{input}' is {ty}, but only tensors go over the wire")]
    NoTensor {
        /// The input.
        input: String,
        /// Its type.
        ty: String,
    },
    /// The protocol has no name for the elements of an input.
    #[error("input '{input}' is of {dtype}, for which the protocol has no type")]
    NoDatatype {
        /// The input.
        input: String,
        /// Its elements.
        dtype: DataType,
    },
    /// No output can be sent.
    #[error("the model has no output that goes over the wire")]
    NoOutput,
}

impl Signature {
    /// The signature of a model, of which all inputs must be tensors. Outputs that are none are not part
    /// of it: [`Signature::left_out`] names them.
    pub fn of(model: &Model) -> Result<Self, SignatureError> {
        let inputs = graph_inputs(model).into_iter().map(|input| {
            let (name, ty) = (input.name, input.ty);
            match ty {
                Type::Tensor { elem, .. } if datatype_name(elem).is_none() => {
                    Err(SignatureError::NoDatatype { input: name, dtype: elem })
                }
                Type::Tensor { elem, shape } => Ok(TensorSpec::new(name, elem, shape)),
                other => Err(SignatureError::NoTensor { input: name, ty: other.to_string() }),
            }
        });
        let inputs = inputs.collect::<Result<Vec<TensorSpec>, SignatureError>>()?;
        let outputs = graph_outputs(model).into_iter().filter_map(|output| match output.ty {
            Type::Tensor { elem, shape } if datatype_name(elem).is_some() => {
                Some(TensorSpec::new(output.name, elem, shape))
            }
            _ => None,
        });
        let outputs: Vec<TensorSpec> = outputs.collect();
        if outputs.is_empty() {
            return Err(SignatureError::NoOutput);
        }
        Ok(Signature { inputs, outputs })
    }

    /// The outputs of a model that its signature does not have, because they do not go over the wire.
    pub fn left_out(model: &Model) -> Vec<LeftOut> {
        let goes = |ty: &Type| ty.elem().is_some_and(|elem| datatype_name(elem).is_some());
        graph_outputs(model)
            .into_iter()
            .filter(|output| !goes(&output.ty))
            .map(|output| LeftOut { output: output.name, ty: output.ty.to_string() })
            .collect()
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|spec| spec.name == name)
    }

    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&TensorSpec> {
        self.outputs.iter().find(|spec| spec.name == name)
    }
}

impl TensorSpec {
    fn new(name: String, dtype: DataType, shape: Option<Shape>) -> Self {
        let dimension = |dim| match dim {
            Dim::Fixed(size) => Dimension::Fixed(size),
            Dim::Symbol(name) => Dimension::Named(name),
            Dim::Unknown => Dimension::Any,
        };
        let shape = shape.map(|dims| dims.into_iter().map(dimension).collect());
        TensorSpec { name, dtype, shape }
    }

    /// How many dimensions it has, where that is declared.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{ModelInfo, Origin, ValueInfo};

    use super::*;

    fn model(input: Option<Type>, outputs: Vec<Type>) -> Model {
        let mut model = Model::new(ModelInfo::default());
        let main = model.main();
        let value = model.add_value("x");
        model.add_input(main, ValueInfo { value, ty: input.map(Into::into), origin: Origin::NONE });
        for (place, ty) in outputs.into_iter().enumerate() {
            let value = model.add_value(format!("y{place}"));
            model.add_output(main, ValueInfo { value, ty: Some(ty.into()), origin: Origin::NONE });
        }
        model
    }

    fn float() -> Type {
        Type::tensor(DataType::FLOAT)
    }

    #[test]
    fn dimensions_are_as_the_model_declares_them() {
        let shape = vec![Dim::Symbol("batch".to_owned()), Dim::Fixed(3), Dim::Unknown];
        let input = Type::Tensor { elem: DataType::INT64, shape: Some(shape) };
        let signature = Signature::of(&model(Some(input), vec![float()])).unwrap();
        let spec = signature.input("x").unwrap();
        let dims = vec![Dimension::Named("batch".to_owned()), Dimension::Fixed(3), Dimension::Any];
        assert_eq!((spec.dtype, spec.rank()), (DataType::INT64, Some(3)));
        assert_eq!(spec.shape, Some(dims));
        assert_eq!(signature.output("y0").unwrap().shape, None);
        assert_eq!(signature.output("x"), None);
    }

    #[test]
    fn inputs_that_are_no_tensors_are_refused_by_name_and_type() {
        let refused = |ty| Signature::of(&model(ty, vec![float()])).unwrap_err().to_string();
        let sequence = Type::Sequence(float().into());
        assert_eq!(
            refused(Some(sequence)),
            "input 'x' is seq(float[..]), but only tensors go over the wire"
        );
        let optional = Type::Optional(float().into());
        assert!(refused(Some(optional)).contains("optional(float[..])"));
        let map = Type::Map { key: DataType::INT64, value: float().into() };
        assert!(refused(Some(map)).contains("map(int64, float[..])"));
        assert!(refused(None).contains("is unknown"));
        let complex = Type::tensor(DataType::COMPLEX64);
        assert_eq!(
            refused(Some(complex)),
            "input 'x' is of complex64, for which the protocol has no type"
        );
    }

    #[test]
    fn outputs_that_are_no_tensors_are_left_out_by_name() {
        let map = Type::Map { key: DataType::INT64, value: float().into() };
        let sequence = Type::Sequence(map.into());
        let both = model(Some(float()), vec![float(), sequence.clone()]);
        let signature = Signature::of(&both).unwrap();
        assert_eq!(signature.outputs.len(), 1);
        let left_out = Signature::left_out(&both);
        assert_eq!(left_out[0].to_string(), "'y1' (seq(map(int64, float[..])))");
        let neither = model(Some(float()), vec![sequence]);
        assert_eq!(Signature::of(&neither), Err(SignatureError::NoOutput));
    }
}
