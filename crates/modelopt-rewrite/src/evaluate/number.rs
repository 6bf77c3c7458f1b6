//! Element types as numbers: each is computed with in a wider type and rounded once.
//!
//! Floats widen to float64. The sum, difference, product, quotient and square root of two
//! float32, float16 or bfloat16 numbers are rounded correctly that way, since float64 has more
//! than twice their bits and two to spare (Figueroa, "When is double rounding innocuous?", 1995).
//! Integers widen to `i128`, which shows when a result does not fit.

use half::{bf16, f16};
use modelopt_graph::{DataType, Element, Tensor};

use super::call::{Folded, NotFolded};

/// Evaluates the body with `$t` as the Rust type of a float type.
macro_rules! for_float {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            DataType::FLOAT => for_float!(@ $t = f32, $body),
            DataType::DOUBLE => for_float!(@ $t = f64, $body),
            DataType::FLOAT16 => for_float!(@ $t = half::f16, $body),
            DataType::BFLOAT16 => for_float!(@ $t = half::bf16, $body),
            _ => Err(NotFolded::Unsupported),
        }
    };
    (@ $t:ident = $type:ty, $body:expr) => {{
        type $t = $type;
        $body
    }};
}

/// Evaluates the body with `$t` as the Rust type of a float or integer type.
macro_rules! for_number {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            DataType::INT8 => for_float!(@ $t = i8, $body),
            DataType::INT16 => for_float!(@ $t = i16, $body),
            DataType::INT32 => for_float!(@ $t = i32, $body),
            DataType::INT64 => for_float!(@ $t = i64, $body),
            DataType::UINT8 => for_float!(@ $t = u8, $body),
            DataType::UINT16 => for_float!(@ $t = u16, $body),
            DataType::UINT32 => for_float!(@ $t = u32, $body),
            DataType::UINT64 => for_float!(@ $t = u64, $body),
            float => for_float!(float, $t => $body),
        }
    };
}

pub(super) use {for_float, for_number};

/// An element type that one computes with.
pub(super) trait Number: Element {
    /// The type it is computed with in.
    type Wide: Wide;

    fn wide(self) -> Self::Wide;

    /// The nearest element, ties to even; `None` for integers that do not fit.
    fn narrow(wide: Self::Wide) -> Option<Self>;

    /// As `Cast` does it; `None` where its result is undefined: an integer type and a number
    /// outside its range.
    fn from_f64(number: f64) -> Option<Self>;

    /// As `Cast` does it: integers keep their low bits.
    fn from_i128(number: i128) -> Option<Self>;
}

/// What [`Number`]s are computed with in. `Unsupported` is the answer where a result is not
/// certain: integers that overflow, order among NaNs.
pub(super) trait Wide: Copy + PartialOrd {
    const ZERO: Self;

    fn is_finite(self) -> bool;
    fn from_count(count: usize) -> Self;
    fn to<N: Number>(self) -> Option<N>;
    fn plus(self, other: Self) -> Folded<Self>;
    fn minus(self, other: Self) -> Folded<Self>;
    fn times(self, other: Self) -> Folded<Self>;
    /// Integers: toward zero.
    fn over(self, other: Self) -> Folded<Self>;
    /// The quotient, if exact (integers) or rounded (floats).
    fn exactly_over(self, other: Self) -> Folded<Self>;
    /// With the sign of `self`, as in C.
    fn remainder(self, other: Self) -> Folded<Self>;
    /// With the sign of `other`; integers only.
    fn modulo(self, other: Self) -> Folded<Self>;
    fn negated(self) -> Folded<Self>;
    fn root(self) -> Folded<Self>;
    /// -1, 0 or 1.
    fn sign(self) -> Folded<Self>;

    fn larger(self, other: Self) -> Folded<Self> {
        let order = self.partial_cmp(&other).ok_or(NotFolded::Unsupported)?;
        Ok(if order.is_lt() { other } else { self })
    }

    fn smaller(self, other: Self) -> Folded<Self> {
        let order = self.partial_cmp(&other).ok_or(NotFolded::Unsupported)?;
        Ok(if order.is_gt() { other } else { self })
    }

    fn magnitude(self) -> Folded<Self> {
        if self < Self::ZERO { self.negated() } else { self.plus(Self::ZERO) }
    }

    /// Not below zero.
    fn rectified(self) -> Folded<Self> {
        self.larger(Self::ZERO)
    }
}

impl Wide for f64 {
    const ZERO: Self = 0.0;

    fn is_finite(self) -> bool {
        f64::is_finite(self)
    }

    fn from_count(count: usize) -> Self {
        count as f64
    }

    fn to<N: Number>(self) -> Option<N> {
        N::from_f64(self)
    }

    fn plus(self, other: Self) -> Folded<Self> {
        Ok(self + other)
    }

    fn minus(self, other: Self) -> Folded<Self> {
        Ok(self - other)
    }

    fn times(self, other: Self) -> Folded<Self> {
        Ok(self * other)
    }

    fn over(self, other: Self) -> Folded<Self> {
        Ok(self / other)
    }

    fn exactly_over(self, other: Self) -> Folded<Self> {
        Ok(self / other)
    }

    fn remainder(self, other: Self) -> Folded<Self> {
        Ok(self % other)
    }

    fn modulo(self, _: Self) -> Folded<Self> {
        Err(NotFolded::Unsupported)
    }

    fn negated(self) -> Folded<Self> {
        Ok(-self)
    }

    fn root(self) -> Folded<Self> {
        Ok(self.sqrt())
    }

    fn sign(self) -> Folded<Self> {
        let order = self.partial_cmp(&0.0).ok_or(NotFolded::Unsupported)?;
        Ok(f64::from(order as i8))
    }
}

impl Wide for i128 {
    const ZERO: Self = 0;

    fn is_finite(self) -> bool {
        true
    }

    fn from_count(count: usize) -> Self {
        count as i128
    }

    fn to<N: Number>(self) -> Option<N> {
        N::from_i128(self)
    }

    fn plus(self, other: Self) -> Folded<Self> {
        self.checked_add(other).ok_or(NotFolded::Unsupported)
    }

    fn minus(self, other: Self) -> Folded<Self> {
        self.checked_sub(other).ok_or(NotFolded::Unsupported)
    }

    fn times(self, other: Self) -> Folded<Self> {
        self.checked_mul(other).ok_or(NotFolded::Unsupported)
    }

    fn over(self, other: Self) -> Folded<Self> {
        self.checked_div(other).ok_or(NotFolded::Invalid("an integer is divided by zero"))
    }

    fn exactly_over(self, other: Self) -> Folded<Self> {
        if self.remainder(other)? == 0 { self.over(other) } else { Err(NotFolded::Unsupported) }
    }

    fn remainder(self, other: Self) -> Folded<Self> {
        self.checked_rem(other).ok_or(NotFolded::Invalid("an integer is divided by zero"))
    }

    fn modulo(self, other: Self) -> Folded<Self> {
        let remainder = self.remainder(other)?;
        let opposite = remainder != 0 && (remainder < 0) != (other < 0);
        if opposite { remainder.plus(other) } else { Ok(remainder) }
    }

    fn negated(self) -> Folded<Self> {
        self.checked_neg().ok_or(NotFolded::Unsupported)
    }

    fn root(self) -> Folded<Self> {
        Err(NotFolded::Unsupported)
    }

    fn sign(self) -> Folded<Self> {
        Ok(self.signum())
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            type Wide = i128;

            fn wide(self) -> i128 {
                i128::from(self)
            }

            fn narrow(wide: i128) -> Option<Self> {
                Self::try_from(wide).ok()
            }

            fn from_f64(number: f64) -> Option<Self> {
                // The conversion truncates, and saturates far outside every integer type.
                if number.is_nan() { None } else { Self::try_from(number as i128).ok() }
            }

            fn from_i128(number: i128) -> Option<Self> {
                Some(number as Self)
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! wide_floats {
    ($($type:ty),*) => {$(
        impl Number for $type {
            type Wide = f64;

            fn wide(self) -> f64 {
                f64::from(self)
            }

            fn narrow(wide: f64) -> Option<Self> {
                Some(wide as Self)
            }

            fn from_f64(number: f64) -> Option<Self> {
                Some(number as Self)
            }

            fn from_i128(number: i128) -> Option<Self> {
                // 64-bit conversions are single instructions.
                Some(i64::try_from(number).map_or(number as Self, |number| number as Self))
            }
        }
    )*};
}

wide_floats!(f32, f64);

macro_rules! half_floats {
    ($($type:ty),*) => {$(
        impl Number for $type {
            type Wide = f64;

            fn wide(self) -> f64 {
                f64::from(self.to_f32())
            }

            fn narrow(wide: f64) -> Option<Self> {
                Some(Self::from_f32(rounded_to_odd(wide)))
            }

            fn from_f64(number: f64) -> Option<Self> {
                Self::narrow(number)
            }

            fn from_i128(number: i128) -> Option<Self> {
                // Larger ones would be rounded twice.
                if number.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS {
                    Self::narrow(number as f64)
                } else {
                    None
                }
            }
        }
    )*};
}

half_floats!(f16, bf16);

/// The float32 next to `number` that has an odd last bit, or `number` itself: rounding that once
/// more to a shorter type gives what rounding `number` would.
#[allow(clippy::float_cmp)] // Whether it is the very same number is the question.
fn rounded_to_odd(number: f64) -> f32 {
    let near = number as f32;
    if number.is_nan() || f64::from(near) == number {
        return near;
    }
    let outward = f64::from(near).abs() > number.abs();
    f32::from_bits(near.to_bits().wrapping_sub(u32::from(outward)) | 1)
}

/// The numbers of a tensor whose type is `T`.
pub(super) fn numbers<T: Number>(tensor: &Tensor) -> Folded<std::borrow::Cow<'_, [T]>> {
    tensor.elements().ok_or(NotFolded::Unsupported)
}

/// A tensor of numbers computed one by one.
pub(super) fn computed<T: Number>(
    shape: &[usize],
    numbers: impl Iterator<Item = Folded<T::Wide>>,
) -> Folded<Tensor> {
    let elements = numbers
        .map(|number| T::narrow(number?).ok_or(NotFolded::Unsupported))
        .collect::<Folded<Vec<T>>>()?;
    Tensor::of(shape.to_vec(), &elements).map_err(|_| NotFolded::Unsupported)
}

/// The elements of a tensor of any number type as float64, if each is one exactly.
#[allow(clippy::float_cmp)] // Whether it is the very same number is the question.
pub(super) fn as_f64(tensor: &Tensor) -> Folded<Vec<f64>> {
    for_number!(tensor.dtype(), T => {
        numbers::<T>(tensor)?.iter().map(|x| {
            let wide = x.wide();
            let number: f64 = wide.to().ok_or(NotFolded::Unsupported)?;
            // A float64 that is not exact does not convert back, and NaN does not equal itself.
            let exact = number.is_nan() || number.to::<T>().is_some_and(|back| back == *x);
            if exact { Ok(number) } else { Err(NotFolded::Unsupported) }
        }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float16_is_rounded_once() {
        // Just above the middle between two float16 numbers: float32 would round it to the
        // middle, and the tie then down to even.
        let middle = 1.0 + 2f64.powi(-11);
        assert_eq!(f16::narrow(middle), Some(f16::ONE));
        assert_eq!(f16::narrow(middle + 2f64.powi(-40)), Some(f16::ONE + f16::EPSILON));
        assert_eq!(f16::narrow(-middle - 2f64.powi(-40)), Some(-f16::ONE - f16::EPSILON));
        assert_eq!(f16::narrow(65520.0), Some(f16::INFINITY));
        assert_eq!(f16::narrow(65_519.999_999_999), Some(f16::MAX));
        assert_eq!(f16::narrow(1e300), Some(f16::INFINITY));
        assert_eq!(f16::narrow(1e-300), Some(f16::ZERO));
        assert_eq!(f16::narrow(2f64.powi(-25) * (1.0 + 1e-12)), Some(f16::from_bits(1)));
        assert_eq!(
            bf16::narrow(1.0 + 2f64.powi(-8) + 2f64.powi(-50)),
            Some(bf16::ONE + bf16::EPSILON)
        );
        assert!(f16::narrow(f64::NAN).is_some_and(f16::is_nan));
    }

    #[test]
    fn integers_do_not_wrap_unless_cast() {
        assert_eq!(i8::narrow(128), None);
        assert_eq!(i8::from_i128(200), Some(-56));
        assert_eq!(u8::from_f64(255.9), Some(255));
        assert_eq!(u8::from_f64(-0.9), Some(0));
        assert_eq!(u8::from_f64(256.0), None);
        assert_eq!(i64::from_f64(9_223_372_036_854_775_808.0), None);
        assert_eq!(i32::from_f64(f64::NAN), None);
        assert_eq!(u64::from_f64(f64::INFINITY), None);
        assert_eq!((-7i128).modulo(3), Ok(2));
        assert_eq!(7i128.modulo(-3), Ok(-2));
        assert_eq!((-7i128).remainder(3), Ok(-1));
        assert_eq!((-7i128).over(2), Ok(-3));
    }
}
