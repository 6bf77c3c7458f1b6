//! Outputs that must be equal: integers, booleans, strings and types without arithmetic here.

use modelopt_graph::{DataType, Payload, Tensor};

/// How many elements differ between two tensors of the same type and shape.
///
/// Booleans are compared as zero or not. Of types whose width is not known, all elements differ
/// if any byte does.
pub(crate) fn mismatches(original: &Tensor, candidate: &Tensor) -> u64 {
    let differing = match (original.payload(), candidate.payload()) {
        (Payload::Strings(a), Payload::Strings(b)) => {
            a.iter().zip(b).filter(|(a, b)| a != b).count()
        }
        _ => match (original.bytes(), candidate.bytes()) {
            (Some(a), Some(b)) if a == b => 0,
            (Some(a), Some(b)) if original.dtype() == DataType::BOOL => {
                a.iter().zip(b).filter(|&(&a, &b)| (a != 0) != (b != 0)).count()
            }
            (Some(a), Some(b)) => differing(original.dtype(), original.len(), a, b),
            _ => original.len(),
        },
    };
    differing as u64
}

fn differing(dtype: DataType, elements: usize, a: &[u8], b: &[u8]) -> usize {
    match dtype.bits() {
        Some(bits @ (1 | 2 | 4)) => differing_packed(bits, elements, a, b),
        Some(bits @ 8..) => {
            let width = bits as usize / 8;
            a.chunks(width).zip(b.chunks(width)).filter(|(a, b)| a != b).count()
        }
        _ => elements,
    }
}

/// Sub-byte elements, low bits first; padding after the last one does not count.
fn differing_packed(bits: u32, elements: usize, a: &[u8], b: &[u8]) -> usize {
    let mask = (1u8 << bits) - 1;
    a.iter()
        .zip(b)
        .flat_map(|(a, b)| (0..8 / bits).map(move |i| ((a ^ b) >> (i * bits)) & mask))
        .take(elements)
        .filter(|&difference| difference != 0)
        .count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dense(dtype: DataType, shape: usize, bytes: &[u8]) -> Tensor {
        Tensor::dense(dtype, vec![shape], bytes.to_vec()).unwrap()
    }

    fn strings(texts: &[&'static str]) -> Tensor {
        let payload = texts.iter().map(|text| text.as_bytes().into()).collect();
        Tensor::new(DataType::STRING, vec![texts.len()], Payload::Strings(payload)).unwrap()
    }

    #[test]
    fn counts_elements_not_bytes() {
        let a = Tensor::of(vec![3], &[1i64, -1, 7]).unwrap();
        let b = Tensor::of(vec![3], &[1i64, 0, i64::MIN]).unwrap();
        assert_eq!(mismatches(&a, &b), 2);
        assert_eq!(mismatches(&a, &a), 0);
    }

    #[test]
    fn any_non_zero_byte_is_true() {
        let a = dense(DataType::BOOL, 3, &[0, 1, 1]);
        let b = dense(DataType::BOOL, 3, &[0, 255, 0]);
        assert_eq!(mismatches(&a, &b), 1);
    }

    #[test]
    fn packed_elements_are_told_apart_and_padding_is_ignored() {
        let a = dense(DataType::INT4, 3, &[0x21, 0x03]);
        assert_eq!(mismatches(&a, &dense(DataType::INT4, 3, &[0x21, 0xf3])), 0);
        assert_eq!(mismatches(&a, &dense(DataType::INT4, 3, &[0x11, 0x03])), 1);
        assert_eq!(mismatches(&a, &dense(DataType::INT4, 3, &[0x10, 0x04])), 3);
    }

    #[test]
    fn strings_are_compared_one_by_one() {
        assert_eq!(mismatches(&strings(&["a", "b"]), &strings(&["a", "B"])), 1);
        assert_eq!(mismatches(&strings(&[]), &strings(&[])), 0);
    }

    proptest! {
        #[test]
        fn packed_elements_differ_as_unpacked_ones_do(
            pairs in prop::collection::vec((0u8..16, 0u8..16), 0..50),
        ) {
            let (a, b): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let packed = |elements: &[u8]| {
                let bytes: Vec<u8> = elements
                    .chunks(2)
                    .map(|pair| pair[0] | pair.get(1).map_or(0, |high| high << 4))
                    .collect();
                dense(DataType::UINT4, elements.len(), &bytes)
            };
            let unpacked = |elements: &[u8]| dense(DataType::UINT8, elements.len(), elements);
            prop_assert_eq!(
                mismatches(&packed(&a), &packed(&b)),
                mismatches(&unpacked(&a), &unpacked(&b))
            );
        }
    }

    #[test]
    fn wide_and_narrow_elements_are_told_apart() {
        let complex = |bytes: [u8; 16]| dense(DataType::COMPLEX64, 2, &bytes);
        let mut changed = [0; 16];
        (changed[0], changed[7]) = (1, 1);
        assert_eq!(mismatches(&complex([0; 16]), &complex(changed)), 1);
        let pairs = DataType::from_number(26);
        let (a, b) = (dense(pairs, 5, &[0b1110_0100, 0]), dense(pairs, 5, &[0b1111_0000, 0b1101]));
        assert_eq!(mismatches(&a, &b), 3);
    }

    #[test]
    fn unknown_types_differ_as_a_whole() {
        let unknown = DataType::from_number(999);
        let a = dense(unknown, 5, &[1, 2, 3]);
        assert_eq!(mismatches(&a, &a), 0);
        assert_eq!(mismatches(&a, &dense(unknown, 5, &[1, 2, 4])), 5);
    }
}
