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

number!(f32, f64, u64);

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

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Lists {
        #[serde(with = "super")]
        floats: Vec<f32>,
        #[serde(with = "super")]
        counts: Vec<u64>,
    }

    #[test]
    fn numbers_come_back_bit_by_bit() {
        let floats = vec![0.1, -0.0, f32::INFINITY, f32::MIN_POSITIVE / 4.0];
        let lists = Lists { floats, counts: vec![0, u64::MAX] };
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
    }
}
