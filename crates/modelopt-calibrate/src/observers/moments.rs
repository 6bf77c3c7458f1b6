//! Mean and mean square of each channel.

use modelopt_rewrite::ChannelAxis;
use serde::{Deserialize, Serialize};

use super::channels::Channels;
use crate::exact_sum::ExactSum;
use crate::observer::{Observer, View};

/// Sums and sums of squares by channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    axis: ChannelAxis,
    /// How many numbers of each channel there were.
    count: u64,
    /// Whether samples had different numbers of channels, of which nothing can be said.
    mixed: bool,
    sums: Vec<ExactSum>,
    squares: Vec<ExactSum>,
}

/// What [`Moments`] ends in; without channels if nothing was seen, or not the same channels in all
/// samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelMoments {
    /// How many numbers of each channel were seen.
    pub count: u64,
    /// Mean of each channel.
    pub means: Vec<f64>,
    /// Mean square of each channel.
    pub mean_squares: Vec<f64>,
}

impl Moments {
    /// Of the channels along an axis.
    pub fn new(axis: ChannelAxis) -> Self {
        Moments { axis, count: 0, mixed: false, sums: Vec::new(), squares: Vec::new() }
    }

    /// Makes room for so many channels; false where there are others already.
    fn fits(&mut self, channels: usize) -> bool {
        if !self.mixed && self.sums.is_empty() {
            self.sums.resize(channels, ExactSum::default());
            self.squares.resize(channels, ExactSum::default());
        }
        if !self.mixed && self.sums.len() != channels {
            *self = Moments { mixed: true, ..Moments::new(self.axis) };
        }
        !self.mixed
    }
}

impl Observer for Moments {
    const KIND: &'static str = "moments";

    type Statistic = ChannelMoments;

    fn variant(&self) -> String {
        self.axis.name().to_owned()
    }

    fn see(&mut self, view: &View<'_>) {
        let Some(channels) = Channels::of(view, self.axis) else { return };
        if !self.fits(channels.count) {
            return;
        }
        self.count += (view.numbers().len() / channels.count) as u64;
        // One sample is never divided, so that plain sums will do within it.
        let mut own = vec![(0f64, 0f64); channels.count];
        channels.walk(view.numbers(), &mut own, |(sum, square), part| {
            let (mut part_sum, mut part_square) = (0f64, 0f64);
            for &x in part {
                part_sum += f64::from(x);
                part_square += f64::from(x) * f64::from(x);
            }
            *sum += part_sum;
            *square += part_square;
        });
        let sums = self.sums.iter_mut().zip(&mut self.squares);
        for ((sum, square), (own_sum, own_square)) in sums.zip(own) {
            sum.add(own_sum);
            square.add(own_square);
        }
    }

    fn merge(&mut self, other: &Self) {
        if other.mixed {
            self.clone_from(other);
        }
        if other.sums.is_empty() || !self.fits(other.sums.len()) {
            return;
        }
        self.count += other.count;
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, own)| sum.merge(own));
        self.squares.iter_mut().zip(&other.squares).for_each(|(sum, own)| sum.merge(own));
    }

    fn statistic(&self) -> ChannelMoments {
        let mean = |sum: &ExactSum| sum.value() / self.count.max(1) as f64;
        ChannelMoments {
            count: self.count,
            means: self.sums.iter().map(mean).collect(),
            mean_squares: self.squares.iter().map(mean).collect(),
        }
    }

    fn is_sound(&self) -> bool {
        let empty = self.count == 0;
        self.sums.len() == self.squares.len()
            && self.sums.is_empty() == empty
            && (empty || !self.mixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{is_lossless, is_order_independent, tensor};

    fn seen(samples: &[(&[usize], &[f32])], axis: ChannelAxis) -> Moments {
        let mut moments = Moments::new(axis);
        for (place, (shape, numbers)) in samples.iter().enumerate() {
            Observer::see(&mut moments, &View::new(&tensor(shape, numbers), place as u64));
        }
        moments
    }

    #[test]
    fn channels_are_where_the_layer_sums() {
        let numbers = [1f32, -2.0, 3.0, 3.0, 2.0, 5.0];
        let last = seen(&[(&[2, 3], &numbers)], ChannelAxis::Last).statistic();
        assert_eq!((last.count, last.means), (2, vec![2.0, 0.0, 4.0]));
        assert_eq!(last.mean_squares, [5.0, 4.0, 17.0]);
        let second = seen(&[(&[1, 2, 3], &numbers)], ChannelAxis::Second).statistic();
        assert_eq!((second.count, second.means.len()), (3, 2));
    }

    #[test]
    fn a_changing_number_of_channels_says_nothing() {
        let two: (&[usize], &[f32]) = (&[1, 2], &[1.0, 2.0]);
        let three: (&[usize], &[f32]) = (&[1, 3], &[1.0, 2.0, 3.0]);
        let both = seen(&[two, three, two], ChannelAxis::Last);
        assert_eq!(both.statistic(), ChannelMoments::default());
        assert_eq!(both, seen(&[three, two], ChannelAxis::Last));
        let mut merged = seen(&[two], ChannelAxis::Last);
        Observer::merge(&mut merged, &seen(&[three], ChannelAxis::Last));
        assert_eq!(merged, both);
        is_lossless(&both);
    }

    #[test]
    fn odd_tensors_are_counted_as_they_are() {
        let none = seen(&[(&[0, 2], &[]), (&[], &[1.0])], ChannelAxis::Last);
        assert_eq!(none.statistic(), ChannelMoments { count: 0, ..ChannelMoments::default() });
        let odd = seen(&[(&[1, 2], &[f32::NAN, f32::INFINITY])], ChannelAxis::Last);
        is_lossless(&odd);
        let odd = odd.statistic();
        assert!(odd.means[0].is_nan() && odd.mean_squares[1] == f64::INFINITY);
    }

    #[test]
    fn what_contradicts_itself_is_unsound() {
        let sound = seen(&[(&[1, 2], &[1.0, 2.0])], ChannelAxis::Last);
        assert!(sound.is_sound());
        assert!(!Moments { squares: Vec::new(), ..sound.clone() }.is_sound());
        assert!(!Moments { count: 0, ..sound.clone() }.is_sound());
        assert!(!Moments { mixed: true, ..sound }.is_sound());
    }

    #[test]
    fn shards_add_up_to_the_whole() {
        is_order_independent(&Moments::new(ChannelAxis::Last), &[3, 4]);
        is_order_independent(&Moments::new(ChannelAxis::Second), &[2, 3, 5]);
    }
}
