//! Attributes that became inputs, so that they may be computed:
//!
//! ```text
//! y = Clip(x) {min = 0, max = 6}    =>    y = Clip(x, min, max)
//! y = Squeeze(x) {axes = [1]}       =>    y = Squeeze(x, axes)
//! ```

use modelopt_graph::{AttributeValue, Tensor, ValueId};

use super::site::{Needed, Obstacle, Site, floats, scalar, tensor};

/// `min` and `max` of the type of what is clipped.
pub(super) fn clip(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let mut changed = false;
    for (index, name) in [(1, "min"), (2, "max")] {
        if let Some(limit) = site.float(name)? {
            let limit = number_like(site, limit, name)?;
            site.take_attribute(name);
            site.set_input(index, limit);
            changed = true;
        }
    }
    Ok(changed)
}

/// `pads`, and `value` where it is not zero, which is what is padded with otherwise.
pub(super) fn pad(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    site.list_to_input("pads", 1, Needed::Yes)?;
    let value = site.float("value")?.filter(|value| *value != 0.0);
    let value = value.map(|value| number_like(site, value, "value")).transpose()?;
    site.take_attribute("value");
    if let Some(value) = value {
        site.set_input(2, value);
    }
    Ok(true)
}

/// A number of the type of the first input.
fn number_like(site: &mut Site<'_>, number: f32, what: &'static str) -> Result<ValueId, Obstacle> {
    let elem = site.elem(0)?;
    let number = scalar(elem, number).ok_or(Obstacle::LostType { elem })?;
    Ok(site.constant(what, number))
}

/// `starts`, `ends` and `axes`.
pub(super) fn slice(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    site.list_to_input("starts", 1, Needed::Yes)?;
    site.list_to_input("ends", 2, Needed::Yes)?;
    site.list_to_input("axes", 3, Needed::No)?;
    Ok(true)
}

/// `axes` that must be there.
pub(super) fn unsqueeze(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    site.list_to_input("axes", 1, Needed::Yes)?;
    Ok(true)
}

/// `axes` that may be left out: all of them then, as with an empty list.
pub(super) fn axes(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    list(site, "axes")
}

/// `split`; parts of one size where it is left out.
pub(super) fn split(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    list(site, "split")
}

fn list(site: &mut Site<'_>, name: &'static str) -> Result<bool, Obstacle> {
    let changed = site.has_attribute(name);
    site.list_to_input(name, 1, Needed::No)?;
    Ok(changed)
}

/// Parts of one size are asked for by their number from version 18 on.
#[allow(clippy::unnecessary_wraps)] // As adapters are.
pub(super) fn split_evenly(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let is_even = site.input(1).is_none();
    if is_even {
        let parts = site.node().outputs().len() as i64;
        site.set_attribute("num_outputs", parts);
    }
    Ok(is_even)
}

/// `k`, as a list of one.
pub(super) fn top_k(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let k = site.int("k")?.ok_or(Obstacle::Malformed { name: "k" })?;
    let k = site.constant("k", tensor(vec![1], &[k]));
    site.take_attribute("k");
    site.set_input(1, k);
    Ok(true)
}

/// A mask that is read is boolean from version 10 on, and of ones without training from version 12 on.
/// Before, nothing says what it holds: ONNX Runtime fills it with zeros, the reference with ones.
pub(super) fn mask(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    if site.is_read(1) {
        return Err(Obstacle::NoEquivalent(
            "its mask is read, of which nothing says what it holds",
        ));
    }
    Ok(false)
}

/// `ratio`. Without a training mode, which nobody asked for before, nothing is dropped.
pub(super) fn dropout(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    mask(site)?;
    let Some(ratio) = site.float("ratio")? else { return Ok(false) };
    let ratio = site.constant("ratio", Tensor::scalar(ratio));
    site.take_attribute("ratio");
    site.set_input(1, ratio);
    Ok(true)
}

/// `axis`, which was 1 where nothing was said, and would be -2.
pub(super) fn dft(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let axis = site.int("axis")?.unwrap_or(1);
    let axis = site.constant("axis", Tensor::scalar(axis));
    site.take_attribute("axis");
    site.set_input(2, axis);
    Ok(true)
}

/// `scales`.
pub(super) fn upsample(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let scales = match site.node().attribute("scales") {
        Some(AttributeValue::Floats(scales)) => floats(scales),
        Some(AttributeValue::Reference(_)) => {
            return Err(Obstacle::CallersAttribute { name: "scales".to_owned() });
        }
        _ => return Err(Obstacle::Malformed { name: "scales" }),
    };
    let scales = site.constant("scales", scales);
    site.take_attribute("scales");
    site.set_input(1, scales);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{Attribute, AttributeValue, DataType, Type};

    use crate::testing::Build;
    use crate::upgrade::testing::{add_output, integers, last, last_id, numbers, one, raised};
    use crate::upgrade::{UpgradeError, upgrade};

    #[test]
    fn limits_of_a_clip_become_numbers_of_its_type() {
        let mut b = one(10, "Clip", &[&[2]], &[("max", 6.0.into())]);
        assert_eq!(raised(&mut b, 13), ["Clip"]);
        let clip = last(&b.model);
        assert!(clip.attributes.is_empty() && clip.input(1).is_none());
        assert_eq!(numbers(&b.model, 2), [6.0]);
        let name = b.model.value(last(&b.model).input(2).unwrap()).name().to_owned();
        assert_eq!(name, "clip_out_max");
    }

    #[test]
    fn a_clip_of_half_numbers_gets_half_numbers_and_one_of_no_known_type_is_refused() {
        let of = |elem: Option<DataType>| {
            let mut b = Build::new(10);
            let x = b.input("x", elem.map_or(Type::Other, Type::tensor));
            let y = b.node("Clip", &[x], &[("min", 0.5.into())]);
            b.output(y, Type::Other);
            b
        };
        let mut half = of(Some(DataType::FLOAT16));
        raised(&mut half, 11);
        let limit = last(&half.model).input(1).unwrap();
        assert_eq!(half.model.constant(limit).unwrap().dtype(), DataType::FLOAT16);
        let error = upgrade(&mut of(None).model, 11).unwrap_err().to_string();
        assert!(error.ends_with("the element type of 'x' is not known"), "{error}");
    }

    #[test]
    fn padding_with_zero_needs_no_number() {
        let pads: AttributeValue = vec![0, 1, 0, 1].into();
        let mut zero = one(7, "Pad", &[&[2, 2]], &[("pads", pads.clone()), ("value", 0.0.into())]);
        raised(&mut zero, 11);
        assert_eq!(integers(&zero.model, 1), [0, 1, 0, 1]);
        assert_eq!(last(&zero.model).inputs().len(), 2);
        let mut two = one(7, "Pad", &[&[2, 2]], &[("pads", pads), ("value", 2.0.into())]);
        raised(&mut two, 11);
        assert_eq!(numbers(&two.model, 2), [2.0]);
    }

    #[test]
    fn lists_become_inputs_in_their_places() {
        let bounds =
            [("starts", vec![1].into()), ("ends", vec![3].into()), ("axes", vec![1].into())];
        let mut slice = one(9, "Slice", &[&[4, 4]], &bounds);
        raised(&mut slice, 13);
        let found: Vec<_> = (1..4).map(|index| integers(&slice.model, index)).collect();
        assert_eq!(found, [[1], [3], [1]]);
        let cases: [(&str, i64, i64, &str); 5] = [
            ("Squeeze", 12, 13, "axes"),
            ("Unsqueeze", 12, 13, "axes"),
            ("ReduceSum", 12, 13, "axes"),
            ("ReduceMean", 17, 18, "axes"),
            ("Split", 12, 13, "split"),
        ];
        for (op, from, to, name) in cases {
            let mut b = one(from, op, &[&[1, 4]], &[(name, vec![0].into())]);
            raised(&mut b, to);
            assert_eq!(integers(&b.model, 1), [0], "{op}");
            assert!(last(&b.model).attributes.is_empty(), "{op}");
        }
    }

    #[test]
    fn what_is_left_out_stays_left_out() {
        for (op, from) in [("Squeeze", 12), ("ReduceSum", 12), ("ReduceMax", 17), ("Clip", 10)] {
            let mut b = one(from, op, &[&[1, 4]], &[]);
            let done = upgrade(&mut b.model, from + 1).unwrap();
            assert!(done.adapted.is_empty(), "{op}");
            assert_eq!(last(&b.model).inputs().len(), 1);
        }
    }

    #[test]
    fn a_split_into_even_parts_counts_them() {
        let mut b = one(12, "Split", &[&[4]], &[]);
        raised(&mut b, 18);
        assert_eq!(last(&b.model).int("num_outputs", 0), 1);
        let mut uneven = one(12, "Split", &[&[4]], &[("split", vec![4].into())]);
        raised(&mut uneven, 18);
        assert!(last(&uneven.model).attribute("num_outputs").is_none());
    }

    #[test]
    fn a_mask_that_is_read_is_refused() {
        for opset in [9, 11] {
            let mut b = one(opset, "Dropout", &[&[4]], &[]);
            add_output(&mut b, "mask");
            let error = upgrade(&mut b.model, opset + 1).unwrap_err().to_string();
            assert!(error.contains("its mask is read"), "{error}");
        }
        let mut alone = one(9, "Dropout", &[&[4]], &[]);
        assert_eq!(raised(&mut alone, 13), ["Dropout"]);
    }

    #[test]
    fn single_numbers_become_inputs() {
        let mut dropout = one(11, "Dropout", &[&[4]], &[("ratio", 0.25.into())]);
        raised(&mut dropout, 12);
        assert_eq!(numbers(&dropout.model, 1), [0.25]);
        let mut dft = one(17, "DFT", &[&[1, 4, 4, 1]], &[]);
        raised(&mut dft, 20);
        assert!(last(&dft.model).input(1).is_none());
        assert_eq!(integers(&dft.model, 2), [1]);
        let mut top = one(9, "TopK", &[&[4]], &[("k", 2.into())]);
        let error = upgrade(&mut one(9, "TopK", &[&[4]], &[]).model, 10).unwrap_err();
        assert!(matches!(error, UpgradeError::Node { .. }), "{error}");
        raised(&mut top, 11);
        assert_eq!(integers(&top.model, 1), [2]);
    }

    /// Outside of a function nobody gives the attribute.
    #[test]
    fn an_attribute_of_nobody_is_refused() {
        let mut b = one(12, "Unsqueeze", &[&[4]], &[]);
        let id = last_id(&b.model);
        let reference = AttributeValue::Reference("where".into());
        b.model.node_mut(id).attributes.push(Attribute::new("axes", reference));
        let error = upgrade(&mut b.model, 13).unwrap_err().to_string();
        assert!(error.contains("'axes' is given by the callers"), "{error}");
    }
}
