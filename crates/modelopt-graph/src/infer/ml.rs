//! Operators of `ai.onnx.ml`.

use super::context::Context;
use super::dims;
use super::elementwise::as_input;
use super::rule::{Rule, Shapes, one};
use crate::{AttributeValue, Dim};

pub(super) fn rule(op: &str) -> Option<Rule> {
    let rule: Rule = match op {
        "Binarizer" | "CategoryMapper" | "Imputer" | "LabelEncoder" | "Normalizer" | "Scaler" => {
            as_input
        }
        "LinearClassifier" | "SVMClassifier" | "TreeEnsembleClassifier" => classifier,
        "LinearRegressor" => |context| rows(context, "targets", 1),
        "TreeEnsembleRegressor" | "TreeEnsemble" => |context| rows(context, "n_targets", -1),
        "ArrayFeatureExtractor" => pick,
        "OneHotEncoder" => one_hot,
        _ => return None,
    };
    Some(rule)
}

/// One row for each row of the input; a list counts as one row.
fn row_count(context: &Context<'_>) -> Option<Dim> {
    match context.shape(0)?.as_slice() {
        [rows, _] => Some(rows.clone()),
        [_] => Some(Dim::Fixed(1)),
        _ => None,
    }
}

fn classifier(context: &Context<'_>) -> Option<Shapes> {
    let rows = row_count(context)?;
    let labels = ["classlabels_strings", "classlabels_ints", "classlabels_int64s"];
    let count = labels.into_iter().find_map(|name| match context.attribute(name)? {
        AttributeValue::Strings(labels) if !labels.is_empty() => Some(labels.len()),
        AttributeValue::Ints(labels) if !labels.is_empty() => Some(labels.len()),
        _ => None,
    });
    let scores = vec![rows.clone(), count.map_or(Dim::Unknown, Dim::Fixed)];
    Some(vec![Some(vec![rows]), Some(scores)])
}

fn rows(context: &Context<'_>, name: &str, default: i64) -> Option<Shapes> {
    one(vec![row_count(context)?, dims::dim(context.int(name, default))])
}

fn pick(context: &Context<'_>) -> Option<Shapes> {
    let (_, outer) = context.shape(0)?.split_last()?;
    let count = dims::product(context.shape(1)?);
    // A list gives one row.
    let mut shape = if outer.is_empty() { vec![Dim::Fixed(1)] } else { outer.to_vec() };
    shape.push(count);
    one(shape)
}

fn one_hot(context: &Context<'_>) -> Option<Shapes> {
    let count = match (context.attribute("cats_int64s"), context.attribute("cats_strings")) {
        (Some(AttributeValue::Ints(all)), _) if !all.is_empty() => all.len(),
        (_, Some(AttributeValue::Strings(all))) => all.len(),
        _ => return None,
    };
    let mut shape = context.shape(0)?.clone();
    shape.push(Dim::Fixed(count));
    one(shape)
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn classifiers_give_labels_and_scores() {
        check(
            "ai.onnx.ml.LinearClassifier classlabels_ints=[1,2,3]",
            "float[n,4]",
            "int64[n]; float[n, 3]",
        );
        check("ai.onnx.ml.Scaler", "int64[n,4]", "float[n, 4]");
        check("ai.onnx.ml.TreeEnsembleRegressor n_targets=i2", "float[n,4]", "float[n, 2]");
        check("ai.onnx.ml.ArrayFeatureExtractor", "float[n,4]; int64[1,2]", "float[n, 2]");
        check("ai.onnx.ml.OneHotEncoder cats_int64s=[1,2]", "int64[n]", "float[n, 2]");
    }
}
