//! Making pictures larger and smaller.
//!
//! ```text
//! y = Upsample(x, scales) {mode}    =>    y = Resize(x, scales) {mode}
//!   =>
//! y = Resize(x, roi, scales) {mode, coordinate_transformation_mode = asymmetric, nearest_mode}
//! ```
//!
//! Before version 11 nothing says how `nearest` rounds. Where a picture grows the smaller coordinate is
//! taken, where it shrinks the larger, as ONNX's own tests of that version have it: axes of both kinds
//! need two nodes.

use modelopt_graph::{AttributeValue, ValueId};

use super::site::{Obstacle, Site, floats};

/// From this version on there is a way to say how `nearest` rounds.
const WITH_ROUNDING: i64 = 11;

/// From this version on `roi` may be left out.
const WITHOUT_ROI: i64 = 13;

/// `Resize` is `Upsample` by another name, and does more: from version 11 on what is known of an
/// `Upsample`, that it makes no axis smaller, has to be said.
pub(super) fn upsample(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    if is_nearest(site)? && site.to >= WITH_ROUNDING {
        site.set_attribute("nearest_mode", "floor");
    }
    site.rename("Resize");
    Ok(true)
}

/// How an axis changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Grows,
    Shrinks,
    Either,
}

/// Says what the coordinates are, and how they are rounded.
pub(super) fn coordinates(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let scales = site.input(1).ok_or(Obstacle::NoEquivalent("it has no scales"))?;
    let mut growing = scales;
    if is_nearest(site)? && !site.has_attribute("nearest_mode") {
        let direction = direction(site, scales);
        if direction == Direction::Either {
            growing = shrink_first(site, scales);
        }
        let rounding = if direction == Direction::Shrinks { "ceil" } else { "floor" };
        site.set_attribute("nearest_mode", rounding);
    }
    site.set_attribute("coordinate_transformation_mode", "asymmetric");
    site.set_input(2, growing);
    match no_roi(site) {
        Some(roi) => site.set_input(1, roi),
        None => site.drop_input(1),
    }
    Ok(true)
}

fn is_nearest(site: &Site<'_>) -> Result<bool, Obstacle> {
    Ok(site.text("mode")?.is_none_or(|mode| mode == "nearest"))
}

/// What stands for no region of interest, where something has to.
fn no_roi(site: &mut Site<'_>) -> Option<ValueId> {
    (site.to < WITHOUT_ROI).then(|| site.constant("no_roi", floats(&[])))
}

fn direction(site: &Site<'_>, scales: ValueId) -> Direction {
    let Some(scales) = site.model.constant(scales) else { return Direction::Either };
    let Some(scales) = scales.to_f32() else { return Direction::Either };
    if scales.iter().all(|scale| *scale >= 1.0) {
        Direction::Grows
    } else if scales.iter().all(|scale| *scale <= 1.0) {
        Direction::Shrinks
    } else {
        Direction::Either
    }
}

/// Makes the axes that shrink smaller in a node of its own; gives the scales of the others.
fn shrink_first(site: &mut Site<'_>, scales: ValueId) -> ValueId {
    let Some(x) = site.input(0) else { return scales };
    let one = site.constant("one", floats(&[1.0]));
    let shrinking = site.before("Min", "shrinking", &[Some(scales), Some(one)], &[]);
    let growing = site.before("Max", "growing", &[Some(scales), Some(one)], &[]);
    let roi = no_roi(site);
    let attributes: [(&str, AttributeValue); 3] = [
        ("mode", "nearest".into()),
        ("nearest_mode", "ceil".into()),
        ("coordinate_transformation_mode", "asymmetric".into()),
    ];
    let smaller = site.before("Resize", "smaller", &[Some(x), roi, Some(shrinking)], &attributes);
    let elem = site.model.value(x).elem().map(modelopt_graph::Type::tensor);
    site.model.set_type(smaller, elem);
    site.set_input(0, smaller);
    growing
}

/// What stands in for an input that had to be there may be left out now, and `sizes` and `scales` must
/// not both be given.
#[allow(clippy::unnecessary_wraps)] // As adapters are.
pub(super) fn left_out(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let is_empty = |site: &Site<'_>, index: usize| {
        let value = site.input(index).and_then(|value| site.model.constant(value));
        value.is_some_and(|tensor| tensor.is_empty())
    };
    let mut changed = false;
    for index in [1, 2] {
        // Without sizes, empty scales are a mistake of the model, which stays one.
        if is_empty(site, index) && (index == 1 || site.input(3).is_some()) {
            site.drop_input(index);
            changed = true;
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Tensor;

    use crate::testing::{Build, float};
    use crate::upgrade::testing::{last, raised};

    fn resize(opset: i64, op: &str, scales: Option<&[f32]>) -> Build {
        let mut b = Build::new(opset);
        let x = b.input("x", float(&[1, 1, 4, 4]));
        let scales = match scales {
            Some(scales) => b.weight("scales", &[4], scales),
            None => b.input("scales", float(&[4])),
        };
        let y = b.node(op, &[x, scales], &[("mode", "nearest".into())]);
        b.output(y, float(&[1, 1, 8, 8]));
        b
    }

    #[test]
    fn what_grows_rounds_down_and_what_shrinks_rounds_up() {
        for (scales, rounding) in [([1.0, 1.0, 2.0, 1.5], "floor"), ([1.0, 1.0, 0.5, 0.6], "ceil")]
        {
            let mut b = resize(10, "Resize", Some(&scales));
            assert_eq!(raised(&mut b, 13), ["Resize"]);
            let node = last(&b.model);
            assert_eq!(node.string("nearest_mode"), Some(rounding));
            assert_eq!(node.string("coordinate_transformation_mode"), Some("asymmetric"));
            assert!(node.input(1).is_none());
            assert_eq!(b.model.value(node.input(2).unwrap()).name(), "scales");
        }
    }

    #[test]
    fn axes_of_both_kinds_take_two_nodes() {
        for scales in [Some(&[1.0, 1.0, 2.0, 0.5][..]), None] {
            let mut b = resize(10, "Resize", scales);
            assert_eq!(raised(&mut b, 11), ["Min", "Max", "Resize", "Resize"]);
            let second = last(&b.model);
            assert_eq!(second.string("nearest_mode"), Some("floor"));
            let first = b.maker(second.input(0).unwrap());
            assert_eq!(first.string("nearest_mode"), Some("ceil"));
            // Something must stand for the region of interest at this version.
            assert!(b.model.constant(first.input(1).unwrap()).unwrap().is_empty());
        }
    }

    #[test]
    fn an_upsample_only_grows_whatever_its_scales() {
        let mut b = resize(9, "Upsample", None);
        assert_eq!(raised(&mut b, 11), ["Resize"]);
        assert_eq!(last(&b.model).string("nearest_mode"), Some("floor"));
        let mut b = resize(9, "Upsample", None);
        assert_eq!(raised(&mut b, 10), ["Resize"]);
        assert!(last(&b.model).string("nearest_mode").is_none());
    }

    #[test]
    fn stand_ins_are_left_out_and_go() {
        let mut b = Build::new(11);
        let x = b.input("x", float(&[1, 1, 4, 4]));
        let roi = b.weight("roi", &[0], &[]);
        let none = Tensor::of::<f32>(vec![0], &[]).unwrap();
        let scales = b.node("Constant", &[], &[("value", none.into())]);
        let sizes = b.input("sizes", float(&[4]));
        let y = b.node("Resize", &[x, roi, scales, sizes], &[]);
        b.output(y, float(&[1, 1, 8, 8]));
        assert_eq!(raised(&mut b, 13), ["Resize"]);
        let node = last(&b.model);
        assert!(node.input(1).is_none() && node.input(2).is_none() && node.input(3).is_some());
        assert!(b.model.initializers_of(b.model.main()).is_empty());
    }
}
