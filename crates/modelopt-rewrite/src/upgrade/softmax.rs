//! `Softmax`, `LogSoftmax` and `Hardmax` over one axis rather than over all from one on.
//!
//! ```text
//! y = Softmax(x) {axis = a}    =>    y = Softmax(x) {axis = a}
//! ```
//!
//! where at most one of the axes from `a` on is longer than 1, and otherwise:
//!
//! ```text
//! flat = Flatten(x) {axis = a}; soft = Softmax(flat) {axis = -1}; y = Reshape(soft, Shape(x))
//! ```

use modelopt_graph::{AttributeValue, Dim};

use super::site::{Obstacle, Site};

/// From this version on `Reshape` can be told that sizes of 0 are meant.
const ALLOW_ZERO: i64 = 14;

pub(super) fn along_one_axis(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let axis = site.int("axis")?.unwrap_or(1);
    match same_axis(site, axis) {
        Some(same) => site.set_attribute("axis", same),
        None => flattened(site, axis),
    }
    Ok(true)
}

/// The one axis that it is the same over, if there is one.
fn same_axis(site: &Site<'_>, axis: i64) -> Option<i64> {
    if axis == -1 {
        return Some(axis);
    }
    let shape = site.shape(0)?;
    let first = if axis < 0 { axis + shape.len() as i64 } else { axis };
    let first = usize::try_from(first).ok()?;
    let rest = shape.get(first..)?;
    let mut longer = rest.iter().enumerate().filter(|(_, dim)| **dim != Dim::Fixed(1));
    let (place, _) = longer.next().or_else(|| rest.iter().enumerate().next_back())?;
    longer.next().is_none().then_some((first + place) as i64)
}

fn flattened(site: &mut Site<'_>, axis: i64) {
    let (Some(x), Some(given)) = (site.input(0), site.give_up_output(0, "flat_result")) else {
        return;
    };
    let shape = site.before("Shape", "shape", &[x], &[]);
    let flat = site.before("Flatten", "flat", &[x], &[("axis", axis.into())]);
    let elem = site.model.value(x).elem().map(modelopt_graph::Type::tensor);
    site.model.set_type(flat, elem.clone());
    site.model.set_type(given.new, elem);
    site.set_input(0, flat);
    site.set_attribute("axis", -1);
    let zero: &[(&str, AttributeValue)] = &[("allowzero", 1.into())];
    let attributes = if site.to >= ALLOW_ZERO { zero } else { &[] };
    site.after("Reshape", &[given.new, shape], attributes, given.old);
}

#[cfg(test)]
mod tests {
    use modelopt_graph::{DataType, Type};

    use crate::testing::Build;
    use crate::upgrade::testing::{last, one, raised};

    #[test]
    fn one_axis_is_enough_where_the_others_are_of_size_1() {
        let cases: [(&[usize], Option<i64>, i64); 4] = [
            (&[2, 5], None, 1),
            (&[2, 5, 1, 1], None, 1),
            (&[2, 1, 5], Some(1), 2),
            (&[2, 3, 4], Some(-1), -1),
        ];
        for (shape, axis, expected) in cases {
            let axis = axis.map(|axis| ("axis", axis.into()));
            let mut b = one(12, "Softmax", &[shape], axis.as_slice());
            assert_eq!(raised(&mut b, 13), ["Softmax"]);
            assert_eq!(last(&b.model).int("axis", 7), expected, "{shape:?}");
        }
    }

    #[test]
    fn several_axes_are_made_one() {
        for op in ["Softmax", "LogSoftmax", "Hardmax"] {
            let mut b = one(9, op, &[&[2, 3, 4]], &[]);
            assert_eq!(raised(&mut b, 17), ["Shape", "Flatten", op, "Reshape"]);
            let reshape = last(&b.model);
            assert_eq!(reshape.int("allowzero", 0), 1);
            let soft = b.maker(reshape.input(0).unwrap());
            assert_eq!(soft.int("axis", 0), -1);
            assert_eq!(b.maker(soft.input(0).unwrap()).int("axis", 0), 1);
        }
        let mut early = one(9, "Softmax", &[&[2, 3, 4]], &[]);
        raised(&mut early, 13);
        assert!(last(&early.model).attributes.is_empty());
    }

    #[test]
    fn without_a_rank_nothing_is_assumed() {
        let mut b = Build::new(11);
        let x = b.input("x", Type::tensor(DataType::FLOAT));
        let y = b.node("Softmax", &[x], &[]);
        b.output(y, Type::tensor(DataType::FLOAT));
        assert_eq!(raised(&mut b, 13).len(), 4);
    }
}
