//! Pictures: models that see are misjudged on white noise, so these are smooth, with structure at
//! several scales, channels that go together, and a little noise.

use super::random::Random;

/// Cells per side of the coarsest field; each finer one has twice as many at half the strength.
const COARSEST: usize = 3;
const SCALES: u32 = 4;

/// How much a channel differs from the others, and how much noise there is, before standardising.
const CHANNEL: f32 = 0.4;
const NOISE: f32 = 0.05;

/// Sizes of a batch of pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Layout {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    channels_last: bool,
}

/// Reads a shape as pictures: rank 4 with 1, 3 or 4 channels in second or last place.
pub(super) fn layout(shape: &[usize]) -> Option<Layout> {
    let is_channels = |size: usize| matches!(size, 1 | 3 | 4);
    match *shape {
        [batch, channels, height, width] if is_channels(channels) => {
            Some(Layout { batch, channels, height, width, channels_last: false })
        }
        [batch, height, width, channels] if is_channels(channels) => {
            Some(Layout { batch, channels, height, width, channels_last: true })
        }
        _ => None,
    }
}

/// Pictures in the order of the layout, with mean 0 and standard deviation 1 over all elements.
pub(super) fn picture(layout: Layout, random: &mut Random) -> Vec<f32> {
    let mut out = Vec::with_capacity(layout.batch * layout.channels * layout.height * layout.width);
    for _ in 0..layout.batch {
        let brightness = field(layout.height, layout.width, random);
        let planes: Vec<Vec<f32>> = (0..layout.channels)
            .map(|_| {
                let colour = field(layout.height, layout.width, random);
                let pixel = |(b, c): (&f32, f32)| b + CHANNEL * c + NOISE * random.normal();
                brightness.iter().zip(colour).map(pixel).collect()
            })
            .collect();
        if layout.channels_last {
            for pixel in 0..layout.height * layout.width {
                out.extend(planes.iter().filter_map(|plane| plane.get(pixel)));
            }
        } else {
            out.extend(planes.into_iter().flatten());
        }
    }
    standardise(&mut out);
    out
}

/// A smooth field: random lattices of growing fineness, interpolated and added up.
fn field(height: usize, width: usize, random: &mut Random) -> Vec<f32> {
    let mut sum = vec![0.0; height * width];
    for scale in 0..SCALES {
        let cells = COARSEST << scale;
        let strength = 1.0 / (1u32 << scale) as f32;
        let side = cells + 1;
        let lattice: Vec<f32> = (0..side * side).map(|_| random.normal()).collect();
        let knot = |y: usize, x: usize| lattice.get(y * side + x).copied().unwrap_or(0.0);
        let mut pixels = sum.iter_mut();
        for y in 0..height {
            let (row, down) = locate(y, height, cells);
            for (x, pixel) in (0..width).zip(&mut pixels) {
                let (column, right) = locate(x, width, cells);
                let top = mix(knot(row, column), knot(row, column + 1), right);
                let bottom = mix(knot(row + 1, column), knot(row + 1, column + 1), right);
                *pixel += strength * mix(top, bottom, down);
            }
        }
    }
    sum
}

/// The cell in which a pixel lies, and how far into it, smoothed at the ends.
fn locate(at: usize, size: usize, cells: usize) -> (usize, f32) {
    let place = (at * cells) as f32 / size as f32;
    let cell = (at * cells) / size;
    let t = place - cell as f32;
    (cell, t * t * (3.0 - 2.0 * t))
}

fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

fn standardise(elements: &mut [f32]) {
    let count = elements.len().max(1) as f64;
    let mean = elements.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let square = |x: f64| x * x;
    let variance = elements.iter().map(|&x| square(f64::from(x) - mean)).sum::<f64>() / count;
    let scale = 1.0 / variance.sqrt().max(1e-6);
    for x in elements {
        *x = ((f64::from(*x) - mean) * scale) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_smooth_and_standardised() {
        let layout = layout(&[1, 3, 64, 48]).unwrap();
        let pixels = picture(layout, &mut Random::new(0, "x", 0));
        assert_eq!(pixels.len(), 3 * 64 * 48);
        let count = pixels.len() as f32;
        let mean = pixels.iter().sum::<f32>() / count;
        let variance = pixels.iter().map(|x| x * x).sum::<f32>() / count - mean * mean;
        assert!(mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
        let step = |a: &[f32]| (a[1] - a[0]).powi(2);
        let rough = pixels.windows(2).map(step).sum::<f32>() / count;
        // White noise would have 2.
        assert!(rough < 0.2, "{rough}");
    }

    #[test]
    fn channels_last_is_the_same_picture() {
        let first = picture(layout(&[2, 3, 8, 5]).unwrap(), &mut Random::new(0, "x", 0));
        let last = picture(layout(&[2, 8, 5, 3]).unwrap(), &mut Random::new(0, "x", 0));
        let at = |batch: usize, y: usize, x: usize, c: usize| {
            (first[((batch * 3 + c) * 8 + y) * 5 + x], last[((batch * 8 + y) * 5 + x) * 3 + c])
        };
        for (a, b) in [at(0, 0, 0, 0), at(1, 7, 4, 2), at(0, 3, 2, 1)] {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn other_shapes_are_no_pictures() {
        assert_eq!(layout(&[1, 3, 8]), None);
        assert_eq!(layout(&[1, 2, 8, 8]), None);
        assert!(picture(layout(&[0, 3, 0, 8]).unwrap(), &mut Random::new(0, "x", 0)).is_empty());
    }
}
