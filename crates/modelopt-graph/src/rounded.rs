//! float32 elements rounded to 16 bits when they are needed, so that rounding the weights of a
//! large model holds none of them in memory.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::{DataType, Tensor};

/// Bytes of a float32 and of a 16-bit float.
const WIDE: usize = size_of::<f32>();
const NARROW: usize = size_of::<f16>();

/// The elements of a float32 tensor rounded to float16 or bfloat16, to nearest with ties to even;
/// float16 keeps subnormals, and what is beyond its range becomes infinite.
#[derive(Clone, Debug)]
pub struct Rounded {
    source: Bytes,
    is_float16: bool,
    made: Arc<OnceLock<Bytes>>,
}

impl Rounded {
    /// The elements of `tensor` as `to`; `None` unless they are float32 and `to` is float16 or
    /// bfloat16.
    pub(crate) fn of(tensor: &Tensor, to: DataType) -> Option<Self> {
        let is_float16 = to == DataType::FLOAT16;
        let fits = tensor.dtype() == DataType::FLOAT && (is_float16 || to == DataType::BFLOAT16);
        let source = tensor.bytes().filter(|_| fits)?.clone();
        Some(Rounded { source, is_float16, made: Arc::default() })
    }

    /// Size in bytes.
    pub fn byte_len(&self) -> usize {
        self.source.len() / WIDE * NARROW
    }

    /// The float32 elements they are made from, little-endian: what tells one tensor from another.
    pub fn source(&self) -> &Bytes {
        &self.source
    }

    /// All of them, kept from the first call on.
    pub fn bytes(&self) -> &Bytes {
        self.made.get_or_init(|| {
            let mut out = vec![0; self.byte_len()];
            self.write(0, &mut out);
            out.into()
        })
    }

    /// Writes those that take `out.len()` bytes from `offset` on; both are even.
    ///
    /// # Panics
    /// If that is more than there is.
    pub fn write(&self, offset: usize, out: &mut [u8]) {
        /// What is converted at a time, to stay in the cache.
        const BLOCK: usize = 4096;
        let mut wide = [0f32; BLOCK];
        let mut narrow = [0u16; BLOCK];
        let source = &self.source[offset * 2..(offset + out.len()) * 2];
        for (from, to) in source.chunks(BLOCK * WIDE).zip(out.chunks_mut(BLOCK * NARROW)) {
            let count = from.len() / WIDE;
            let (wide, narrow) = (&mut wide[..count], &mut narrow[..count]);
            for (number, bytes) in wide.iter_mut().zip(from.chunks_exact(WIDE)) {
                *number = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            if self.is_float16 {
                bytemuck::cast_slice_mut::<_, f16>(narrow).convert_from_f32_slice(wide);
            } else {
                bytemuck::cast_slice_mut::<_, bf16>(narrow).convert_from_f32_slice(wide);
            }
            for (bytes, number) in to.chunks_exact_mut(NARROW).zip(narrow.iter()) {
                bytes.copy_from_slice(&number.to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Vec<f32> {
        let mut numbers: Vec<f32> =
            (0..20_000).map(|i| (i as f32 - 10_000.0) * 1.000_7f32.powi(i % 977) / 37.0).collect();
        numbers.extend([0.0, -0.0, 1e-8, 3e-8, 6e-8, 65504.0, 65519.9, 65520.0, f32::INFINITY]);
        numbers
    }

    #[test]
    fn every_element_is_rounded_to_nearest_even() {
        let numbers = numbers();
        let tensor = Tensor::of(vec![numbers.len()], &numbers).unwrap();
        let half = tensor.rounded(DataType::FLOAT16).unwrap();
        let expected: Vec<f16> = numbers.iter().map(|&x| f16::from_f32(x)).collect();
        assert_eq!(half.elements::<f16>().unwrap(), expected);
        let brain = tensor.rounded(DataType::BFLOAT16).unwrap();
        let expected: Vec<bf16> = numbers.iter().map(|&x| bf16::from_f32(x)).collect();
        assert_eq!(brain.elements::<bf16>().unwrap(), expected);
    }

    #[test]
    fn parts_are_the_parts_of_the_whole() {
        let numbers = numbers();
        let tensor = Tensor::of(vec![numbers.len()], &numbers).unwrap();
        let rounded = Rounded::of(&tensor, DataType::FLOAT16).unwrap();
        let mut part = vec![0; 10_000];
        rounded.write(8_194, &mut part);
        assert_eq!(part, rounded.bytes()[8_194..18_194]);
    }

    #[test]
    fn only_float32_is_rounded_to_only_two_types() {
        let tensor = Tensor::of(vec![1], &[1f32]).unwrap();
        assert!(tensor.rounded(DataType::DOUBLE).is_none());
        assert!(Tensor::of(vec![1], &[1f64]).unwrap().rounded(DataType::FLOAT16).is_none());
    }
}
