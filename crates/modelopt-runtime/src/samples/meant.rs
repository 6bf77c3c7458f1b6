//! What was probably meant by arrays that are named like no input.

use std::fmt;

/// What was probably meant for inputs without an array.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Meant {
    /// Nobody knows.
    Unknown,
    /// The only array that is no input may be meant for the only input without one.
    Only {
        /// The array.
        array: String,
        /// The input.
        input: String,
    },
    /// These arrays are named nearly like these inputs.
    Near(Vec<(String, String)>),
}

impl Meant {
    /// For inputs that are missing, where there are other arrays.
    pub(super) fn of(missing: &[String], others: &[String]) -> Self {
        if let ([input], [array]) = (missing, others) {
            return Meant::Only { array: array.clone(), input: input.clone() };
        }
        let near = missing.iter().filter_map(|missing| {
            let close = others.iter().filter(|other| is_near(missing, other));
            let other = close.min_by_key(|other| (distance(missing, other), other.len()))?;
            Some((other.clone(), missing.clone()))
        });
        let near: Vec<(String, String)> = near.collect();
        if near.is_empty() { Meant::Unknown } else { Meant::Near(near) }
    }
}

/// Behind a semicolon, or nothing.
impl fmt::Display for Meant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Meant::Unknown => Ok(()),
            Meant::Only { array, input } => {
                write!(f, "; rename '{array}' if it is meant for '{input}'")
            }
            Meant::Near(near) => {
                let near = near.iter().map(|(array, input)| format!("'{input}' is not '{array}'"));
                write!(f, "; note that {}", near.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

fn is_near(a: &str, b: &str) -> bool {
    let plain = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
    };
    let (a, b) = (plain(a), plain(b));
    let contains = a.len() > 2 && b.len() > 2 && (a.contains(&b) || b.contains(&a));
    contains || distance(&a, &b) * 3 <= a.len().max(b.len())
}

/// How many characters have to be put in, left out or exchanged.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, a) in a.chars().enumerate() {
        let mut above_left = index;
        let mut left = index + 1;
        let mut next = vec![left];
        for (b, above) in b.iter().zip(row.iter().skip(1)) {
            left = (above_left + usize::from(a != *b)).min(above + 1).min(left + 1);
            above_left = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
