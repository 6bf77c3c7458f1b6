//! Ranges by sample and channel.

use modelopt_rewrite::ChannelAxis;
use serde::{Deserialize, Serialize};

use super::channels::Channels;
use crate::observer::{Observer, View};
use crate::packed;

/// The most samples whose ranges are kept apart; more share places in turn.
pub const MOST_RANGES: u64 = 32;

/// The range that `DynamicQuantizeLinear` takes its scale from, for each sample by itself and
/// channel by channel: the least and the largest number, and 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranges {
    axis: ChannelAxis,
    /// Whether samples had different numbers of channels, of which nothing can be said.
    mixed: bool,
    /// By place of the sample, ascending.
    slots: Vec<Slot>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    /// Place of the sample, modulo [`MOST_RANGES`].
    place: u64,
    #[serde(with = "packed")]
    low: Vec<f32>,
    #[serde(with = "packed")]
    high: Vec<f32>,
}

impl Ranges {
    /// Of the channels along an axis.
    pub fn new(axis: ChannelAxis) -> Self {
        Ranges { axis, mixed: false, slots: Vec::new() }
    }

    /// Widens the ranges of one place.
    fn widen(&mut self, place: u64, ranges: impl ExactSizeIterator<Item = (f32, f32)>) {
        if self.slots.first().is_some_and(|slot| slot.low.len() != ranges.len()) {
            *self = Ranges { mixed: true, ..Ranges::new(self.axis) };
        }
        if self.mixed {
            return;
        }
        let at = self.slots.partition_point(|slot| slot.place < place);
        if self.slots.get(at).is_none_or(|slot| slot.place != place) {
            let zeros = vec![0.0; ranges.len()];
            self.slots.insert(at, Slot { place, low: zeros.clone(), high: zeros });
        }
        let Some(slot) = self.slots.get_mut(at) else { return };
        for ((low, high), (own_low, own_high)) in
            slot.low.iter_mut().zip(&mut slot.high).zip(ranges)
        {
            (*low, *high) = (low.min(own_low), high.max(own_high));
        }
    }
}

impl Observer for Ranges {
    const KIND: &'static str = "ranges";

    /// For each sample, the range of each channel.
    type Statistic = Vec<Vec<(f32, f32)>>;

    fn variant(&self) -> String {
        self.axis.name().to_owned()
    }

    fn see(&mut self, view: &View<'_>) {
        let Some(channels) = Channels::of(view, self.axis) else { return };
        let mut own = vec![(0f32, 0f32); channels.count];
        channels.walk(view.numbers(), &mut own, |(low, high), part| {
            for &x in part {
                (*low, *high) = (low.min(x), high.max(x));
            }
        });
        self.widen(view.sample() % MOST_RANGES, own.into_iter());
    }

    fn merge(&mut self, other: &Self) {
        if other.mixed {
            self.clone_from(other);
        }
        for slot in &other.slots {
            let pairs = slot.low.iter().copied().zip(slot.high.iter().copied());
            self.widen(slot.place, pairs);
        }
    }

    fn statistic(&self) -> Self::Statistic {
        let pairs = |slot: &Slot| slot.low.iter().copied().zip(slot.high.iter().copied()).collect();
        self.slots.iter().map(pairs).collect()
    }

    fn is_sound(&self) -> bool {
        let channels = self.slots.first().map(|slot| slot.low.len());
        let fits = |slot: &Slot| {
            let sides = slot.low.iter().zip(&slot.high);
            Some(slot.low.len()) == channels
                && slot.low.len() == slot.high.len()
                && slot.place < MOST_RANGES
                && sides.clone().all(|(low, high)| *low <= 0.0 && *high >= 0.0)
        };
        self.slots.iter().all(fits)
            && self.slots.is_sorted_by(|a, b| a.place < b.place)
            && !(self.mixed && channels.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{is_lossless, is_order_independent, tensor};

    fn seen(samples: &[(u64, &[f32])]) -> Ranges {
        let mut ranges = Ranges::new(ChannelAxis::Last);
        for (place, numbers) in samples {
            let tensor = tensor(&[1, numbers.len()], numbers);
            Observer::see(&mut ranges, &View::new(&tensor, *place));
        }
        ranges
    }

    #[test]
    fn each_sample_has_its_own_range_with_0_in_it() {
        let ranges = seen(&[(0, &[51.0, 1.0]), (1, &[-1.0, 101.0])]);
        assert_eq!(ranges.statistic(), [[(0.0, 51.0), (0.0, 1.0)], [(-1.0, 0.0), (0.0, 101.0)]]);
        is_lossless(&ranges);
    }

    #[test]
    fn many_samples_share_places() {
        let ranges = seen(&[(MOST_RANGES + 1, &[-2.0]), (1, &[3.0]), (0, &[1.0])]);
        assert_eq!(ranges.statistic(), [[(0.0, 1.0)], [(-2.0, 3.0)]]);
    }

    #[test]
    fn a_changing_number_of_channels_says_nothing() {
        let both = seen(&[(0, &[1.0]), (1, &[1.0, 2.0]), (2, &[1.0])]);
        assert!(both.statistic().is_empty());
        let mut merged = seen(&[(1, &[1.0, 2.0])]);
        Observer::merge(&mut merged, &seen(&[(0, &[1.0])]));
        assert_eq!(merged, both);
        Observer::merge(&mut merged, &seen(&[(3, &[1.0])]));
        assert_eq!(merged, both);
    }

    #[test]
    fn odd_numbers_and_no_numbers() {
        let odd = seen(&[(0, &[f32::NAN, f32::NEG_INFINITY])]);
        assert_eq!(odd.statistic(), [[(0.0, 0.0), (f32::NEG_INFINITY, 0.0)]]);
        is_lossless(&odd);
        assert!(seen(&[(0, &[])]).statistic().is_empty());
    }

    #[test]
    fn what_contradicts_itself_is_unsound() {
        let slot = |place, low: &[f32], high: &[f32]| Slot {
            place,
            low: low.to_vec(),
            high: high.to_vec(),
        };
        let sound =
            |slots: Vec<Slot>| Ranges { axis: ChannelAxis::Last, mixed: false, slots }.is_sound();
        assert!(sound(vec![slot(0, &[-1.0], &[1.0]), slot(2, &[0.0], &[0.0])]));
        assert!(!sound(vec![slot(0, &[-1.0], &[])]));
        assert!(!sound(vec![slot(0, &[1.0], &[2.0])]));
        assert!(!sound(vec![slot(1, &[0.0], &[0.0]), slot(1, &[0.0], &[0.0])]));
        assert!(!sound(vec![slot(MOST_RANGES, &[0.0], &[0.0])]));
        assert!(!sound(vec![slot(0, &[0.0], &[0.0]), slot(1, &[0.0, 0.0], &[0.0, 0.0])]));
    }

    #[test]
    fn shards_add_up_to_the_whole() {
        is_order_independent(&Ranges::new(ChannelAxis::Last), &[3, 4]);
        is_order_independent(&Ranges::new(ChannelAxis::Second), &[2, 3, 5]);
    }
}
