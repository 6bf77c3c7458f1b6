//! The elements of float tensors, widened to float64.

use std::borrow::Cow;

use modelopt_graph::{DataType, Tensor};

/// Elements widened to float64 at a time; two blocks fit the first-level cache.
pub(crate) const BLOCK: usize = 1024;

/// The elements of a tensor of any of the four IEEE-like float types.
pub(crate) enum Floats<'a> {
    Single(Cow<'a, [f32]>),
    Double(Cow<'a, [f64]>),
}

impl<'a> Floats<'a> {
    /// `None` for other types.
    pub(crate) fn of(tensor: &'a Tensor) -> Option<Self> {
        if tensor.dtype() == DataType::DOUBLE {
            tensor.elements().map(Floats::Double)
        } else {
            tensor.to_f32().map(Floats::Single)
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Floats::Single(elements) => elements.len(),
            Floats::Double(elements) => elements.len(),
        }
    }

    /// An element; NaN beyond the last.
    pub(crate) fn get(&self, at: usize) -> f64 {
        match self {
            Floats::Single(elements) => elements.get(at).map_or(f64::NAN, |&x| f64::from(x)),
            Floats::Double(elements) => elements.get(at).copied().unwrap_or(f64::NAN),
        }
    }

    /// Shows all elements, some at a time.
    pub(crate) fn each_block(&self, mut see: impl FnMut(&[f64])) {
        let mut block = [0.0; BLOCK];
        for start in (0..self.len()).step_by(BLOCK) {
            see(self.read(start, &mut block));
        }
    }

    /// Fills `out` with the elements from `start` on and returns the part that was filled.
    pub(crate) fn read<'b>(&self, start: usize, out: &'b mut [f64]) -> &'b mut [f64] {
        let start = start.min(self.len());
        let count = out.len().min(self.len() - start);
        let out = &mut out[..count];
        match self {
            Floats::Single(elements) => {
                for (out, &x) in out.iter_mut().zip(&elements[start..]) {
                    *out = f64::from(x);
                }
            }
            Floats::Double(elements) => out.copy_from_slice(&elements[start..start + count]),
        }
        out
    }
}
