//! Element types that attributes decide, where the schema leaves them open.

use super::context::Context;
use crate::schema::OpSchema;
use crate::{AttributeValue, DataType, Type};

/// The type of an output as an attribute or a special case gives it; `None` leaves it to the
/// schema.
pub(super) fn output(context: &Context<'_>, schema: &OpSchema, index: usize) -> Option<Type> {
    let elem = match schema.domain {
        "" => onnx(context, index),
        "ai.onnx.ml" => ml(context, index),
        "ai.onnx.preview.training" => return training(context, index),
        "com.microsoft" => contrib(context, index),
        _ => None,
    };
    elem.map(Type::tensor)
}

fn onnx(context: &Context<'_>, index: usize) -> Option<DataType> {
    let or_float = |name| Some(context.data_type(name).unwrap_or(DataType::FLOAT));
    match context.op() {
        "Cast" if context.version < 6 => {
            context.string("to").and_then(|name| DataType::from_name(&name.to_lowercase()))
        }
        "Cast" | "BitCast" => context.data_type("to"),
        "CastLike" => context.elem(1),
        "Constant" => constant(context),
        "ConstantOfShape" => match context.attribute("value") {
            Some(AttributeValue::Tensor(tensor)) => Some(tensor.dtype()),
            _ => Some(DataType::FLOAT),
        },
        "RandomNormal" | "RandomUniform" => or_float("dtype"),
        "EyeLike" | "RandomNormalLike" | "RandomUniformLike" | "Bernoulli" => {
            context.data_type("dtype").or_else(|| context.elem(0))
        }
        "Multinomial" => Some(context.data_type("dtype").unwrap_or(DataType::INT32)),
        "BlackmanWindow" | "HammingWindow" | "HannWindow" | "MelWeightMatrix" => {
            or_float("output_datatype")
        }
        "DequantizeLinear" if context.version >= 19 => {
            context.data_type("output_dtype").or_else(|| context.elem(1))
        }
        "QuantizeLinear" => context
            .elem(2)
            .or_else(|| context.data_type("output_dtype"))
            // An unknown zero point leaves the type open; none at all means uint8.
            .or_else(|| (!context.has(2)).then_some(DataType::UINT8)),
        // The statistics are kept in the type of the calculation.
        "LayerNormalization" if index > 0 => or_float("stash_type"),
        // Without a state to start from, the new one has the type of the query.
        "LinearAttention" if index == 1 && !context.has(3) => context.elem(0),
        "SimplifiedLayerNormalization" if index > 0 => Some(DataType::FLOAT),
        "SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss" => context.elem(0),
        _ => None,
    }
}

fn constant(context: &Context<'_>) -> Option<DataType> {
    let by_kind: [(&str, DataType); 6] = [
        ("value_float", DataType::FLOAT),
        ("value_floats", DataType::FLOAT),
        ("value_int", DataType::INT64),
        ("value_ints", DataType::INT64),
        ("value_string", DataType::STRING),
        ("value_strings", DataType::STRING),
    ];
    match (context.attribute("value"), context.attribute("sparse_value")) {
        (Some(AttributeValue::Tensor(tensor)), _) => Some(tensor.dtype()),
        (_, Some(AttributeValue::SparseTensor(tensor))) => Some(tensor.values.dtype()),
        _ => by_kind.iter().find_map(|(name, elem)| context.attribute(name).map(|_| *elem)),
    }
}

fn ml(context: &Context<'_>, index: usize) -> Option<DataType> {
    let given = |name: &str| match context.attribute(name) {
        Some(AttributeValue::Strings(values)) => !values.is_empty(),
        Some(AttributeValue::Ints(values)) => !values.is_empty(),
        Some(AttributeValue::Floats(values)) => !values.is_empty(),
        _ => false,
    };
    match context.op() {
        "LinearClassifier" | "SVMClassifier" | "TreeEnsembleClassifier" if index == 0 => {
            let strings = given("classlabels_strings");
            Some(if strings { DataType::STRING } else { DataType::INT64 })
        }
        "CastMap" => match context.string("cast_to").unwrap_or("TO_FLOAT") {
            "TO_FLOAT" => Some(DataType::FLOAT),
            "TO_INT64" => Some(DataType::INT64),
            "TO_STRING" => Some(DataType::STRING),
            _ => None,
        },
        "CategoryMapper" | "LabelEncoder"
            if context.version < 2 || context.op() == "CategoryMapper" =>
        {
            match context.elem(0)? {
                DataType::STRING => Some(DataType::INT64),
                DataType::INT64 => Some(DataType::STRING),
                _ => None,
            }
        }
        "LabelEncoder" => {
            let by_kind = [
                ("values_strings", DataType::STRING),
                ("values_int64s", DataType::INT64),
                ("values_floats", DataType::FLOAT),
            ];
            match context.attribute("values_tensor") {
                Some(AttributeValue::Tensor(tensor)) => Some(tensor.dtype()),
                _ => by_kind.iter().find(|(name, _)| given(name)).map(|(_, elem)| *elem),
            }
        }
        "DictVectorizer" => match context.ty(0)? {
            Type::Map { value, .. } => value.elem(),
            _ => None,
        },
        _ => None,
    }
}

/// Each optimizer returns the new tensors and then their states, each as it came in.
fn training(context: &Context<'_>, index: usize) -> Option<Type> {
    let groups = match context.op() {
        "Adagrad" | "Momentum" => 3,
        "Adam" => 4,
        _ => return None,
    };
    let each = context.input_count().checked_sub(2)? / groups;
    let (group, place) = (index.checked_div(each)?, index.checked_rem(each)?);
    // The second group are the gradients, which are not returned.
    let from = if group == 0 { 0 } else { group + 1 };
    context.ty(from.checked_mul(each)?.checked_add(place)?.checked_add(2)?).cloned()
}

fn contrib(context: &Context<'_>, index: usize) -> Option<DataType> {
    match context.op() {
        "QuantizeLinear" => {
            context.elem(2).or_else(|| (!context.has(2)).then_some(DataType::UINT8))
        }
        "LayerNormalization" | "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization"
            if index == 1 || index == 2 =>
        {
            Some(DataType::FLOAT)
        }
        // With a zero point for the result it is quantized, else it is left in float.
        "QGemm" => context.elem(8).or_else(|| (!context.has(8)).then_some(DataType::FLOAT)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, check};

    #[test]
    fn attributes_decide_element_types() {
        check("Cast to=i7", "float[n]", "int64[n]");
        check("CastLike", "float[n]; float16[1]", "float16[n]");
        check("ConstantOfShape", "int64{2,3}", "float[2, 3]");
        check("RandomNormal shape=[2] dtype=i11", "", "double[2]");
        check("EyeLike", "int32[3,3]", "int32[3, 3]");
        check("Multinomial sample_size=i5", "float[2,9]", "int32[2, 5]");
        check("Multinomial dtype=i7", "float[2,9]", "int64[2, 1]");
        at(21, "QuantizeLinear output_dtype=i3", "float[4]; float[]", "int8[4]");
        check("QuantizeLinear", "float[4]; float[]", "uint8[4]");
        check("QuantizeLinear", "float[4]; float[]; int8[]", "int8[4]");
        at(19, "DequantizeLinear", "int8[4]; float16[]", "float16[4]");
        check("DequantizeLinear", "int8[4]; float[]", "float[4]");
        at(1, "Cast to=sFLOAT16", "float[2]", "float16[2]");
    }

    #[test]
    fn bound_variables_give_the_rest() {
        check("Relu", "float16[2]", "float16[2]");
        check("Equal", "int64[2]; int64[1]", "bool[2]");
        check("TopK", "float[2,9]; int64{3}", "float[2, 3]; int64[2, 3]");
        check("DynamicQuantizeLinear", "float[n,4]", "uint8[n, 4]; float[]; uint8[]");
        check("NoSuchOperator", "float[2]", "-");
    }
}
