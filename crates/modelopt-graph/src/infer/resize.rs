//! Resampling.

use super::contents::Int;
use super::context::Context;
use super::dims;
use super::rule::{Rule, Shapes, one};
use crate::Dim;

pub(super) fn rule(op: &str) -> Option<Rule> {
    let rule: Rule = match op {
        "Resize" => resize,
        "Upsample" => upsample,
        "AffineGrid" => affine_grid,
        _ => return None,
    };
    Some(rule)
}

fn resize(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    if context.version < 11 {
        return one(scaled(shape, &all_axes(shape.len()), context.constant_floats(1), true)?);
    }
    let axes = match context.ints("axes") {
        Some(axes) => axes.to_vec(),
        None => all_axes(shape.len()),
    };
    dims::axes(&axes, shape.len())?;
    if context.has(3) {
        let sizes = context.contents(3);
        // Another policy changes the sizes that are asked for.
        let exact = matches!(context.string("keep_aspect_ratio_policy"), None | Some("stretch"));
        let mut result = shape.clone();
        for (index, axis) in axes.into_iter().enumerate() {
            let place = dims::axis(axis, shape.len())?;
            let size = sizes.as_ref().filter(|_| exact).and_then(|sizes| sizes.get(index));
            result[place] = size.map_or(Dim::Unknown, Int::dim);
        }
        return one(result);
    }
    // With this mode, part of the input is cut out first.
    let whole = context.string("coordinate_transformation_mode") != Some("tf_crop_and_resize");
    one(scaled(shape, &axes, context.constant_floats(2), whole)?)
}

fn upsample(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    let scales = match context.version {
        ..7 => {
            let (height, width) = (context.float("height_scale")?, context.float("width_scale")?);
            Some(vec![1.0, 1.0, height, width])
        }
        7..9 => context.floats("scales").map(<[f32]>::to_vec),
        _ => context.constant_floats(1),
    };
    one(scaled(shape, &all_axes(shape.len()), scales, true)?)
}

fn all_axes(rank: usize) -> Vec<i64> {
    (0..rank as i64).collect()
}

/// The shape with the axes scaled; sizes are rounded down, as the operator is defined.
fn scaled(shape: &[Dim], axes: &[i64], scales: Option<Vec<f32>>, known: bool) -> Option<Vec<Dim>> {
    let mut shape = shape.to_vec();
    let Some(scales) = scales.filter(|scales| known && !scales.is_empty()) else {
        for &axis in axes {
            let place = dims::axis(axis, shape.len())?;
            shape[place] = Dim::Unknown;
        }
        return Some(shape);
    };
    if scales.len() != axes.len() {
        return None;
    }
    for (&axis, scale) in axes.iter().zip(scales) {
        let place = dims::axis(axis, shape.len())?;
        shape[place] = match &shape[place] {
            size if scale.to_bits() == 1f32.to_bits() => size.clone(),
            // Beyond this, float32 has no exact sizes.
            Dim::Fixed(size) if *size < (1 << 24) && scale.is_finite() && scale > 0.0 => {
                let size = (*size as f32 * scale).floor();
                if size < (1u32 << 24) as f32 { Dim::Fixed(size as usize) } else { Dim::Unknown }
            }
            _ => Dim::Unknown,
        };
    }
    Some(shape)
}

/// The second input is the size of the picture: batch, channels, then two or three axes.
fn affine_grid(context: &Context<'_>) -> Option<Shapes> {
    let size = context.contents(1)?;
    let (batch, axes) = (size.first()?, size.get(2..)?);
    let mut shape = vec![batch.dim()];
    shape.extend(axes.iter().map(Int::dim));
    shape.push(Dim::Fixed(axes.len()));
    one(shape)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, check};

    #[test]
    fn scales_multiply_and_sizes_replace() {
        check("Resize", "float[n,3,4,5]; -; float{1,1,2,1.5}", "float[n, 3, 8, 7]");
        check("Resize", "float[n,3,4,5]; -; -; int64{1,3,8,9}", "float[1, 3, 8, 9]");
        check("Resize", "float[n,3]; -; float[2]", "float[?, ?]");
        at(10, "Resize", "float[n,4]; float{1,0.5}", "float[n, 2]");
        at(18, "Resize axes=[1]", "float[n,4]; -; -; int64{7}", "float[n, 7]");
        at(
            18,
            "Resize keep_aspect_ratio_policy=snot_larger",
            "float[3,4]; -; -; int64{7,7}",
            "float[?, ?]",
        );
        at(9, "Upsample", "float[n,4]; float{1,2}", "float[n, 8]");
        at(7, "Upsample scales=f[1,2]", "float[n,4]", "float[n, 8]");
        check("Resize", "float[3,4]; -; float{2}", "float[..]");
        check("Resize", "float[3,4]; -; float{-1,1e30}", "float[?, ?]");
        at(20, "AffineGrid", "float[n,2,3]; int64{4,3,5,6}", "float[4, 5, 6, 2]");
    }
}
