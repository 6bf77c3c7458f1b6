//! Where the channels of a tensor lie.

use modelopt_rewrite::ChannelAxis;

use crate::observer::View;

/// How the numbers of a tensor belong to channels: `[outer, channels, inner]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    pub(super) count: usize,
    inner: usize,
}

impl Channels {
    /// None for a tensor without the axis, without numbers, or of another type than floats.
    pub(super) fn of(view: &View<'_>, axis: ChannelAxis) -> Option<Self> {
        let shape = view.shape();
        let place = match axis {
            ChannelAxis::Last => shape.len().checked_sub(1)?,
            ChannelAxis::Second => 1,
        };
        let count = *shape.get(place)?;
        let inner = shape.get(place + 1..)?.iter().product();
        (!view.numbers().is_empty()).then_some(Channels { count, inner })
    }

    /// Calls `each` with what belongs to one channel and lies together, for all of it; `states` has
    /// one state for each channel.
    pub(super) fn walk<S>(
        self,
        numbers: &[f32],
        states: &mut [S],
        mut each: impl FnMut(&mut S, &[f32]),
    ) {
        for block in numbers.chunks_exact((self.count * self.inner).max(1)) {
            if self.inner == 1 {
                let alone = states.iter_mut().zip(block.as_chunks::<1>().0);
                alone.for_each(|(state, number)| each(state, number));
            } else {
                let planes = block.chunks_exact(self.inner);
                states.iter_mut().zip(planes).for_each(|(state, plane)| each(state, plane));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Tensor;

    use super::*;

    fn walked(shape: &[usize], axis: ChannelAxis) -> Option<Vec<Vec<f32>>> {
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|x: usize| x as f32).collect();
        let tensor = Tensor::of(shape.to_vec(), &numbers).unwrap();
        let view = View::new(&tensor, 0);
        let channels = Channels::of(&view, axis)?;
        let mut states = vec![Vec::new(); channels.count];
        channels.walk(view.numbers(), &mut states, Vec::extend_from_slice);
        Some(states)
    }

    #[test]
    fn channels_are_where_the_layer_sums() {
        let last = walked(&[2, 3], ChannelAxis::Last).unwrap();
        assert_eq!(last, [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]);
        let second = walked(&[2, 2, 3], ChannelAxis::Second).unwrap();
        assert_eq!(second, [[0., 1., 2., 6., 7., 8.], [3., 4., 5., 9., 10., 11.]]);
        assert_eq!(walked(&[2, 2], ChannelAxis::Second).unwrap(), [[0.0, 2.0], [1.0, 3.0]]);
    }

    #[test]
    fn without_an_axis_or_numbers_there_are_none() {
        assert_eq!(walked(&[], ChannelAxis::Last), None);
        assert_eq!(walked(&[4], ChannelAxis::Second), None);
        assert_eq!(walked(&[0, 4], ChannelAxis::Last), None);
        assert_eq!(walked(&[4, 0], ChannelAxis::Last), None);
        let integers = Tensor::of(vec![2, 2], &[1i64, 2, 3, 4]).unwrap();
        assert_eq!(Channels::of(&View::new(&integers, 0), ChannelAxis::Last), None);
    }
}
