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

/// `ratio`. Without a training mode, which nobody asked for before, nothing is dropped.
pub(super) fn dropout(site: &mut Site<'_>) -> Result<bool, Obstacle> {
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
