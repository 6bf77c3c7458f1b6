//! Protobuf by hand, for what no library would write.

#![allow(dead_code)] // Each test binary uses another part of it.

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A varint field.
pub(crate) fn number(field: u64, value: i64) -> Vec<u8> {
    [varint(field << 3), varint(value as u64)].concat()
}

/// A length-delimited field.
pub(crate) fn message(field: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [&varint(field << 3 | 2), &varint(content.len() as u64), content].concat()
}

/// A 32-bit field.
pub(crate) fn fixed32(field: u64, bits: u32) -> Vec<u8> {
    [&varint(field << 3 | 5), &bits.to_le_bytes()[..]].concat()
}

/// `core` wrapped in length-delimited fields, innermost last, `levels` times over. Each field
/// comes with what stands before it in the message around it.
pub(crate) fn nested(fields: &[(&[u8], u64)], levels: usize, core: &[u8]) -> Vec<u8> {
    // Inside out, from what stands before alone: wrapping bytes would take quadratic time.
    let mut prefixes = Vec::new();
    let mut size = core.len();
    for _ in 0..levels {
        for (before, field) in fields.iter().rev() {
            let prefix = [before.to_vec(), varint(field << 3 | 2), varint(size as u64)].concat();
            size += prefix.len();
            prefixes.push(prefix);
        }
    }
    prefixes.reverse();
    [prefixes.concat(), core.to_vec()].concat()
}

/// IR version 8, operator set 17.
pub(crate) fn header() -> Vec<u8> {
    [number(1, 8), message(8, number(2, 17))].concat()
}

/// A model of this graph.
pub(crate) fn model(graph: impl AsRef<[u8]>) -> Vec<u8> {
    [header(), message(7, graph)].concat()
}

/// A graph input, output or `value_info` (fields 11, 12 and 13) of type float32 without shape.
pub(crate) fn float_value(field: u64, name: &str) -> Vec<u8> {
    let ty = message(2, message(1, number(1, 1)));
    message(field, [message(1, name), ty].concat())
}

/// A graph `x -> node -> y`, whose node has these attributes.
pub(crate) fn one_node(attributes: &[Vec<u8>]) -> Vec<u8> {
    let attributes: Vec<u8> = attributes.iter().flat_map(|content| message(5, content)).collect();
    let names = [message(1, "x"), message(2, "y"), message(4, "Op"), message(7, "test")].concat();
    let node = message(1, [names, attributes].concat());
    [node, message(2, "g"), float_value(11, "x"), float_value(12, "y")].concat()
}
