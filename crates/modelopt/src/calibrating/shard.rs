//! Which samples of all a run is for.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// One of several parts that all samples are divided into, each as long as the others or one longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 1 on.
    index: usize,
    /// Of how many.
    of: usize,
}

/// What is no shard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no shard: give the number of the part and of all parts, such as 2/8, from 1/8 to 8/8"
)]
pub struct UnknownShard(pub String);

impl Shard {
    /// All samples.
    pub const ALL: Shard = Shard { index: 1, of: 1 };

    /// Places of its samples among so many.
    pub fn places(self, samples: usize) -> Range<usize> {
        // In wide numbers, so that no product overflows.
        let edge = |part: usize| (samples as u128 * part as u128 / self.of as u128) as usize;
        edge(self.index - 1)..edge(self.index)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = UnknownShard;

    fn from_str(text: &str) -> Result<Self, UnknownShard> {
        let parts = text.split_once('/').and_then(|(index, of)| {
            Some(Shard { index: index.trim().parse().ok()?, of: of.trim().parse().ok()? })
        });
        let sound = |shard: &Shard| shard.index >= 1 && shard.index <= shard.of;
        parts.filter(sound).ok_or_else(|| UnknownShard(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_have_each_sample_once_and_are_alike() {
        for samples in [0, 1, 7, 8, 1000] {
            for of in [1, 2, 3, 8, 13] {
                let shards = (1..=of).map(|index| Shard { index, of }.places(samples));
                let lengths: Vec<usize> = shards.clone().map(|places| places.len()).collect();
                let all: Vec<usize> = shards.flatten().collect();
                assert_eq!(all, (0..samples).collect::<Vec<_>>());
                let [least, most] = [lengths.iter().min().unwrap(), lengths.iter().max().unwrap()];
                assert!(most - least <= 1, "{lengths:?}");
            }
        }
        assert_eq!(Shard { index: 1, of: usize::MAX }.places(usize::MAX), 0..1);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        assert_eq!("2/8".parse::<Shard>().unwrap().to_string(), "2/8");
        assert_eq!("1/1".parse(), Ok(Shard::ALL));
        for wrong in ["", "2", "0/8", "9/8", "1/0", "-1/2", "a/b", "1/2/3"] {
            let said = wrong.parse::<Shard>().unwrap_err().to_string();
            assert!(said.contains("2/8") && said.contains(&format!("'{wrong}'")), "{said}");
        }
    }
}
