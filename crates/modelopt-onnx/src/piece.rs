//! What files are written from: bytes that are there, and elements that are made as they are
//! written.

use std::io;

use bytes::Bytes;
use modelopt_graph::{Payload, Rounded, Tensor};
use rayon::prelude::*;

/// How much is rounded before it is written.
const WINDOW: usize = 1 << 20;
/// How much of that one task rounds.
const TASK: usize = 64 << 10;

/// Some bytes of a file.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// They are in memory, or mapped.
    Bytes(Bytes),
    /// They are made from others while they are written.
    Rounded(Rounded),
}

impl Piece {
    /// The elements of a tensor; `None` for strings.
    pub(crate) fn of(tensor: &Tensor) -> Option<Self> {
        match tensor.payload() {
            Payload::Dense(bytes) => Some(Piece::Bytes(bytes.clone())),
            Payload::Rounded(rounded) => Some(Piece::Rounded(rounded.clone())),
            Payload::Strings(_) => None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Rounded(rounded) => rounded.byte_len(),
        }
    }

    /// What tells it from other pieces: where its bytes come from, how many they are, and what
    /// they are turned into.
    pub(crate) fn key(&self, tensor: &Tensor) -> (usize, usize, i32) {
        let source = match self {
            Piece::Bytes(bytes) => bytes,
            Piece::Rounded(rounded) => rounded.source(),
        };
        (source.as_ptr() as usize, self.len(), tensor.dtype().number())
    }

    /// Hands out all bytes, in order.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Piece::Bytes(bytes) => visit(bytes),
            Piece::Rounded(rounded) => {
                let total = rounded.byte_len();
                let mut window = vec![0; WINDOW.min(total)];
                for start in (0..total).step_by(WINDOW) {
                    let count = WINDOW.min(total - start);
                    let Some(part) = window.get_mut(..count) else { break };
                    part.par_chunks_mut(TASK).enumerate().for_each(|(index, out)| {
                        rounded.write(start + index * TASK, out);
                    });
                    visit(part)?;
                }
                Ok(())
            }
        }
    }
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        Piece::Bytes(bytes.into())
    }
}
