//! The highest element of a row.

/// The highest element of a row, and how high the next is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Highest {
    /// Where it is: the first of them if several tie.
    pub(crate) at: usize,
    pub(crate) value: f64,
    /// The highest of the others; −∞ if there are none.
    pub(crate) next: f64,
}

impl Highest {
    /// `None` if there is a NaN. The first element stands for a row without any above −∞.
    pub(crate) fn of(row: &[f64]) -> Option<Self> {
        let lowest = f64::NEG_INFINITY;
        let mut highest = Highest { at: 0, value: lowest, next: lowest };
        for (at, &value) in row.iter().enumerate() {
            if value.is_nan() {
                return None;
            }
            if value > highest.value {
                highest = Highest { at, value, next: highest.value };
            } else if value > highest.next {
                highest.next = value;
            }
        }
        Some(highest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(row: &[f64]) -> Option<(usize, f64, f64)> {
        Highest::of(row).map(|highest| (highest.at, highest.value, highest.next))
    }

    #[test]
    fn the_first_of_the_highest_is_found_and_the_next() {
        assert_eq!(of(&[1.0, 3.0, 2.0]), Some((1, 3.0, 2.0)));
        assert_eq!(of(&[3.0, 1.0, 3.0]), Some((0, 3.0, 3.0)));
        assert_eq!(of(&[-1.0, -2.0, f64::NEG_INFINITY]), Some((0, -1.0, -2.0)));
    }

    #[test]
    fn a_row_with_a_nan_has_none_and_one_of_nothing_its_first_element() {
        assert_eq!(of(&[1.0, f64::NAN]), None);
        assert_eq!(of(&[f64::NEG_INFINITY; 2]), Some((0, f64::NEG_INFINITY, f64::NEG_INFINITY)));
    }
}
