//! Loading and saving keeps what no exporter writes but the format allows, and refuses what it
//! could not keep.

mod wire;

use std::path::{Path, PathBuf};

use modelopt_onnx::{load, parse, to_bytes};
use wire::{fixed32, float_value, header, message, model, number, one_node, varint};
use xtask::oracle;

/// One record of every wire type, in fields that no message has.
fn unknown() -> Vec<u8> {
    let fixed64 = [varint(503 << 3 | 1), 7u64.to_le_bytes().to_vec()].concat();
    let text = message(504, "later");
    [number(501, -1), number(501, 0), fixed32(502, 7), fixed64, text.clone(), text, number(501, 5)]
        .concat()
}

fn attribute(parts: &[&[u8]]) -> Vec<u8> {
    model(one_node(&[parts.concat()]))
}

fn tensor(parts: &[&[u8]]) -> Vec<u8> {
    model([one_node(&[]), message(5, [&message(8, "w"), &parts.concat()[..]].concat())].concat())
}

fn sparse(parts: &[u8]) -> Vec<u8> {
    let values = [number(1, 2), number(2, 1), message(9, [0; 8]), message(8, "s")].concat();
    let indices = [number(1, 2), number(2, 7), message(9, [0; 16]), message(8, "own")].concat();
    [&message(1, values), &message(2, indices), &number(3, 5), parts].concat()
}

fn function(parts: &[&[u8]]) -> Vec<u8> {
    let node = [message(1, "a"), message(2, "b"), message(4, "Op")].concat();
    let fixed = [message(1, "F"), message(4, "a"), message(5, "b"), message(7, node)].concat();
    [model(one_node(&[])), message(25, [fixed, parts.concat()].concat())].concat()
}

/// Files, each with what is rare about it.
type Made = Vec<(&'static str, Vec<u8>)>;

/// Attributes, and what stands in them twice, unasked for, or with a default value.
fn attributes() -> Made {
    let name = message(1, "a");
    let (ty, int) = (|kind| number(20, kind), number(3, 7));
    let t = [number(1, 1), number(2, 1), message(9, [0; 4]), message(8, "own name")].concat();
    let g = message(2, "inner");
    let tp = message(1, number(1, 1));
    vec![
        ("unknown type", attribute(&[&name, &ty(99), &int])),
        ("undefined type", attribute(&[&name, &ty(0), &int])),
        ("no type", attribute(&[&name, &int])),
        ("no type, no value", attribute(&[&name])),
        ("nothing at all", attribute(&[])),
        ("two values", attribute(&[&name, &ty(2), &int, &fixed32(2, 1), &message(4, "s")])),
        ("two values, no type", attribute(&[&name, &int, &fixed32(2, 1)])),
        ("another value", attribute(&[&name, &ty(1), &int])),
        ("type of a tensor alone", attribute(&[&name, &ty(4), &int])),
        ("type twice", attribute(&[&name, &ty(1), &int, &ty(2)])),
        ("type last", attribute(&[&int, &name, &ty(2)])),
        ("type of the wrong kind", attribute(&[&name, &message(20, "?"), &int])),
        ("name of the wrong kind", attribute(&[&name, &number(1, 5), &ty(2), &int])),
        ("name twice", attribute(&[&message(1, "b"), &name, &ty(2), &int])),
        ("name emptied", attribute(&[&name, &message(1, ""), &ty(2), &int])),
        ("reference", attribute(&[&name, &message(21, "r"), &ty(2)])),
        ("reference and value", attribute(&[&name, &message(21, "r"), &ty(2), &int])),
        ("reference, unknown type", attribute(&[&name, &message(21, "r"), &ty(99)])),
        ("empty reference", attribute(&[&name, &message(21, ""), &ty(2), &int])),
        ("reference emptied", attribute(&[&name, &message(21, "r"), &message(21, ""), &int])),
        ("zero", attribute(&[&name, &ty(2), &number(3, 0)])),
        ("zero, then not", attribute(&[&name, &ty(2), &number(3, 0), &int])),
        ("not, then zero", attribute(&[&name, &ty(2), &int, &number(3, 0)])),
        ("absent integer", attribute(&[&name, &ty(2)])),
        ("zero float", attribute(&[&name, &ty(1), &fixed32(2, 0)])),
        ("minus zero", attribute(&[&name, &ty(1), &fixed32(2, 1 << 31)])),
        (
            "quiet and signalling NaN",
            attribute(&[&name, &ty(6), &fixed32(7, 0x7fc1_2345), &fixed32(7, 0x7f81_2345)]),
        ),
        ("empty string", attribute(&[&name, &ty(3), &message(4, "")])),
        ("bytes", attribute(&[&name, &ty(3), &message(4, [0xff, 0])])),
        (
            "empty strings",
            attribute(&[&name, &ty(8), &message(9, ""), &message(9, "a"), &message(9, "")]),
        ),
        (
            "packed and not",
            attribute(&[&name, &ty(7), &message(8, [1, 2]), &number(8, -3), &message(8, [])]),
        ),
        ("packed floats", attribute(&[&name, &ty(6), &message(7, [0; 8]), &fixed32(7, 5)])),
        ("empty lists", attribute(&[&name, &ty(7)])),
        ("tensor with a name", attribute(&[&name, &ty(4), &message(5, &t)])),
        ("tensors", attribute(&[&name, &ty(9), &message(10, &t), &message(10, &t)])),
        ("graph", attribute(&[&name, &ty(5), &message(6, &g)])),
        ("graphs", attribute(&[&name, &ty(10), &message(11, &g), &message(11, &g)])),
        ("absent graph", attribute(&[&name, &ty(5)])),
        ("sparse tensor", attribute(&[&name, &ty(11), &message(22, sparse(&[]))])),
        ("sparse tensors", attribute(&[&name, &ty(12), &message(23, sparse(&[]))])),
        ("type proto", attribute(&[&name, &ty(13), &message(14, &tp)])),
        ("empty type proto", attribute(&[&name, &ty(13), &message(14, "")])),
        ("type protos", attribute(&[&name, &ty(14), &message(15, &tp), &message(15, "")])),
        ("doc strings", attribute(&[&name, &message(13, "doc"), &message(13, ""), &ty(2), &int])),
        ("twice", model(one_node(&[[&name[..], &int].concat(), [&name[..], &int].concat()]))),
    ]
}

/// Tensors in every way that they can be stored.
fn tensors() -> Made {
    let ty = |number_of| number(2, number_of);
    let raw = message(9, [1; 8]);
    let two = number(1, 2);
    let nothing = number(1, 0);
    vec![
        ("packed dims", tensor(&[&message(1, [2, 1]), &ty(1), &raw])),
        ("mixed dims", tensor(&[&message(1, [2]), &number(1, 1), &message(1, []), &ty(1), &raw])),
        ("scalar", tensor(&[&ty(7), &raw])),
        ("empty", tensor(&[&nothing, &ty(1)])),
        ("empty raw data", tensor(&[&nothing, &ty(1), &message(9, "")])),
        ("empty packed data", tensor(&[&nothing, &ty(1), &message(4, "")])),
        ("raw data and a packed list of nothing", tensor(&[&two, &ty(1), &raw, &message(4, "")])),
        ("raw data twice", tensor(&[&two, &ty(1), &message(9, "old"), &raw])),
        ("raw data emptied", tensor(&[&nothing, &ty(1), &raw, &message(9, "")])),
        ("type twice", tensor(&[&two, &ty(7), &ty(1), &raw])),
        ("type undefined first", tensor(&[&two, &ty(0), &ty(1), &raw])),
        ("type undefined last", tensor(&[&two, &ty(1), &raw, &ty(0)])),
        ("type absent", tensor(&[&two, &raw])),
        ("type negative", tensor(&[&two, &ty(-1), &raw])),
        ("unknown type, raw", tensor(&[&two, &ty(999), &raw])),
        (
            "unknown type, typed",
            tensor(&[&two, &ty(999), &number(7, 5), &unknown(), &number(7, 6)]),
        ),
        ("unknown type, strings", tensor(&[&two, &ty(999), &message(6, "a"), &message(6, "")])),
        (
            "unknown type, floats and integers",
            tensor(&[&two, &ty(999), &fixed32(4, 1), &number(5, 2)]),
        ),
        ("strings", tensor(&[&two, &ty(8), &message(6, [0xff]), &message(6, "")])),
        (
            "floats one by one",
            tensor(&[&two, &ty(1), &fixed32(4, 1), &number(99, 1), &fixed32(4, 2)]),
        ),
        ("floats packed in two", tensor(&[&two, &ty(1), &message(4, [1; 4]), &message(4, [2; 4])])),
        ("negative integers", tensor(&[&two, &ty(3), &number(5, -1), &number(5, -128)])),
        ("float16 in integers", tensor(&[&two, &ty(10), &message(5, [0x80, 0x78, 1])])),
        ("unsigned 32 bits", tensor(&[&two, &ty(12), &number(11, 5), &number(11, 1)])),
        ("int4 in integers", tensor(&[&two, &ty(22), &number(5, 0x21)])),
        ("int4 raw", tensor(&[&number(1, 3), &ty(22), &message(9, [0x21, 3])])),
        ("float6 in integers", tensor(&[&number(1, 5), &ty(27), &message(5, [1, 2, 63, 4, 5])])),
        ("float6 raw", tensor(&[&number(1, 5), &ty(28), &message(9, [1, 2, 3, 4])])),
        ("location said to be inside", tensor(&[&two, &ty(1), &raw, &number(14, 0)])),
        (
            "location of nothing",
            tensor(&[&two, &ty(1), &raw, &message(13, message(1, "location"))]),
        ),
        (
            "doc, segment, metadata",
            tensor(&[
                &two,
                &ty(1),
                &message(12, "doc"),
                &message(3, number(1, 0)),
                &message(16, message(1, "k")),
                &raw,
            ]),
        ),
        ("name emptied", tensor(&[&two, &ty(1), &raw, &message(8, "")])),
        ("no name", model(message(5, [&two[..], &ty(1), &raw].concat()))),
        ("two without names", model(message(5, [&two[..], &ty(1), &raw].concat()).repeat(2))),
        ("sparse", model(message(15, sparse(&[])))),
        ("sparse with unknown fields", model(message(15, sparse(&unknown())))),
    ]
}

/// The tensor type float32 with a shape of these parts.
fn shaped(parts: &[Vec<u8>]) -> Vec<u8> {
    message(2, message(1, [number(1, 1), message(2, parts.concat())].concat()))
}

/// A model with unknown fields in all of its messages.
fn unknown_everywhere() -> Vec<u8> {
    [
        [header(), unknown()].concat(),
        message(8, [number(2, 1), message(1, "d"), unknown()].concat()),
        message(14, [message(1, "k"), unknown()].concat()),
        message(
            7,
            [
                one_node(&[[message(1, "a"), number(20, 2), number(3, 0), unknown()].concat()]),
                message(5, [message(8, "w"), number(2, 3), unknown(), message(9, "1")].concat()),
                message(
                    11,
                    [message(1, "u"), shaped(&[message(1, number(1, -1)), unknown()]), unknown()]
                        .concat(),
                ),
                message(14, [message(1, "w"), unknown()].concat()),
                unknown(),
            ]
            .concat(),
        ),
        message(20, [message(1, message(2, "init")), unknown()].concat()),
        message(26, message(1, "configuration")),
    ]
    .concat()
}

/// Models and what describes them.
fn models() -> Made {
    let plain = model(one_node(&[]));
    let with = |parts: &[Vec<u8>]| [plain.clone(), parts.concat()].concat();
    vec![
        ("unknown fields everywhere", unknown_everywhere()),
        (
            "fields in reverse",
            [message(7, one_node(&[])), message(8, number(2, 17)), number(1, 8)].concat(),
        ),
        (
            "overlong numbers",
            [&[0x88, 0x80, 0, 0x88, 0x80, 0][..], &[0xf8, 0x80, 0, 0x81, 0], &plain[2..]].concat(),
        ),
        (
            "graph in pieces",
            with(&[
                message(7, message(13, message(1, "y"))),
                message(7, [message(2, "h"), unknown()].concat()),
            ]),
        ),
        ("version negative", with(&[number(1, -5)])),
        ("version zero", with(&[number(1, 0)])),
        ("version zero, then not", [number(1, 0), plain.clone()].concat()),
        (
            "texts emptied",
            with(&[
                message(2, "p"),
                message(2, ""),
                message(6, ""),
                message(4, ""),
                number(5, 3),
                number(5, 0),
            ]),
        ),
        (
            "texts filled",
            with(&[
                message(2, ""),
                message(2, "p"),
                message(6, ""),
                message(6, "d"),
                number(5, 0),
                number(5, 3),
            ]),
        ),
        (
            "operator set zero",
            with(&[
                message(8, [number(2, 17), number(2, 0)].concat()),
                message(8, [number(2, 0), number(2, 5)].concat()),
            ]),
        ),
        ("operator set empty", with(&[message(8, "")])),
        ("default domain written out", with(&[message(8, message(1, ""))])),
        (
            "metadata",
            with(&[
                message(14, ""),
                message(14, [message(1, "k"), message(2, "")].concat()),
                message(14, message(2, "v")),
            ]),
        ),
        (
            "wrong kinds of fields",
            with(&[number(2, 7), message(1, "?"), number(14, 1), number(25, 1)]),
        ),
        ("no old operator set", [number(1, 2), message(7, one_node(&[]))].concat()),
    ]
}

/// Declared values and their types.
fn values() -> Made {
    let value = |parts: &[Vec<u8>]| model([one_node(&[]), message(13, parts.concat())].concat());
    let (dim, param) = (message(1, number(1, -1)), message(1, message(2, "n")));
    vec![
        ("value without name", value(&[shaped(&[])])),
        ("value without type", value(&[message(1, "y"), message(3, "doc")])),
        ("value twice", value(&[message(1, "x"), message(1, "y"), message(1, "")])),
        ("value unknown", value(&[message(1, "nowhere"), shaped(&[dim, param])])),
        ("empty type", value(&[message(1, "y"), message(2, "")])),
        ("shape absent and empty", value(&[message(1, "y"), message(2, message(1, number(1, 1)))])),
        (
            "type of many kinds",
            value(&[
                message(1, "y"),
                message(
                    2,
                    [message(4, ""), message(1, number(1, 1)), message(6, "denotation")].concat(),
                ),
            ]),
        ),
        ("opaque type", value(&[message(1, "y"), message(2, message(7, message(1, "d")))])),
        ("map without value", value(&[message(1, "y"), message(2, message(5, number(1, 7)))])),
    ]
}

/// Nodes, inputs and outputs.
fn nodes() -> Made {
    let node = |parts: &[Vec<u8>]| {
        let names = [message(1, "x"), message(2, "y")].concat();
        let node = message(1, [names, parts.concat()].concat());
        model([node, float_value(11, "x"), float_value(12, "y")].concat())
    };
    let op = message(4, "Op");
    vec![
        (
            "inputs without names",
            model([message(11, ""), message(11, ""), message(11, message(1, ""))].concat()),
        ),
        ("outputs left out", node(&[op.clone(), message(2, ""), message(2, "")])),
        ("inputs left out", node(&[op.clone(), message(1, ""), message(1, "x"), message(1, "")])),
        (
            "unnamed input beside one left out",
            model(
                [message(11, ""), message(1, [&op[..], &message(1, ""), &message(2, "")].concat())]
                    .concat(),
            ),
        ),
        ("operator twice", node(&[message(4, ""), op.clone()])),
        ("names empty", node(&[op.clone(), message(3, ""), message(7, ""), message(8, "")])),
        (
            "names filled",
            node(&[
                op.clone(),
                message(3, ""),
                message(3, "n"),
                message(7, "d"),
                message(8, "o"),
                message(6, "doc"),
            ]),
        ),
        (
            "nodes out of order",
            model(
                [
                    message(1, [message(1, "b"), message(2, "y"), op.clone()].concat()),
                    message(1, [message(1, "x"), message(2, "b"), op].concat()),
                    float_value(11, "x"),
                    float_value(12, "y"),
                ]
                .concat(),
            ),
        ),
        ("same output twice", model([one_node(&[]), float_value(12, "y")].concat())),
        (
            "quantization, metadata, doc",
            model(
                [
                    one_node(&[]),
                    message(14, message(1, "y")),
                    message(16, message(1, "k")),
                    message(10, ""),
                ]
                .concat(),
            ),
        ),
    ]
}

fn functions() -> Made {
    vec![
        (
            "function",
            function(&[&message(10, "d"), &message(9, number(2, 17)), &message(6, "attribute")]),
        ),
        (
            "function with everything",
            function(&[
                &message(11, [message(1, "default"), number(20, 2)].concat()),
                &message(12, message(1, "b")),
                &message(12, message(1, "nowhere")),
                &message(13, "overload"),
                &message(8, "doc"),
                &message(14, message(1, "k")),
                &unknown(),
            ]),
        ),
        (
            "function, texts emptied",
            function(&[&message(1, ""), &message(10, "d"), &message(10, ""), &message(13, "")]),
        ),
    ]
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn what_the_format_allows_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let made: Vec<_> = [attributes(), tensors(), models(), values(), nodes(), functions()].concat();
    let mut problems = Vec::new();
    let mut pairs: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut names = Vec::new();
    for (index, (name, bytes)) in made.into_iter().enumerate() {
        let [original, copy] =
            ["original", "copy"].map(|side| folder.path().join(format!("{index}_{side}.onnx")));
        std::fs::write(&original, &bytes).unwrap();
        match load(&original) {
            Err(error) => problems.push(format!("{name}: {error}")),
            Ok(model) => {
                std::fs::write(&copy, to_bytes(&model).unwrap()).unwrap();
                names.push(name);
                pairs.push((original, copy));
            }
        }
    }
    for (answer, name) in oracle::same_models(&pairs).unwrap().into_iter().zip(names) {
        if !answer.equal {
            problems.push(format!("{name}: {}", answer.reason.unwrap_or_default()));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn what_could_not_be_kept_is_refused() {
    let (float, raw) = (number(2, 1), message(9, [0; 4]));
    let value = [number(2, 1), message(9, [0; 4])].concat();
    let ty = message(2, message(1, number(1, 1)));
    let outside = [number(14, 1), message(13, [message(1, "location"), message(2, "w")].concat())];
    let cases: &[(&str, Vec<u8>)] = &[
        ("a second type", model(message(11, [message(1, "i"), ty.repeat(2)].concat()))),
        ("a second value", attribute(&[&number(20, 4), &message(5, &value), &message(5, &value)])),
        ("a second value", attribute(&[&number(20, 5), &message(6, ""), &message(6, "")])),
        ("a second value", attribute(&[&number(20, 13), &message(14, ""), &message(14, "")])),
        ("a second value", model(message(15, sparse(&message(1, &value))))),
        ("a field of the wrong kind", attribute(&[&number(20, 2), &fixed32(3, 1)])),
        ("a broken list of floats", attribute(&[&number(20, 6), &message(7, [0; 5])])),
        ("a broken list of numbers", attribute(&[&number(20, 7), &message(8, [0x80])])),
        ("'w': it has its elements twice", tensor(&[&float, &raw, &fixed32(4, 0)])),
        ("'w': it has its elements twice", tensor(&[&float, &raw, &message(6, "")])),
        ("'w': it has its elements twice", tensor(&[&number(2, 999), &raw, &message(6, "")])),
        ("'w': it has its elements twice", tensor(&[&float, &raw, &outside.concat()])),
        ("'w': it is of strings, but has numbers", tensor(&[&number(2, 8), &raw])),
        ("'w': it is of float, but has strings", tensor(&[&float, &message(6, "s")])),
        ("'w': its elements are not in the field for float", tensor(&[&float, &number(7, 1)])),
        ("'w': its elements are of the wrong kind", tensor(&[&float, &number(4, 1)])),
        ("it has no values in a sparse tensor", model(message(15, message(2, &value)))),
    ];
    for (why, bytes) in cases {
        let error = parse(bytes.clone().into(), Path::new("made.onnx"))
            .err()
            .map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(why)), "no {why:?} in {error:?}");
    }
}
