//! Whatever the bytes are, loading does not panic; and what loads is saved, and loads again, to
//! the same bytes.

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use modelopt_graph::verify;
use modelopt_onnx::{parse, to_bytes};
use proptest::prelude::*;
use proptest::sample::Index;
use xtask::testdata;

/// The hand-made models below this size.
const LARGEST: u64 = 20_000;

fn corpus() -> &'static [Vec<u8>] {
    static CORPUS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    CORPUS.get_or_init(|| {
        let mut files: Vec<_> = std::fs::read_dir(testdata::fixture("graphs"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().extension().is_some_and(|suffix| suffix == "onnx"))
            .filter(|entry| entry.metadata().unwrap().len() < LARGEST)
            .map(|entry| entry.path())
            .collect();
        files.sort();
        assert!(files.len() > 50);
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    })
}

/// Loads, and saves and loads what did. Returns whether it loaded.
fn survives(bytes: Vec<u8>) -> bool {
    let Ok(model) = parse(bytes.into(), Path::new("made")) else { return false };
    let _ = verify::check(&model);
    let saved = Bytes::from(to_bytes(&model).unwrap());
    let again = parse(saved.clone(), Path::new("saved")).unwrap_or_else(|error| panic!("{error}"));
    assert!(to_bytes(&again).unwrap() == saved, "saved again, the bytes are others");
    true
}

/// One way to spoil a file.
#[derive(Clone, Debug)]
enum Spoil {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    /// Repeats a range of the file elsewhere.
    Copy(Index, Index, usize),
}

impl Spoil {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let size = bytes.len();
        match self {
            Spoil::Flip(at, bit) => bytes[at.index(size)] ^= 1 << bit,
            Spoil::Set(at, byte) => bytes[at.index(size)] = *byte,
            Spoil::Cut(at) => bytes.truncate(at.index(size)),
            Spoil::Remove(at, length) => {
                let at = at.index(size);
                bytes.drain(at..size.min(at + length));
            }
            Spoil::Insert(at, new) => {
                let at = at.index(size);
                bytes.splice(at..at, new.iter().copied());
            }
            Spoil::Copy(from, to, length) => {
                let from = from.index(size);
                let copy = bytes[from..size.min(from + length)].to_vec();
                let to = to.index(size);
                bytes.splice(to..to, copy);
            }
        }
    }
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let at = any::<Index>;
    prop_oneof![
        6 => (at(), 0..8u8).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        6 => (at(), any::<u8>()).prop_map(|(at, byte)| Spoil::Set(at, byte)),
        1 => at().prop_map(Spoil::Cut),
        1 => (at(), 1..40usize).prop_map(|(at, length)| Spoil::Remove(at, length)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, new)| Spoil::Insert(at, new)),
        1 => (at(), at(), 1..200usize).prop_map(|(from, to, length)| Spoil::Copy(from, to, length)),
    ]
}

/// Changes near the start hit the structure; the rest of a file is mostly weights.
fn near_start(bytes: &mut [u8], at: Index, byte: u8) {
    let size = bytes.len().min(400);
    bytes[at.index(size)] = byte;
}

#[test]
fn the_corpus_itself_survives() {
    let loaded = corpus().iter().filter(|bytes| survives((*bytes).clone())).count();
    // One has external data, which a model in memory cannot have.
    assert_eq!(loaded, corpus().len() - 1);
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn spoilt_models_do_not_panic(
        which in any::<Index>(),
        spoils in prop::collection::vec(spoil(), 1..4),
    ) {
        let mut bytes = which.get(corpus()).clone();
        for spoil in spoils {
            spoil.apply(&mut bytes);
        }
        survives(bytes);
    }

    #[test]
    fn spoilt_structure_does_not_panic(
        which in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..3),
    ) {
        let mut bytes = which.get(corpus()).clone();
        for (at, byte) in changes {
            near_start(&mut bytes, at, byte);
        }
        survives(bytes);
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survives(bytes);
    }

    /// Records of known fields with random content, in a graph: much deeper than random bytes get.
    #[test]
    fn random_records_do_not_panic(records in records(4)) {
        let header = [0x08, 8, 0x42, 2, 0x10, 17, 0x3a];
        let mut bytes = header.to_vec();
        push_varint(&mut bytes, records.len());
        survives([bytes, records].concat());
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// A message of random records, nested to this depth.
fn records(depth: u32) -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof!["[a-c]?", "[a-c]{1,2}"].prop_map(String::into_bytes);
    let number = prop_oneof![0..30u64, any::<u64>()].prop_map(|number| {
        let mut bytes = Vec::new();
        push_varint(&mut bytes, number as usize);
        bytes
    });
    let leaf = prop_oneof![3 => text, 1 => number];
    leaf.prop_recursive(depth, 60, 5, |inner| {
        let field = prop_oneof![8 => 1..16usize, 1 => 20..26usize];
        let record = (field, inner, 0..12u8).prop_map(|(field, content, kind)| {
            let mut bytes = Vec::new();
            match kind {
                0..8 => {
                    push_varint(&mut bytes, field << 3 | 2);
                    push_varint(&mut bytes, content.len());
                    bytes.extend(content);
                }
                8..11 => {
                    push_varint(&mut bytes, field << 3);
                    push_varint(&mut bytes, content.len());
                }
                _ => {
                    push_varint(&mut bytes, field << 3 | 5);
                    bytes.extend([0, 0, content.len() as u8, 0]);
                }
            }
            bytes
        });
        prop::collection::vec(record, 0..5).prop_map(|records| records.concat())
    })
}
