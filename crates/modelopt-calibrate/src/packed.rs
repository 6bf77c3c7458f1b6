//! Lists of numbers as text: base64 of their bytes, little-endian, so that what is read is what was
//! written, to the last bit, and files stay small.

use data_encoding::BASE64_NOPAD;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// A number of fixed size.
pub(crate) trait Number: Copy {
    /// Appends its bytes.
    fn put(self, bytes: &mut Vec<u8>);
    /// All numbers of some bytes; none if there are some left over.
    fn all(bytes: &[u8]) -> Option<Vec<Self>>;
}

macro_rules! number {
    ($($ty:ty),*) => {$(
        impl Number for $ty {
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            fn all(bytes: &[u8]) -> Option<Vec<Self>> {
                let (numbers, rest) = bytes.as_chunks();
                let numbers = || numbers.iter().copied().map(<$ty>::from_le_bytes).collect();
                rest.is_empty().then(numbers)
            }
        }
    )*};
}

number!(f32, f64);

/// Writes a list.
pub(crate) fn serialize<T: Number, S: Serializer>(
    numbers: &[T],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::with_capacity(size_of_val(numbers));
    for number in numbers {
        number.put(&mut bytes);
    }
    serializer.serialize_str(&BASE64_NOPAD.encode(&bytes))
}

/// Reads a list.
pub(crate) fn deserialize<'de, T: Number, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = BASE64_NOPAD.decode(text.as_bytes()).map_err(D::Error::custom)?;
    T::all(&bytes).ok_or_else(|| D::Error::custom("a list of numbers is cut short"))
}

/// Counts as text: small ones take a byte (LEB128), since most bins of a histogram have few.
pub(crate) mod counts {
    use super::{BASE64_NOPAD, Deserialize, Deserializer, Error, Serializer};

    /// Writes a list.
    pub(crate) fn serialize<S: Serializer>(
        counts: &[u64],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(2 * counts.len());
        for &count in counts {
            let mut rest = count;
            while rest >= 0x80 {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        }
        serializer.serialize_str(&BASE64_NOPAD.encode(&bytes))
    }

    /// Reads a list.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u64>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_NOPAD.decode(text.as_bytes()).map_err(D::Error::custom)?;
        read(&bytes).ok_or_else(|| D::Error::custom("a list of counts is damaged"))
    }

    /// None if the last count is cut short, or one does not fit.
    fn read(bytes: &[u8]) -> Option<Vec<u64>> {
        let mut counts = Vec::new();
        let (mut count, mut shift) = (0u64, 0u32);
        for &byte in bytes {
            let part = u64::from(byte & 0x7f);
            if shift > 63 || part << shift >> shift != part {
                return None;
            }
            count |= part << shift;
            if byte & 0x80 == 0 {
                counts.push(count);
                (count, shift) = (0, 0);
            } else {
                shift += 7;
            }
        }
        (shift == 0).then_some(counts)
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Lists {
        #[serde(with = "super")]
        floats: Vec<f32>,
        #[serde(with = "super::counts")]
        counts: Vec<u64>,
    }

    #[test]
    fn numbers_come_back_bit_by_bit() {
        let floats = vec![0.1, -0.0, f32::INFINITY, f32::MIN_POSITIVE / 4.0];
        let lists = Lists { floats, counts: vec![0, 127, 128, 1 << 40, u64::MAX] };
        let text = toml::to_string(&lists).unwrap();
        let read: Lists = toml::from_str(&text).unwrap();
        assert_eq!(read, lists);
        assert_eq!(read.floats[1].to_bits(), (-0.0f32).to_bits());
    }

    #[test]
    fn what_is_damaged_is_refused() {
        for floats in ["AAAA", "AAAAA", "not base64"] {
            let text = format!("floats = \"{floats}\"\ncounts = \"\"\n");
            assert!(toml::from_str::<Lists>(&text).is_err(), "{floats}");
        }
        // Cut short, and beyond 64 bits.
        for counts in
            [&[0x80][..], &[0xff; 9], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
        {
            let text = format!("floats = \"\"\ncounts = \"{}\"\n", BASE64_NOPAD.encode(counts));
            assert!(toml::from_str::<Lists>(&text).is_err(), "{counts:?}");
        }
    }
}
