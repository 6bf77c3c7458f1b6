//! Bytes in pieces, as protobuf has them.

use std::io;

use bytes::Bytes;
use modelopt_graph::Origin;

use crate::origin::Extra;
use crate::piece::Piece;
use crate::wire::write_varint;

/// Payloads from this size on are shared rather than copied into the small pieces.
pub(super) const SHARED_FROM: usize = 512;

/// Bytes in pieces.
#[derive(Default)]
pub(crate) struct Rope {
    parts: Vec<Piece>,
    tail: Vec<u8>,
    len: u64,
}

impl Rope {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Hands out all bytes, in order.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        for part in &self.parts {
            part.visit(&mut visit)?;
        }
        visit(&self.tail)
    }

    pub(super) fn small(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
    }

    pub(super) fn shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARED_FROM {
            self.small(bytes);
            return;
        }
        self.piece(Piece::Bytes(bytes.clone()));
    }

    pub(super) fn piece(&mut self, piece: Piece) {
        self.flush();
        self.len += piece.len() as u64;
        self.parts.push(piece);
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.parts.push(std::mem::take(&mut self.tail).into());
        }
    }

    pub(super) fn append(&mut self, other: Rope) {
        self.len += other.len;
        if other.parts.is_empty() {
            self.tail.extend_from_slice(&other.tail);
        } else {
            self.flush();
            self.parts.extend(other.parts);
            self.tail = other.tail;
        }
    }

    pub(super) fn tag(&mut self, field: u32, kind: u32) {
        self.number(u64::from(field << 3 | kind));
    }

    pub(super) fn number(&mut self, value: u64) {
        let before = self.tail.len();
        write_varint(&mut self.tail, value);
        self.len += (self.tail.len() - before) as u64;
    }

    pub(super) fn int(&mut self, field: u32, value: i64) {
        self.tag(field, 0);
        self.number(value as u64);
    }

    pub(super) fn float(&mut self, field: u32, value: f32) {
        self.tag(field, 5);
        self.small(&value.to_bits().to_le_bytes());
    }

    pub(super) fn text(&mut self, field: u32, text: &str) {
        self.tag(field, 2);
        self.number(text.len() as u64);
        self.small(text.as_bytes());
    }

    /// A text that is left out when it is empty.
    pub(super) fn name(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.text(field, text);
        }
    }

    pub(super) fn bytes(&mut self, field: u32, bytes: &Bytes) {
        self.tag(field, 2);
        self.number(bytes.len() as u64);
        self.shared(bytes);
    }

    pub(super) fn message(&mut self, field: u32, message: Rope) {
        self.tag(field, 2);
        self.number(message.len);
        self.append(message);
    }

    /// The records that the loader kept verbatim. They come first, so that fields that were
    /// changed since override them.
    pub(super) fn extra(&mut self, origin: &Origin) {
        for record in Extra::of(origin).map_or(&[][..], |extra| &extra.records) {
            self.shared(record);
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// All of a rope.
    pub(crate) fn bytes_of(rope: &Rope) -> Vec<u8> {
        let mut bytes = Vec::new();
        rope.visit(|part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .unwrap();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::testing::bytes_of;
    use super::*;

    #[test]
    fn a_rope_knows_its_length_and_shares_what_is_large() {
        let large = Bytes::from(vec![7; SHARED_FROM]);
        let mut inner = Rope::default();
        inner.bytes(1, &large);
        inner.text(2, "end");
        let mut outer = Rope::default();
        outer.text(3, "start");
        outer.message(4, inner);
        outer.bytes(5, &Bytes::from_static(b"small"));
        assert_eq!(outer.len(), bytes_of(&outer).len() as u64);
        let is_large =
            |part: &&Piece| matches!(part, Piece::Bytes(b) if b.as_ptr() == large.as_ptr());
        let shared = outer.parts.iter().filter(is_large).count();
        assert_eq!(shared, 1);
        assert!(bytes_of(&outer).ends_with(b"end\x2a\x05small"));
    }
}
