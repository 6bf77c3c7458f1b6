//! Normalizations, whose outputs and parameters took other shapes.

use modelopt_graph::{AttributeValue, DataType, Dim, ValueId};

use super::site::{Obstacle, Site, scalar, tensor};

/// Version 9 has no statistics for each place any more:
///
/// ```text
/// y = BatchNormalization(x, scale, b, mean, var) {spatial = 0}
///   =>
/// y = (x - mean) / Sqrt(var + epsilon) * scale + b
/// ```
pub(super) fn spatial(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let is_spatial = site.int("spatial")?.unwrap_or(1) != 0;
    let changed = site.has_attribute("spatial");
    if is_spatial {
        site.take_attribute("spatial");
        return Ok(changed);
    }
    if (1..5).any(|output| site.node().output(output).is_some()) {
        return Err(Obstacle::NoEquivalent("it trains statistics for each place"));
    }
    let inputs: Option<Vec<ValueId>> = (0..5).map(|index| site.input(index)).collect();
    let (Some(inputs), Some(y)) = (inputs, site.node().output(0)) else {
        return Err(Obstacle::NoEquivalent("inputs are missing"));
    };
    let [x, scale, b, mean, var] = inputs.as_slice() else { return Ok(false) };
    let elem = site.elem(0)?;
    let epsilon = site.float("epsilon")?.unwrap_or(1e-5);
    let epsilon = scalar(elem, epsilon).ok_or(Obstacle::LostType { elem })?;
    let epsilon = site.constant("epsilon", epsilon);
    let centered = site.before("Sub", "centered", &[*x, *mean], &[]);
    let variance = site.before("Add", "variance", &[*var, epsilon], &[]);
    let deviation = site.before("Sqrt", "deviation", &[variance], &[]);
    let normal = site.before("Div", "normal", &[centered, deviation], &[]);
    let scaled = site.before("Mul", "scaled", &[normal, *scale], &[]);
    site.replace("Add", vec![Some(scaled), Some(*b)], vec![Some(y)], Vec::new());
    Ok(true)
}

/// Training was asked for by naming more outputs, and is an attribute from version 14 on, without the
/// statistics of the batch.
pub(super) fn training(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    if (3..5).any(|output| site.is_read(output)) {
        return Err(Obstacle::NoEquivalent("the statistics of the batch are no outputs any more"));
    }
    let outputs = site.node().outputs();
    let trains = outputs.iter().skip(1).any(Option::is_some);
    if outputs.len() > 3 {
        let node = site.node();
        let (inputs, attributes) = (node.inputs().to_vec(), node.attributes.clone());
        let kept = outputs.iter().copied().take(3).collect();
        site.replace("BatchNormalization", inputs, kept, attributes);
    }
    if trains {
        site.set_attribute("training_mode", 1);
    }
    Ok(trains)
}

/// Scale and bias of each channel rather than of each group:
///
/// ```text
/// y = GroupNormalization(x, scale, bias) {num_groups = G}
///   =>
/// y = GroupNormalization(x, Repeat(scale), Repeat(bias)) {num_groups = G}
/// Repeat(v) = Reshape(Expand(Unsqueeze(v, 1), [1, C / G]), -1)
/// ```
pub(super) fn per_channel(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let groups = site.int("num_groups")?.ok_or(Obstacle::Malformed { name: "num_groups" })?;
    let (Some(x), Some(scale), Some(bias)) = (site.input(0), site.input(1), site.input(2)) else {
        return Err(Obstacle::NoEquivalent("inputs are missing"));
    };
    let channels = site.shape(0).and_then(|shape| shape.get(1).and_then(Dim::fixed));
    let times = match channels {
        Some(channels) if groups > 0 => {
            site.constant("repeats", tensor(vec![2], &[1, channels as i64 / groups]))
        }
        _ => {
            let of: [(&str, AttributeValue); 2] = [("start", 1.into()), ("end", 2.into())];
            let channels = site.before("Shape", "channels", &[x], &of);
            let groups = site.constant("groups", tensor(vec![1], &[groups]));
            let each = site.before("Div", "channels_of_group", &[channels, groups], &[]);
            let one = site.constant("one", tensor(vec![1], &[1]));
            site.before("Concat", "repeats", &[one, each], &[("axis", 0.into())])
        }
    };
    let column = site.constant("column", tensor(vec![1], &[1]));
    let line = site.constant("line", tensor(vec![1], &[-1]));
    for (index, value) in [(1, scale), (2, bias)] {
        let standing = site.before("Unsqueeze", "standing", &[value, column], &[]);
        let repeated = site.before("Expand", "repeated", &[standing, times], &[]);
        let repeated = site.before("Reshape", "of_channels", &[repeated, line], &[]);
        site.set_input(index, repeated);
    }
    // What was computed in the type of the input still is.
    if let Ok(elem) = site.elem(0)
        && elem != DataType::FLOAT
    {
        site.set_attribute("stash_type", i64::from(elem.number()));
    }
    Ok(true)
}

/// The axes by default are said from version 13 on: what ONNX's checker takes the operator apart into
/// does not know them.
#[allow(clippy::unnecessary_wraps)] // As adapters are.
pub(super) fn mean_variance_axes(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let is_open = !site.has_attribute("axes");
    if is_open {
        site.set_attribute("axes", vec![0, 2, 3]);
    }
    Ok(is_open)
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{DataType, Dim, Type};

    use crate::testing::{Build, float};
    use crate::upgrade::testing::{add_output, integers, last, last_id, one, raised};
    use crate::upgrade::upgrade;

    const PLACES: [&[usize]; 5] = [&[2, 3, 4], &[3, 4], &[3, 4], &[3, 4], &[3, 4]];

    #[test]
    fn statistics_for_each_place_are_spelled_out() {
        let mut b = one(8, "BatchNormalization", &PLACES, &[("spatial", 0.into())]);
        assert_eq!(raised(&mut b, 9), ["Sub", "Add", "Sqrt", "Div", "Mul", "Add"]);
        let mut b = one(8, "BatchNormalization", &PLACES, &[("spatial", 1.into())]);
        assert_eq!(raised(&mut b, 9), ["BatchNormalization"]);
        assert!(last(&b.model).attributes.is_empty());
    }

    #[test]
    fn training_becomes_an_attribute_and_its_statistics_must_not_be_read() {
        let shapes: [&[usize]; 5] = [&[2, 3, 4], &[3], &[3], &[3], &[3]];
        let mut b = one(9, "BatchNormalization", &shapes, &[]);
        add_output(&mut b, "mean");
        add_output(&mut b, "variance");
        let mut with_batch = Build { model: b.model.clone() };
        add_output(&mut with_batch, "saved");
        raised(&mut b, 14);
        assert_eq!(last(&b.model).int("training_mode", 0), 1);
        let error = upgrade(&mut with_batch.model, 14).unwrap_err().to_string();
        assert!(error.contains("statistics of the batch"), "{error}");
        let mut alone = one(9, "BatchNormalization", &shapes, &[]);
        upgrade(&mut alone.model, 14).unwrap();
        assert!(last(&alone.model).attributes.is_empty());
    }

    #[test]
    fn scale_and_bias_of_groups_are_repeated_for_channels() {
        let shapes: [&[usize]; 3] = [&[2, 6, 4], &[3], &[3]];
        let mut b = one(18, "GroupNormalization", &shapes, &[("num_groups", 3.into())]);
        let repeat = ["Unsqueeze", "Expand", "Reshape"];
        let expected = [&repeat[..], &repeat, &["GroupNormalization"]].concat();
        assert_eq!(raised(&mut b, 21), expected);
        let expand =
            last(&b.model).input(1).and_then(|value| b.model.producer_node(value)).unwrap();
        let expand = b.model.producer_node(b.model.node(expand).input(0).unwrap()).unwrap();
        let times = b.model.node(expand).input(1).unwrap();
        assert_eq!(b.model.constant(times).unwrap().to_i64().unwrap(), [1, 2]);
    }

    #[test]
    fn channels_that_are_not_known_are_counted() {
        let mut b = Build::new(18);
        let shape = Some(vec![Dim::Unknown; 3]);
        let x = b.input("x", Type::Tensor { elem: DataType::FLOAT16, shape });
        let [s, t] = ["s", "t"].map(|name| b.input(name, Type::tensor(DataType::FLOAT16)));
        let y = b.node("GroupNormalization", &[x, s, t], &[("num_groups", 3.into())]);
        b.output(y, Type::tensor(DataType::FLOAT16));
        assert_eq!(raised(&mut b, 21)[..3], ["Shape", "Div", "Concat"]);
        assert_eq!(last(&b.model).int("stash_type", 1), 10);
    }

    #[test]
    fn axes_by_default_are_said() {
        let mut b = one(9, "MeanVarianceNormalization", &[&[1, 2, 3, 4]], &[]);
        raised(&mut b, 13);
        assert_eq!(last(&b.model).ints("axes"), Some(&[0, 2, 3][..]));
    }

    #[test]
    fn what_is_inserted_is_raised_along() {
        let mut b = Build::new(7);
        let x = b.input("x", float(&[2, 3]));
        let y = b.node("ReduceSum", &[x], &[("axes", vec![1].into())]);
        b.output(y, float(&[2, 1]));
        raised(&mut b, 21);
        assert_eq!(integers(&b.model, 1), [1]);
        assert_eq!(b.model.label(last_id(&b.model)), "ReduceSum 'reducesum_out_node'");
    }
}
