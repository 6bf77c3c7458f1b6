//! What rounding float32 numbers to 16 bits loses.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use modelopt_graph::{DataType, Tensor};
use rayon::prelude::*;

use crate::plan::Precision;

/// What rounding some numbers to 16 bits loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rounding {
    /// The largest magnitude of a finite number.
    pub largest: f32,
    /// The sum of all squares, of finite numbers.
    pub signal: f64,
    /// The sum of the squares of what rounding takes away, of numbers that stay finite.
    pub noise: f64,
    /// Whether a finite number becomes infinite.
    pub overflows: bool,
}

impl Rounding {
    const NOTHING: Rounding = Rounding { largest: 0.0, signal: 0.0, noise: 0.0, overflows: false };

    /// Signal-to-quantization-noise ratio in dB; infinite where nothing is lost.
    pub fn sqnr_db(&self) -> f64 {
        if self.noise == 0.0 { f64::INFINITY } else { 10.0 * (self.signal / self.noise).log10() }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Rounding) -> Rounding {
        Rounding {
            largest: self.largest.max(other.largest),
            signal: self.signal + other.signal,
            noise: self.noise + other.noise,
            overflows: self.overflows || other.overflows,
        }
    }

    /// Why numbers that lose this much should stay float32, if they should: they overflow, or
    /// underflow so far that the ratio is below `min_sqnr_db`.
    pub fn objection(&self, to: Precision, min_sqnr_db: f64) -> Option<String> {
        let (name, most) = (to.dtype(), to.largest());
        if self.overflows {
            return Some(format!("reaches {:.3e}, beyond the {most:.3e} of {name}", self.largest));
        }
        let lost = self.sqnr_db();
        (lost < min_sqnr_db)
            .then(|| format!("has numbers too small for {name}, which keeps {lost:.1} dB of it"))
    }
}

/// How much is looked at by one task.
const TASK: usize = 1 << 16;
/// How much is converted at a time.
const BLOCK: usize = 2048;

/// What rounding these numbers loses.
pub fn rounding(numbers: &[f32], to: Precision) -> Rounding {
    numbers
        .par_chunks(TASK)
        .map(|part| {
            part.chunks(BLOCK)
                .map(|block| of_block(block, to))
                .fold(Rounding::NOTHING, Rounding::and)
        })
        // In order, so that sums do not depend on the number of threads.
        .collect::<Vec<_>>()
        .into_iter()
        .fold(Rounding::NOTHING, Rounding::and)
}

/// The same of a float32 tensor; none of another.
pub(crate) fn of_tensor(tensor: &Tensor, to: Precision) -> Option<Rounding> {
    if tensor.dtype() != DataType::FLOAT {
        return None;
    }
    let bytes = tensor.bytes()?;
    // Weights in a mapped file are rarely aligned, and must not be copied as a whole.
    let parts: Vec<Rounding> = bytes
        .par_chunks(TASK * size_of::<f32>())
        .map(|part| {
            let mut aligned = [0f32; BLOCK];
            let mut sum = Rounding::NOTHING;
            for block in part.chunks(BLOCK * size_of::<f32>()) {
                let block_of = &mut aligned[..block.len() / size_of::<f32>()];
                for (number, bytes) in block_of.iter_mut().zip(block.chunks_exact(4)) {
                    *number = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
                sum = sum.and(of_block(block_of, to));
            }
            sum
        })
        .collect();
    Some(parts.into_iter().fold(Rounding::NOTHING, Rounding::and))
}

fn of_block(block: &[f32], to: Precision) -> Rounding {
    let mut back = [0f32; BLOCK];
    let back = &mut back[..block.len()];
    let mut bits = [0u16; BLOCK];
    let bits = &mut bits[..block.len()];
    match to {
        Precision::Fp16 => {
            let narrow: &mut [f16] = bytemuck::cast_slice_mut(bits);
            narrow.convert_from_f32_slice(block);
            narrow.convert_to_f32_slice(back);
        }
        Precision::Bf16 => {
            let narrow: &mut [bf16] = bytemuck::cast_slice_mut(bits);
            narrow.convert_from_f32_slice(block);
            narrow.convert_to_f32_slice(back);
        }
    }
    let mut lanes = Lanes::default();
    let (wholes, rest) = block.as_chunks::<LANES>();
    let (rounded, rounded_rest) = back.as_chunks::<LANES>();
    for (numbers, rounded) in wholes.iter().zip(rounded) {
        for lane in 0..LANES {
            lanes.add(lane, numbers[lane], rounded[lane]);
        }
    }
    for (lane, (&number, &rounded)) in rest.iter().zip(rounded_rest).enumerate() {
        lanes.add(lane, number, rounded);
    }
    Rounding {
        largest: lanes.largest.into_iter().fold(0.0, f32::max),
        signal: lanes.signal.into_iter().sum(),
        noise: lanes.noise.into_iter().sum(),
        overflows: lanes.overflows.contains(&1),
    }
}

/// Independent accumulators, so that the compiler can use vector registers.
const LANES: usize = 8;

#[derive(Default)]
struct Lanes {
    largest: [f32; LANES],
    signal: [f64; LANES],
    noise: [f64; LANES],
    overflows: [u32; LANES],
}

impl Lanes {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the loop around it is only vectorised inline")]
    fn add(&mut self, lane: usize, number: f32, rounded: f32) {
        let size = number.abs();
        let finite = size < f32::INFINITY;
        let stays = rounded.abs() < f32::INFINITY;
        let number = if finite { number } else { 0.0 };
        let error = if stays { number - rounded } else { 0.0 };
        let size = if finite { size } else { 0.0 };
        self.largest[lane] = if size > self.largest[lane] { size } else { self.largest[lane] };
        self.signal[lane] += f64::from(number) * f64::from(number);
        self.noise[lane] += f64::from(error) * f64::from(error);
        self.overflows[lane] |= u32::from(finite) & u32::from(!stays);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn the_bits_of_a_type_decide_what_is_left() {
        let numbers = noise(200_000, 7);
        let [half, brain] = Precision::ALL.map(|to| rounding(&numbers, to).sqnr_db());
        // 6.02 dB a bit, and a little for uniform errors of numbers of all sizes.
        assert!((70.0..78.0).contains(&half), "{half}");
        assert!((52.0..60.0).contains(&brain), "{brain}");
    }

    #[test]
    fn overflow_and_underflow_are_objected_to() {
        let objection =
            |numbers: &[f32]| rounding(numbers, Precision::Fp16).objection(Precision::Fp16, 40.0);
        assert_eq!(objection(&[1.0, -65504.0, 65519.0, f32::INFINITY, f32::NAN]), None);
        assert!(objection(&[1.0, 65520.0]).unwrap().contains("beyond the 6.550e4 of float16"));
        assert!(objection(&[1e-12]).unwrap().contains("too small"));
        // Next to numbers that count, those that vanish do not.
        assert_eq!(objection(&[1e-12, 0.5]), None);
        assert_eq!(objection(&[]), None);
    }

    #[test]
    fn unaligned_tensors_are_looked_at_as_they_are() {
        let numbers = noise(5000, 3);
        let mut bytes = vec![0u8];
        bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
        let unaligned = bytes::Bytes::from(bytes).slice(1..);
        let tensor = Tensor::dense(DataType::FLOAT, vec![5000], unaligned).unwrap();
        let found = of_tensor(&tensor, Precision::Bf16).unwrap();
        assert_eq!(found, rounding(&numbers, Precision::Bf16));
    }
}
