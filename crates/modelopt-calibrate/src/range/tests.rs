//! Ranges of tensors that were planted.

use super::*;
use crate::observer::{Observer, View};
use crate::observers::{Histogram, Moving};
use crate::testing::tensor;

fn spread(samples: &[&[f32]]) -> Spread {
    let (mut histogram, mut moving) = (Histogram::new(), Moving::new());
    for (numbers, place) in samples.iter().zip(0..) {
        let tensor = tensor(&[numbers.len()], numbers);
        let view = View::new(&tensor, place);
        Observer::see(&mut histogram, &view);
        Observer::see(&mut moving, &view);
    }
    Spread { distribution: histogram.statistic(), mean_range: moving.statistic() }
}

fn range(method: Method, numbers: &[f32]) -> Option<(f32, f32)> {
    method.range(&spread(&[numbers]), EIGHT_BITS)
}

/// A normal distribution, as a fixed sequence.
fn normal(count: usize, deviation: f64) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let one = |(a, b): (f64, f64)| {
        ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos() * deviation) as f32
    };
    (0..count).map(|_| one((uniform(), uniform()))).collect()
}

/// The mean squared error of numbers on 256 levels of a range, by rounding each.
fn squared_error(numbers: &[f32], (low, high): (f32, f32)) -> f64 {
    let step = f64::from(high - low) / 255.0;
    let zero = (-f64::from(low) / step).round();
    let one = |&x: &f32| {
        let level = ((f64::from(x) / step).round() + zero).clamp(0.0, 255.0);
        (f64::from(x) - (level - zero) * step).powi(2)
    };
    numbers.iter().map(one).sum::<f64>() / numbers.len() as f64
}

#[test]
fn names_are_read_as_they_are_written() {
    for method in Method::ALL.into_iter().chain([Method::Percentile(99.0)]) {
        assert_eq!(method.to_string().parse(), Ok(method));
    }
    assert_eq!("percentile".parse(), Ok(Method::Percentile(99.99)));
    for wrong in ["", "kl", "percentile:", "percentile:0", "percentile:101", "percentile:NaN"] {
        let said = wrong.parse::<Method>().unwrap_err().to_string();
        assert!(said.contains("entropy") && said.contains(&format!("'{wrong}'")), "{said}");
    }
}

#[test]
fn nothing_has_no_range_and_zeros_have_one_of_no_length() {
    for method in Method::ALL {
        assert_eq!(range(method, &[]), None, "{method}");
        assert_eq!(range(method, &[f32::NAN, f32::INFINITY]), None, "{method}");
        assert_eq!(range(method, &[0.0, -0.0, 0.0]), Some((0.0, 0.0)), "{method}");
    }
}

#[test]
fn constants_and_one_sign_reach_to_zero() {
    for method in Method::ALL {
        for constant in [1.0f32, 0.3, 1e-30, 1e20] {
            let up = range(method, &[constant; 9]).unwrap();
            assert_eq!(up.0, 0.0, "{method}");
            assert!((up.1 / constant - 1.0).abs() < 1e-3, "{method}: {up:?}");
            let down = range(method, &[-constant; 9]).unwrap();
            assert_eq!(down.1, 0.0, "{method}");
            assert!((down.0 / -constant - 1.0).abs() < 1e-3, "{method}: {down:?}");
        }
        let positive = range(method, &[3.0, 4.0, 5.0, 3.5]).unwrap();
        assert!(positive.0 == 0.0 && positive.1 > 4.9 && positive.1 <= 5.01, "{positive:?}");
    }
}

#[test]
fn the_least_numbers_there_are_have_ranges() {
    let numbers = [1e-45f32, -3e-45, 4e-44, f32::MIN_POSITIVE / 8.0, 0.0];
    for method in Method::ALL {
        let (low, high) = range(method, &numbers).unwrap();
        assert!(low <= 0.0 && high >= 0.0 && low.is_finite() && high < 1e-38, "{method}");
    }
    assert_eq!(range(Method::MinMax, &numbers), Some((-3e-45, f32::MIN_POSITIVE / 8.0)));
}

#[test]
fn masks_leave_ranges_alone() {
    let plain = normal(4000, 1.0);
    let mut masked = plain.clone();
    masked.extend([-f32::INFINITY, f32::MIN, -3.0e38, f32::INFINITY].repeat(100));
    for method in Method::ALL {
        assert_eq!(range(method, &masked), range(method, &plain), "{method}");
    }
}

#[test]
fn nothing_is_clipped_from_least_to_largest() {
    assert_eq!(range(Method::MinMax, &[-0.5, 3.0, 1.0]), Some((-0.5, 3.0)));
    let samples = spread(&[&[-1.0, 2.0], &[-3.0, 4.0]]);
    assert_eq!(Method::MinMax.range(&samples, EIGHT_BITS), Some((-3.0, 4.0)));
    assert_eq!(Method::Moving.range(&samples, EIGHT_BITS), Some((-2.0, 3.0)));
}

#[test]
fn one_outlier_in_a_million_is_clipped_where_that_pays() {
    let mut numbers = normal(1_000_000, 1.0);
    numbers[777] = 60.0;
    let seen = spread(&[&numbers]);
    assert_eq!(Method::MinMax.range(&seen, EIGHT_BITS).unwrap().1, 60.0);
    for method in [Method::Percentile(99.99), Method::Entropy, Method::MeanSquaredError] {
        let (low, high) = method.range(&seen, EIGHT_BITS).unwrap();
        assert!(high < 30.0 && high > 2.0, "{method}: {high}");
        assert!(low < -2.0 && low > -6.0, "{method}: {low}");
    }
    // Where the error of clipping one number by so much grows as fast as that of rounding all others.
    let (low, high) = Method::MeanSquaredError.range(&seen, EIGHT_BITS).unwrap();
    let best = (60.0 * 255.0 * 255.0 * 12.0 / 1e6 + low) / (1.0 + 255.0 * 255.0 * 12.0 / 1e6);
    assert!((high - best).abs() < 1.0, "{high} {best}");
    // With 16 bits the outlier costs more than the resolution that it takes.
    let fine = Method::MeanSquaredError.range(&seen, SIXTEEN_BITS).unwrap();
    assert!(fine.1 > 59.0, "{fine:?}");
}

#[test]
fn the_least_squared_error_is_found_on_either_side() {
    let mut skewed = normal(200_000, 1.0);
    for x in &mut skewed {
        *x = if *x < 0.0 { *x * 0.1 } else { *x * *x };
    }
    let found = range(Method::MeanSquaredError, &skewed).unwrap();
    let own = squared_error(&skewed, found);
    let whole = range(Method::MinMax, &skewed).unwrap();
    assert!(own < squared_error(&skewed, whole), "{found:?} of {whole:?}");
    // No range on a fine mesh is better by more than what a bin is wide.
    for down in 1..=20 {
        for up in 1..=40 {
            let ends = (whole.0 * down as f32 / 20.0, whole.1 * up as f32 / 40.0);
            let other = squared_error(&skewed, ends);
            assert!(own <= other * 1.02, "{found:?} {own}, {ends:?} {other}");
        }
    }
    // 0 is a level.
    let level = -found.0 / ((found.1 - found.0) / 255.0);
    assert!((level - level.round()).abs() < 1e-3, "{level}");
}

#[test]
fn zeros_do_not_pull_ranges_together() {
    let mut numbers = normal(100_000, 1.0);
    for x in &mut numbers {
        *x = x.abs();
    }
    let without = spread(&[&numbers]);
    numbers.extend(vec![0.0; 900_000]);
    let with = spread(&[&numbers]);
    for method in [Method::Entropy, Method::MeanSquaredError] {
        assert_eq!(method.range(&with, EIGHT_BITS), method.range(&without, EIGHT_BITS), "{method}");
    }
}

#[test]
fn ranges_do_not_depend_on_the_unit() {
    let numbers = normal(50_000, 1.0);
    let scaled: Vec<f32> = numbers.iter().map(|x| x * 1024.0).collect();
    for method in Method::ALL {
        let (low, high) = range(method, &numbers).unwrap();
        assert_eq!(range(method, &scaled), Some((low * 1024.0, high * 1024.0)), "{method}");
    }
}
