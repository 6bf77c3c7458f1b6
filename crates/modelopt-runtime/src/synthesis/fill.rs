//! Values for one input.

use half::{bf16, f16};
use modelopt_graph::{DataType, Tensor, element_count};

use super::image::{self, Layout};
use super::input::InputPlan;
use super::random::Random;
use crate::{SampleError, Uninvented};

/// Invents the values of an input.
pub(super) fn fill(plan: &InputPlan<'_>, random: &mut Random) -> Result<Tensor, SampleError> {
    let count = element_count(&plan.shape).unwrap_or(0);
    let mask = plan.name.to_lowercase().contains("mask");
    // Without elements, the other sizes may be anything.
    let layout = if count == 0 { None } else { image::layout(&plan.shape) };
    let tensor = if plan.dtype.is_float() {
        let floats = if mask {
            vec![1.0; count]
        } else if let Some(layout) = layout {
            image::picture(layout, random)
        } else {
            (0..count).map(|_| random.normal()).collect()
        };
        let floats: Vec<f64> = floats.into_iter().map(f64::from).collect();
        from_floats(plan.dtype, &plan.shape, &floats)
    } else {
        from_integers(plan.dtype, &plan.shape, &integers(plan, count, mask, layout, random))
    };
    let of_type = || Uninvented::OfType(plan.dtype.to_string());
    tensor.ok_or_else(|| SampleError::needs_sample(plan.name, of_type()))
}

fn integers(
    plan: &InputPlan<'_>,
    count: usize,
    mask: bool,
    layout: Option<Layout>,
    random: &mut Random,
) -> Vec<i64> {
    if mask || plan.dtype == DataType::BOOL {
        let one = i64::from(plan.bound.is_none_or(|bound| bound > 1));
        return vec![one; count];
    }
    if let Some(control) = plan.control.as_ref().filter(|control| control.len() == count) {
        return control.clone();
    }
    if let Some(bound) = plan.bound {
        let bound = bound.min(largest(plan.dtype));
        return (0..count).map(|_| random.below(bound) as i64).collect();
    }
    if count == 1 {
        return vec![1];
    }
    if plan.dtype == DataType::UINT8
        && let Some(layout) = layout
    {
        let picture = image::picture(layout, random);
        return picture.into_iter().map(|x| (128.0 + 64.0 * x).clamp(0.0, 255.0) as i64).collect();
    }
    (0..count).map(|_| random.below(2) as i64).collect()
}

/// The largest number of a type, or more than any table has rows.
fn largest(dtype: DataType) -> u64 {
    match dtype {
        DataType::INT8 => 127,
        DataType::UINT8 => 255,
        DataType::INT16 => 32_767,
        DataType::UINT16 => 65_535,
        _ => i32::MAX as u64,
    }
}

/// A float tensor; `None` for other types.
pub(super) fn from_floats(dtype: DataType, shape: &[usize], elements: &[f64]) -> Option<Tensor> {
    let shape = shape.to_vec();
    match dtype {
        DataType::FLOAT => Tensor::of(shape, &map(elements, |x| x as f32)),
        DataType::DOUBLE => Tensor::of(shape, elements),
        DataType::FLOAT16 => Tensor::of(shape, &map(elements, f16::from_f64)),
        DataType::BFLOAT16 => Tensor::of(shape, &map(elements, bf16::from_f64)),
        _ => return None,
    }
    .ok()
}

/// An integer or boolean tensor; `None` for other types, or where an element does not fit.
pub(super) fn from_integers(dtype: DataType, shape: &[usize], elements: &[i64]) -> Option<Tensor> {
    let shape = shape.to_vec();
    macro_rules! narrow {
        ($rust:ty) => {{
            let narrow: Result<Vec<$rust>, _> =
                elements.iter().map(|&x| <$rust>::try_from(x)).collect();
            Tensor::of(shape, &narrow.ok()?)
        }};
    }
    match dtype {
        DataType::INT64 => Tensor::of(shape, elements),
        DataType::INT32 => narrow!(i32),
        DataType::INT16 => narrow!(i16),
        DataType::INT8 => narrow!(i8),
        DataType::UINT64 => narrow!(u64),
        DataType::UINT32 => narrow!(u32),
        DataType::UINT16 => narrow!(u16),
        DataType::UINT8 => narrow!(u8),
        DataType::BOOL => Tensor::dense(dtype, shape, map(elements, |x| u8::from(x != 0))),
        _ => return None,
    }
    .ok()
}

fn map<T: Copy, U>(elements: &[T], f: impl Fn(T) -> U) -> Vec<U> {
    elements.iter().map(|&x| f(x)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(name: &str, dtype: DataType, shape: &[usize], bound: Option<u64>) -> Tensor {
        let plan = InputPlan { name, dtype, shape: shape.to_vec(), bound, control: None };
        fill(&plan, &mut Random::new(0, name, 0)).unwrap()
    }

    #[test]
    fn masks_and_booleans_are_on() {
        let mask = filled("attention_mask", DataType::FLOAT, &[1, 3], None);
        assert_eq!(&*mask.to_f32().unwrap(), [1.0; 3]);
        assert_eq!(filled("x", DataType::BOOL, &[2], None).to_i64().unwrap(), [1, 1]);
        assert_eq!(filled("mask", DataType::INT64, &[1], Some(1)).to_i64().unwrap(), [0]);
    }

    #[test]
    fn integers_stay_in_range() {
        assert_eq!(filled("sr", DataType::INT64, &[], None).to_i64().unwrap(), [1]);
        let indices = filled("x", DataType::INT8, &[500], Some(1000)).to_i64().unwrap();
        assert!(indices.iter().all(|x| (0..127).contains(x)));
        let flags = filled("x", DataType::INT32, &[500], None).to_i64().unwrap();
        assert!(flags.contains(&0) && flags.contains(&1));
        let pixels = filled("x", DataType::UINT8, &[1, 16, 16, 3], None).to_i64().unwrap();
        assert!(pixels.iter().any(|&x| x > 150) && pixels.iter().any(|&x| x < 100));
    }

    #[test]
    fn nothing_takes_no_time() {
        let empty = filled("x", DataType::FLOAT, &[1 << 40, 3, 1 << 40, 0], None);
        assert_eq!(empty.byte_len(), 0);
    }

    #[test]
    fn every_float_type_is_filled() {
        for dtype in [DataType::FLOAT16, DataType::BFLOAT16, DataType::DOUBLE] {
            let tensor = filled("x", dtype, &[2, 5], None);
            assert_eq!(tensor.dtype(), dtype);
            assert!(tensor.to_f32().unwrap().iter().any(|x| *x < 0.0));
        }
    }
}
