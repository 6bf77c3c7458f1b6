//! Requests by people who mean harm: nothing panics, and nothing takes much more memory than its body.
//!
//! An allocator counts, for each thread, what is held and the most that was.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use modelopt_graph::DataType;
use modelopt_serve::protocol::{
    Limits, parse_infer, parse_instances, parse_invocation, parse_predict,
};
use modelopt_serve::{Dimension, Signature, TensorSpec};
use proptest::prelude::*;

struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

fn taken(bytes: usize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    MOST.set(MOST.get().max(held));
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().saturating_sub(layout.size()));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that is held at once while something is done.
fn most_held(act: impl FnOnce()) -> usize {
    HELD.set(0);
    MOST.set(0);
    act();
    MOST.get()
}

/// A list of empty strings has three bytes for each, and the bytes of a string are a pointer, a length and
/// an owner; while a list grows, the old one is there beside the new.
const TIMES: usize = 40;

/// What messages and the parts of a request take, however small it is.
const FLAT: usize = 8 << 10;

fn signature(dtype: DataType) -> Signature {
    let shape = Some(vec![Dimension::Any, Dimension::Any]);
    Signature {
        inputs: vec![TensorSpec { name: "x".to_owned(), dtype, shape }],
        outputs: Vec::new(),
    }
}

/// Reads a body in all forms there are; whether any of them took it.
fn read(body: &Bytes, header: Option<usize>) -> bool {
    let limits = Limits::default();
    let mut taken = false;
    for dtype in [DataType::FLOAT, DataType::STRING, DataType::BOOL] {
        let signature = signature(dtype);
        taken |= parse_infer(header, body, &signature, &limits).is_ok();
        taken |= parse_predict(body, &signature, &limits).is_ok();
        taken |= parse_instances(body, &signature, &limits).is_ok();
        for content in [
            "application/json",
            "text/csv",
            "application/vnd.sagemaker-triton.binary+json;json-header-size=2",
        ] {
            taken |= parse_invocation(Some(content), header, body, &signature, &limits).is_ok();
        }
    }
    taken
}

fn hold_to_bound(body: Vec<u8>, header: Option<usize>) -> bool {
    let body = Bytes::from(body);
    let mut taken = false;
    let most = most_held(|| taken = read(&body, header));
    let bound = TIMES * body.len() + FLAT;
    assert!(most <= bound, "{most} bytes held for a body of {}", body.len());
    taken
}

#[test]
fn the_allocator_counts() {
    let most = most_held(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20))));
    assert!((1 << 20..1 << 21).contains(&most), "{most}");
}

#[test]
fn a_shape_costs_nothing_before_its_elements_are_there() {
    for (shape, datatype) in [("[100000000]", "FP32"), ("[100000,1000]", "BYTES")] {
        let text = format!(
            r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":[]}}]}}"#
        );
        assert!(!hold_to_bound(text.into_bytes(), None));
        let json = format!(
            r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","parameters":{{"binary_data_size":400000000}}}}]}}"#
        );
        let header = json.len();
        assert!(!hold_to_bound(json.into_bytes(), Some(header)));
    }
}

#[test]
fn what_is_large_takes_memory_in_proportion() {
    let list = |item: &str, count: usize| {
        let items = vec![item; count].join(",");
        format!(r#"{{"x":[[{items}]],"other":0}}"#)
    };
    let count = 1 << 16;
    for item in ["\"\"", "1", "\"a\"", "[]", "{}"] {
        hold_to_bound(list(item, count).into_bytes(), None);
        let text = format!("[[{}]]", vec![item; count].join(","));
        hold_to_bound(text.into_bytes(), None);
    }
    let strings = format!("[[{}]]", vec!["\"\""; count].join(","));
    assert!(hold_to_bound(strings.into_bytes(), None));
    let inputs = vec!["{}"; count].join(",");
    assert!(!hold_to_bound(format!(r#"{{"inputs":[{inputs}]}}"#).into_bytes(), None));
    let name = "n".repeat(1 << 20);
    assert!(!hold_to_bound(format!(r#"{{"{name}":1}}"#).into_bytes(), None));
    assert!(!hold_to_bound("[".repeat(1 << 20).into_bytes(), None));
    assert!(!hold_to_bound(vec![0xff; 1 << 20], Some(1 << 19)));
}

/// Pieces that requests are made of, in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"inputs\":",
        "\"outputs\":",
        "\"name\":",
        "\"x\"",
        "\"shape\":",
        "\"datatype\":",
        "\"FP32\"",
        "\"BYTES\"",
        "\"BOOL\"",
        "\"data\":",
        "\"parameters\":",
        "\"binary_data_size\":",
        "\"instances\":",
        "\"features\":",
        "1",
        "-1",
        "0",
        "4",
        "1e39",
        "null",
        "true",
        "NaN",
        "\"\"",
        "\"\\u00e9\"",
        "\"\\ud800\"",
        " ",
        "\n",
        "18446744073709551616",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[2,1],\"datatype\":\"FP32\",\"data\":",
        "{\"instances\":[",
        "{\"x\":",
        "[[1],[2]]",
        "}]}",
        "\u{0}\u{1}\u{0}\u{0}",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

/// Good requests of each form, with some bytes changed and the end cut off.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let good = prop::sample::select(vec![
        r#"{"id":"1","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3,4e1]]}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#,
        r#"{"inputs":[{"data":["a","\u00e9"],"name":"x","shape":[2,1],"datatype":"BYTES"}],"parameters":{"timeout":5,"priority":1}}"#,
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"BYTES\",\"parameters\":{\"binary_data_size\":10}}]}\u{1}\0\0\0a\u{1}\0\0\0b",
        r#"{"instances":[{"x":[1,2]},{"x":[3,4]}],"parameters":{}}"#,
        r#"{"features":[[true,false],[false,true]]}"#,
        "1,2\n3,4\n",
    ]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (good, changes, any::<prop::sample::Index>()).prop_map(|(good, changes, end)| {
        let mut body = good.as_bytes().to_vec();
        for (place, byte) in changes {
            let place = place.index(body.len());
            body[place] = byte;
        }
        // Half of them stay whole.
        body.truncate(end.index(2 * good.len()) + 1);
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(
        body in prop::collection::vec(any::<u8>(), 0..200),
        header in prop::option::of(0usize..220),
    ) {
        hold_to_bound(body, header);
    }

    #[test]
    fn damaged_requests_are_read_or_refused(
        body in damaged(),
        header in prop::option::of(0usize..160),
    ) {
        hold_to_bound(body, header);
    }

    #[test]
    fn any_pieces_are_read_or_refused(body in pieces(), header in prop::option::of(0usize..220)) {
        hold_to_bound(body, header);
    }
}
