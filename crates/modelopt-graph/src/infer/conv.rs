//! Convolutions, pools and others that slide a window.

#![allow(clippy::unnecessary_wraps)] // A `Rule` may have no answer, even if this one has.

use super::context::Context;
use super::dims;
use super::rule::{Rule, Shapes, one};
use crate::{Dim, Shape};

pub(super) fn rule(op: &str) -> Option<Rule> {
    let rule: Rule = match op {
        "Conv" | "ConvInteger" | "DeformConv" => |context| conv(context, 1),
        "QLinearConv" => |context| conv(context, 3),
        "ConvTranspose" => transposed,
        "AveragePool" | "LpPool" | "MaxPool" => pool,
        "GlobalAveragePool" | "GlobalLpPool" | "GlobalMaxPool" => global_pool,
        "MaxUnpool" => unpool,
        "Col2Im" => col2im,
        "RoiAlign" => roi_align,
        "MaxRoiPool" => roi_pool,
        "GridSample" => grid_sample,
        "CausalConvWithState" => causal,
        _ => return None,
    };
    Some(rule)
}

/// How a window slides over the spatial axes.
struct Window {
    kernel: Vec<Dim>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    /// Begin and end of each axis.
    pads: Vec<(i64, i64)>,
    auto: Auto,
    ceil: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Auto {
    Explicit,
    Same,
    Valid,
}

impl Window {
    /// From a node's attributes; `None` where they do not fit together.
    fn new(context: &Context<'_>, spatial: usize, weight: Option<&[Dim]>) -> Option<Self> {
        let list = |name: &str, default: i64| match context.ints(name) {
            Some(list) => (list.len() == spatial).then(|| list.to_vec()),
            None => Some(vec![default; spatial]),
        };
        let kernel: Vec<Dim> = match (context.ints("kernel_shape"), weight) {
            (Some(kernel), _) => kernel.iter().map(|&size| dims::dim(size)).collect(),
            (None, Some(weight)) => weight.get(2..)?.to_vec(),
            // The rank of the input gives that of the kernel.
            (None, None) => vec![Dim::Unknown; spatial],
        };
        let auto = match context.string("auto_pad").unwrap_or("NOTSET") {
            "NOTSET" | "" => Auto::Explicit,
            "SAME_UPPER" | "SAME_LOWER" => Auto::Same,
            "VALID" => Auto::Valid,
            _ => return None,
        };
        let pads = match context.ints("pads") {
            Some(pads) if auto == Auto::Explicit => {
                if pads.len() != spatial.checked_mul(2)? {
                    return None;
                }
                let (begin, end) = pads.split_at(spatial);
                begin.iter().copied().zip(end.iter().copied()).collect()
            }
            _ => vec![(0, 0); spatial],
        };
        let strides = list("strides", 1)?;
        let dilations = list("dilations", 1)?;
        let sound =
            kernel.len() == spatial && strides.iter().chain(&dilations).all(|&size| size > 0);
        let ceil = context.int("ceil_mode", 0) != 0;
        sound.then_some(Window { kernel, strides, dilations, pads, auto, ceil })
    }

    /// The size along one axis that the window gives for one input size.
    fn output(&self, axis: usize, input: &Dim) -> Dim {
        let stride = self.strides[axis];
        if self.auto == Auto::Same {
            return match dims::fixed(input) {
                _ if stride == 1 => input.clone(),
                Some(size) => dims::dim(ceil_div(size, stride)),
                None => Dim::Unknown,
            };
        }
        let (begin, end) = self.pads[axis];
        let covered = || {
            let reach = dims::fixed(&self.kernel[axis])?.checked_sub(1)?;
            reach.checked_mul(self.dilations[axis])
        };
        let Some((reach, pads)) = covered().zip(begin.checked_add(end)) else {
            return Dim::Unknown;
        };
        if stride == 1 && reach == pads {
            return input.clone();
        }
        dims::fixed(input)
            .and_then(|size| {
                let room = size.checked_add(pads)?.checked_sub(reach)?.checked_sub(1)?;
                if room < 0 {
                    return None;
                }
                if !self.ceil {
                    return (room / stride).checked_add(1);
                }
                let count = ceil_div(room, stride).checked_add(1)?;
                // A window that would start in the padding at the end is left out.
                let last = count.checked_sub(1)?.checked_mul(stride)?;
                Some(if last >= size.checked_add(begin)? { count - 1 } else { count })
            })
            .map_or(Dim::Unknown, dims::dim)
    }

    fn outputs(&self, inputs: &[Dim]) -> impl Iterator<Item = Dim> {
        inputs.iter().enumerate().map(|(axis, input)| self.output(axis, input))
    }
}

/// For `a >= 0`, `b > 0`.
fn ceil_div(a: i64, b: i64) -> i64 {
    a / b + i64::from(a % b != 0)
}

/// A convolution whose weight is the input at `weight`.
pub(super) fn conv(context: &Context<'_>, weight: usize) -> Option<Shapes> {
    let weight_shape = context.shape(weight).map(Vec::as_slice);
    let channels = context.dim(weight, 0);
    let Some([batch, _, spatial @ ..]) = context.shape(0).map(Vec::as_slice) else {
        // The weight has the rank of the input.
        let mut shape = dims::unknown(weight_shape.filter(|shape| shape.len() > 2)?.len());
        shape[1] = channels;
        return one(shape);
    };
    let mut shape = vec![batch.clone(), channels];
    match Window::new(context, spatial.len(), weight_shape) {
        Some(window) => shape.extend(window.outputs(spatial)),
        None => return None,
    }
    one(shape)
}

fn transposed(context: &Context<'_>) -> Option<Shapes> {
    let [batch, _, spatial @ ..] = context.shape(0)?.as_slice() else {
        return None;
    };
    let window = Window::new(context, spatial.len(), context.shape(1).map(Vec::as_slice))?;
    let mut shape = vec![batch.clone(), dims::times(&context.dim(1, 1), context.int("group", 1))];
    if let Some(sizes) = context.ints("output_shape") {
        // Some exporters list batch and channels too.
        let sizes = sizes.get(sizes.len().checked_sub(spatial.len())?..)?;
        shape.extend(sizes.iter().map(|&size| dims::dim(size)));
        return one(shape);
    }
    let extra = match context.ints("output_padding") {
        Some(extra) if extra.len() == spatial.len() => extra.to_vec(),
        Some(_) => return None,
        None => vec![0; spatial.len()],
    };
    for (axis, input) in spatial.iter().enumerate() {
        let size = || {
            let stride = window.strides[axis];
            if window.auto == Auto::Same {
                return dims::fixed(input)?.checked_mul(stride);
            }
            let (begin, end) = window.pads[axis];
            let reach = dims::fixed(&window.kernel[axis])?
                .checked_sub(1)?
                .checked_mul(window.dilations[axis])?;
            stride
                .checked_mul(dims::fixed(input)?.checked_sub(1)?)?
                .checked_add(reach)?
                .checked_add(1)?
                .checked_add(extra[axis])?
                .checked_sub(begin)?
                .checked_sub(end)
        };
        shape.push(size().map_or(Dim::Unknown, dims::dim));
    }
    one(shape)
}

fn pool(context: &Context<'_>) -> Option<Shapes> {
    let [batch, channels, spatial @ ..] = context.shape(0)?.as_slice() else {
        return None;
    };
    let window = Window::new(context, spatial.len(), None)?;
    let mut shape = vec![batch.clone(), channels.clone()];
    shape.extend(window.outputs(spatial));
    Some(vec![Some(shape.clone()), Some(shape)])
}

fn global_pool(context: &Context<'_>) -> Option<Shapes> {
    let mut shape = context.shape(0)?.clone();
    for size in shape.iter_mut().skip(2) {
        *size = Dim::Fixed(1);
    }
    one(shape)
}

fn unpool(context: &Context<'_>) -> Option<Shapes> {
    if context.has(2) {
        return one(context.contents(2)?.iter().map(super::contents::Int::dim).collect());
    }
    let [batch, channels, spatial @ ..] = context.shape(0)?.as_slice() else {
        return None;
    };
    let window = Window::new(context, spatial.len(), None)?;
    let mut shape = vec![batch.clone(), channels.clone()];
    for (axis, input) in spatial.iter().enumerate() {
        let size = || {
            let (begin, end) = window.pads[axis];
            dims::fixed(input)?
                .checked_sub(1)?
                .checked_mul(window.strides[axis])?
                .checked_add(dims::fixed(&window.kernel[axis])?)?
                .checked_sub(begin)?
                .checked_sub(end)
        };
        shape.push(size().map_or(Dim::Unknown, dims::dim));
    }
    one(shape)
}

/// The second input is the image's shape, the third one that of the block.
fn col2im(context: &Context<'_>) -> Option<Shapes> {
    let image = context.contents(1)?;
    let block: Option<i64> = context
        .constant_ints(2)
        .and_then(|block| block.iter().try_fold(1i64, |all, &size| all.checked_mul(size)));
    let channels = match block {
        Some(block) if block > 0 => dims::divided(&context.dim(0, 1), block),
        _ => Dim::Unknown,
    };
    let mut shape: Shape = vec![context.dim(0, 0), channels];
    shape.extend(image.iter().map(super::contents::Int::dim));
    one(shape)
}

fn roi_align(context: &Context<'_>) -> Option<Shapes> {
    let height = dims::dim(context.int("output_height", 1));
    let width = dims::dim(context.int("output_width", 1));
    one(vec![context.dim(1, 0), context.dim(0, 1), height, width])
}

fn roi_pool(context: &Context<'_>) -> Option<Shapes> {
    let mut shape = vec![context.dim(1, 0), context.dim(0, 1)];
    shape.extend(context.ints("pooled_shape")?.iter().map(|&size| dims::dim(size)));
    one(shape)
}

/// The grid is `[batch, output sizes…, axes]`.
fn grid_sample(context: &Context<'_>) -> Option<Shapes> {
    let [batch, sizes @ .., _] = context.shape(1)?.as_slice() else {
        return None;
    };
    let mut shape = vec![dims::both(&context.dim(0, 0), batch), context.dim(0, 1)];
    shape.extend(sizes.iter().cloned());
    one(shape)
}

/// The state is the last `kernel - 1` columns of the input.
fn causal(context: &Context<'_>) -> Option<Shapes> {
    let shape = context.shape(0)?;
    let mut state = shape.clone();
    *state.last_mut()? = match context.shape(1).and_then(|shape| shape.last()) {
        Some(Dim::Fixed(kernel)) if *kernel > 0 => Dim::Fixed(kernel - 1),
        _ => Dim::Unknown,
    };
    Some(vec![Some(shape.clone()), Some(state)])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, check};

    #[test]
    fn convolutions_slide() {
        check("Conv", "float[n,3,8,8]; float[5,3,3,3]", "float[n, 5, 6, 6]");
        check(
            "Conv pads=[1,1,1,1] strides=[2,2]",
            "float[n,3,8,9]; float[5,3,3,3]",
            "float[n, 5, 4, 5]",
        );
        check("Conv pads=[1,1,1,1]", "float[n,3,h,w]; float[5,3,3,3]", "float[n, 5, h, w]");
        check("Conv strides=[2,2]", "float[n,3,h,9]; float[5,3,3,3]", "float[n, 5, ?, 4]");
        check(
            "Conv auto_pad=sSAME_UPPER strides=[2]",
            "float[n,3,9]; float[5,3,3]",
            "float[n, 5, 5]",
        );
        check("Conv dilations=[2]", "float[n,3,9]; float[5,3,3]", "float[n, 5, 5]");
        check("Conv", "float[..]; float[5,3,3,3]", "float[?, 5, ?, ?]");
        check("ConvInteger", "uint8[1,3,8]; int8[5,3,3]", "int32[1, 5, 6]");
    }

    #[test]
    fn hostile_windows_give_nothing() {
        check("Conv strides=[0]", "float[n,3,9]; float[5,3,3]", "float[..]");
        check("Conv strides=[1,1,1]", "float[n,3,9]; float[5,3,3]", "float[..]");
        check("Conv pads=[1]", "float[n,3,9]; float[5,3,3]", "float[..]");
        check(
            "Conv dilations=[9223372036854775807]",
            "float[n,3,9]; float[5,3,3]",
            "float[n, 5, ?]",
        );
        check(
            "Conv pads=[9223372036854775807,9223372036854775807]",
            "float[n,3,9]; float[5,3,3]",
            "float[n, 5, ?]",
        );
        check("Conv", "float[n,3,2]; float[5,3,3]", "float[n, 5, ?]");
        check("MaxPool kernel_shape=[-1]", "float[1,3,9]", "float[1, 3, ?]");
        check("GlobalAveragePool", "float[]", "float[]");
    }

    #[test]
    fn transposed_convolutions_grow() {
        check("ConvTranspose", "float[1,3,4]; float[3,2,3]", "float[1, 2, 6]");
        check(
            "ConvTranspose strides=[2] output_padding=[1] group=i3",
            "float[1,3,4]; float[3,2,3]",
            "float[1, 6, 10]",
        );
        check("ConvTranspose output_shape=[9]", "float[1,3,4]; float[3,2,3]", "float[1, 2, 9]");
    }

    #[test]
    fn pools_shrink() {
        check(
            "MaxPool kernel_shape=[2,2] strides=[2,2]",
            "float[n,3,8,7]",
            "float[n, 3, 4, 3]; int64[n, 3, 4, 3]",
        );
        check(
            "AveragePool kernel_shape=[2] strides=[2] ceil_mode=i1",
            "float[n,3,7]",
            "float[n, 3, 4]",
        );
        // The fourth window would start in the padding.
        check(
            "MaxPool kernel_shape=[1] strides=[2] ceil_mode=i1",
            "float[n,3,2]",
            "float[n, 3, 1]",
        );
        check("GlobalAveragePool", "float[n,3,h,w]", "float[n, 3, 1, 1]");
        check(
            "MaxUnpool kernel_shape=[2] strides=[2]",
            "float[1,1,3]; int64[1,1,3]",
            "float[1, 1, 6]",
        );
        at(18, "Col2Im", "float[1,20,9]; int64{5,5}; int64{2,2}", "float[1, 5, 5, 5]");
        check(
            "RoiAlign output_height=i2",
            "float[1,3,9,9]; float[r,4]; int64[r]",
            "float[r, 3, 2, 1]",
        );
        check("GridSample", "float[n,3,9,9]; float[n,4,5,2]", "float[n, 3, 4, 5]");
    }
}
