//! Whatever a file holds, loading it ends soon, in bounded memory, in a model or in an error
//! that names the file and the place.

mod wire;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use modelopt_graph::{Model, verify};
use modelopt_onnx::{Error, load, to_bytes};
use wire::{fixed32, float_value, header, message, model, nested, number, one_node};
use xtask::{oracle, testdata};

use Expected::{Loads, Refused};

enum Expected {
    /// The message has all of these.
    Refused(&'static [&'static str]),
    /// It loads, and untouched it is saved without loss. Why that is right.
    Loads(&'static str),
}

const LEGAL: &str = "the format allows it";
const OPERATORS: &str = "whether a node makes sense is for those to say who know its operator";
const FUNCTIONS: &str = "functions matter to those who inline them; they must look for recursion";
const VERSIONS: &str = "versions matter to those who look operators up";

/// Every file of `testdata/attacks`, in the order of its README.
const ATTACKS: &[(&str, Expected)] = &[
    ("empty", Refused(&["the file is empty"])),
    ("text", Refused(&["an unknown kind of field at byte 0"])),
    ("truncated_tag", Refused(&["the file ends within a number at byte 3"])),
    ("truncated_length truncated_node truncated_weight", Refused(&["truncated", "at byte"])),
    ("truncated_last", Refused(&["truncated", "byte 4197"])),
    ("nested_groups", Refused(&["a group, which no ONNX message has, at byte 0"])),
    ("group_closed group_end_only", Refused(&["a group", "at byte 4203"])),
    ("huge_length huge_length_63", Refused(&["longer than what holds it", "at byte 6"])),
    ("huge_length_weight", Refused(&["longer than what holds it", "at byte 6"])),
    ("deep_nesting", Refused(&["a node without operator at byte 14"])),
    ("deep_types", Refused(&["types nested deeper", "at byte"])),
    ("deep_unknown", Loads(LEGAL)),
    ("wrong_varint wrong_varint_length", Refused(&["longer than 64 bits at byte 1"])),
    ("field_zero", Refused(&["a field number out of range at byte 4203"])),
    ("wire_type_6", Refused(&["an unknown kind of field at byte 4203"])),
    ("wrong_wire_type", Refused(&["it has no graph"])),
    ("field_overflow", Refused(&["a field number out of range at byte 4203"])),
    ("mixed_packing", Loads(LEGAL)),
    ("many_empty_nodes", Refused(&["a node without operator at byte 12"])),
    ("external_good external_good_dot", Loads(LEGAL)),
    ("external_dotdot", Refused(&["tensor 'w'", "'../digits/heldout.npz'", "'..' is not allowed"])),
    (
        "external_dotdot_inside",
        Refused(&["tensor 'w'", "'folder/../external.bin'", "'..' is not allowed"]),
    ),
    ("external_dotdot_backslash", Refused(&["tensor 'w'", r"'..\outside.bin'"])),
    ("external_absolute", Refused(&["tensor 'w'", "'/dev/zero'", "absolute"])),
    ("external_absolute_drive external_absolute_share", Refused(&["tensor 'w'", "outside.bin'"])),
    ("external_symlink", Refused(&["tensor 'w'", "'link.bin'", "does not exist"])),
    ("external_missing", Refused(&["tensor 'w'", "'missing.bin'", "does not exist"])),
    ("external_no_location external_empty_location", Refused(&["tensor 'w'", "names no file"])),
    ("external_directory", Refused(&["tensor 'w'", "'.'", "not a regular file"])),
    ("external_nul", Refused(&["tensor 'w'"])),
    ("external_past_end", Refused(&["tensor 'w'", "bytes 4 to 4100", "the file has 4096"])),
    (
        "external_offset_past_end",
        Refused(&["tensor 'w'", "bytes 8192 to 12288", "the file has 4096"]),
    ),
    ("external_negative_offset", Refused(&["tensor 'w'", "its offset '-4'"])),
    ("external_negative_length", Refused(&["tensor 'w'", "its length '-1'"])),
    ("external_not_a_number", Refused(&["tensor 'w'", "its offset 'four'"])),
    ("external_overflow", Refused(&["tensor 'w'", "the file has 4096"])),
    ("external_too_big", Refused(&["tensor 'w'", "its length '99999999999999999999999'"])),
    ("external_short", Refused(&["tensor 'w'", "needs 4096 bytes, but the payload has 1024"])),
    ("external_long", Refused(&["tensor 'w'", "bytes 0 to 4100", "the file has 4096"])),
    ("external_itself", Refused(&["tensor 'w'", "the file has 168"])),
    ("dtype_lie_short", Refused(&["tensor 'w'", "needs 4096 bytes, but the payload has 4093"])),
    ("dtype_lie_long", Refused(&["tensor 'w'", "needs 4096 bytes, but the payload has 4100"])),
    ("dtype_lie_type", Refused(&["tensor 'w'", "[32, 32] of double needs 8192 bytes"])),
    ("no_data", Refused(&["tensor 'w'", "the payload has 0"])),
    ("negative_dim", Refused(&["a negative dimension at byte"])),
    ("overflow_dims", Refused(&["tensor 'w'", "more elements than can be addressed"])),
    ("overflow_dims_zero", Refused(&["tensor 'w'", "needs 0 bytes, but the payload has 4096"])),
    ("huge_dims", Refused(&["tensor 'w'", "more elements than can be addressed"])),
    ("both_raw_and_float_data", Refused(&["tensor 'w'", "twice"])),
    (
        "unknown_dtype undefined_dtype",
        Loads("a later ONNX may have it; its elements stay as they are"),
    ),
    ("cycle", Refused(&["cycle", "Add 'Add_a'", "MatMul 'MatMul_b'"])),
    ("self_loop", Refused(&["cycle", "Add 'Add_a'"])),
    ("duplicate_names", Refused(&["'y' is defined twice", "'attack'"])),
    ("duplicate_initializer", Refused(&["'w' is defined twice", "'attack'"])),
    ("duplicate_input output_names_input", Refused(&["'x' is defined twice", "'attack'"])),
    ("output_names_weight", Refused(&["'w' is defined twice", "'attack'"])),
    ("dangling_input", Refused(&["MatMul 'MatMul_y'", "reads 'nowhere'"])),
    ("dangling_output", Refused(&["an output of graph 'attack' reads 'nowhere'"])),
    ("dangling_in_branch", Refused(&["MatMul 'MatMul_b'", "reads 'nowhere'"])),
    ("no_graph", Refused(&["it has no graph"])),
    ("no_opset", Refused(&["it has no operator set"])),
    ("future_opset negative_opset future_ir duplicate_opset", Loads(VERSIONS)),
    ("invalid_utf8_name invalid_utf8_doc", Refused(&["not UTF-8 at byte"])),
    (
        "attr_type_mismatch missing_attr_type duplicate_attr unknown_attr_type wrong_attr_kind",
        Loads(OPERATORS),
    ),
    ("recursion_function recursion_mutual function_bomb", Loads(FUNCTIONS)),
    (
        "fold_constant_of_shape fold_expand fold_tile fold_range fold_concat fold_loop",
        Loads("nothing is computed in loading"),
    ),
    (
        "if_without_branches loop_without_body conv_without_weight matmul_one_input",
        Loads(OPERATORS),
    ),
    ("empty_op_type", Refused(&["a node without operator at byte"])),
    (
        "conv_without_weight_shape conv_group_zero conv_group_uneven matmul_rank0 gemm_rank1 \
         gemm_trans_7 gather_zero_rows gather_out_of_range transpose_bad_perm concat_bad_axis \
         reshape_impossible squeeze_bad_axis lstm_wrong_gates batchnorm_wrong_length \
         matmul_wrong_inner int_weight_matmul cast_to_nothing slice_extremes pad_negative",
        Loads(OPERATORS),
    ),
    ("branch_shadows_outer", Loads("onnxruntime takes it; the names are told apart by scope")),
];

/// Peak memory that loading may take, in bytes: in proportion to the file. Half of it may be room
/// that a growing list asked for and never used.
fn allowance(file: u64) -> usize {
    (64 << 20) + 64 * usize::try_from(file).unwrap()
}

const TIME: Duration = Duration::from_secs(30);

/// Loads a file within bounds. What loads has to be fit for a look at it, too.
fn bounded_load(path: &Path) -> Result<Model, Error> {
    let start = Instant::now();
    let (loaded, peak) = peak_memory(|| load(path));
    let size = std::fs::metadata(path).unwrap().len();
    assert!(peak < allowance(size), "{}: {size} bytes took {peak}", path.display());
    assert!(start.elapsed() < TIME, "{}: {:?}", path.display(), start.elapsed());
    if let Ok(model) = &loaded {
        let _ = verify::check(model);
        to_bytes(model).unwrap();
    }
    loaded
}

fn check_refused(path: &Path, parts: &[&str]) {
    let problem = refusal_problem(path, parts);
    assert!(problem.is_none(), "{}", problem.unwrap_or_default());
}

/// What is wrong with how a file is refused, if anything.
fn refusal_problem(path: &Path, parts: &[&str]) -> Option<String> {
    let file = path.display().to_string();
    let Err(error) = bounded_load(path) else { return Some(format!("{file} loads")) };
    let text = error.to_string();
    let missing = std::iter::once(file.as_str())
        .chain(parts.iter().copied())
        .find(|part| !text.contains(part));
    match missing {
        Some(part) => Some(format!("no {part:?} in: {text}")),
        None if text.len() > 1000 => Some(format!("{file}: {} bytes of message", text.len())),
        None => None,
    }
}

/// Writes a file of these bytes and loads it.
fn check_bytes_refused(bytes: &[u8], parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.onnx");
    std::fs::write(&path, bytes).unwrap();
    check_refused(&path, parts);
}

fn attack(name: &str) -> PathBuf {
    testdata::fixture(format!("attacks/{name}.onnx"))
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn every_attack_ends_as_expected() {
    let folder = tempfile::tempdir().unwrap();
    let (mut pairs, mut problems) = (Vec::new(), Vec::new());
    for (names, expected) in ATTACKS {
        for name in names.split_whitespace() {
            match expected {
                Refused(parts) => problems.extend(refusal_problem(&attack(name), parts)),
                Loads(why) => match bounded_load(&attack(name)) {
                    Err(error) => problems.push(format!("{error}, although {why}")),
                    Ok(model) => {
                        let copy = folder.path().join(format!("{name}.onnx"));
                        std::fs::write(&copy, to_bytes(&model).unwrap()).unwrap();
                        pairs.push((attack(name), copy));
                    }
                },
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    for (answer, (original, _)) in oracle::same_models(&pairs).unwrap().iter().zip(&pairs) {
        assert!(answer.equal, "{}: {:?}", original.display(), answer.reason);
    }
}

#[test]
fn every_attack_is_in_the_table() {
    let mut listed: Vec<String> = ATTACKS
        .iter()
        .flat_map(|(names, _)| names.split_whitespace())
        .map(|name| format!("{name}.onnx"))
        .collect();
    let mut found: Vec<String> = std::fs::read_dir(testdata::fixture("attacks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "onnx"))
        .collect();
    listed.sort();
    found.sort();
    assert_eq!(listed, found);
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(root.path().join("secret"), [0; 4096]).unwrap();
    let path = folder.join("external_symlink.onnx");
    std::fs::copy(attack("external_symlink"), &path).unwrap();
    for outside in [root.path().join("secret"), PathBuf::from("../secret")] {
        std::os::unix::fs::symlink(outside, folder.join("link.bin")).unwrap();
        check_refused(&path, &["tensor 'w'", "'link.bin'", "leaves the model's folder"]);
        std::fs::remove_file(folder.join("link.bin")).unwrap();
    }
    // A link that stays inside is fine.
    std::fs::write(folder.join("inside"), [0; 4096]).unwrap();
    std::os::unix::fs::symlink("inside", folder.join("link.bin")).unwrap();
    bounded_load(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("link.bin")).status();
    assert!(made.unwrap().success());
    let path = folder.path().join("external_symlink.onnx");
    std::fs::copy(attack("external_symlink"), &path).unwrap();
    check_refused(&path, &["tensor 'w'", "'link.bin'", "not a regular file"]);
    let error = load(&folder.path().join("link.bin")).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
}

#[test]
fn nesting_does_not_overflow_the_stack() {
    let op = message(4, "If");
    let graphs = |levels| model(nested(&[(&[], 1), (&op, 5), (&[], 6)], levels, &[]));
    check_bytes_refused(&[0xa3, 0x06].repeat(5_000_000), &["a group", "at byte 0"]);
    for levels in [33, 10_000, 1_000_000] {
        check_bytes_refused(&graphs(levels), &["graphs nested deeper", "at byte"]);
    }
    // Groups that onnx-protobuf would follow, at every place of a type.
    let groups = [0xa3, 0x06].repeat(1_000_000);
    for place in [&[][..], &[1], &[1, 2], &[1, 2, 1], &[4], &[4, 1], &[5], &[5, 2], &[8], &[9, 1]] {
        let place: Vec<(&[u8], u64)> = place.iter().map(|&field| (&[][..], field)).collect();
        let ty = nested(&place, 1, &groups);
        let input = message(11, [message(1, "x"), message(2, ty)].concat());
        check_bytes_refused(&model(input), &["a group", "TypeProto"]);
    }
    // What onnx-protobuf does not know it does not follow.
    let opaque = message(2, message(7, &groups));
    let bytes = model(message(11, [message(1, "x".as_bytes()), opaque].concat()));
    modelopt_onnx::parse(bytes.into(), Path::new("made")).unwrap();
}

#[test]
fn claims_without_content_are_refused() {
    let tensor =
        |content: &[Vec<u8>]| model(message(5, [message(8, "claim"), content.concat()].concat()));
    let (float, string) = (number(2, 1), number(2, 8));
    let gigabyte = number(1, 1 << 28);
    let raw = message(9, [0; 4]);
    check_bytes_refused(
        &tensor(&[gigabyte.clone(), float.clone(), raw.clone()]),
        &["tensor 'claim'", "needs 1073741824 bytes, but the payload has 4"],
    );
    check_bytes_refused(
        &tensor(&[gigabyte.clone(), float.clone()]),
        &["tensor 'claim'", "but the payload has 0"],
    );
    check_bytes_refused(
        &tensor(&[gigabyte, string.clone(), message(6, "one")]),
        &["tensor 'claim'", "268435456", "has 1"],
    );
    check_bytes_refused(
        &tensor(&[number(1, 1 << 62), number(1, 4), string, message(6, "one")]),
        &["tensor 'claim'", "more elements than can be addressed"],
    );
    let many_dims = message(1, vec![1; 20_000_000]);
    check_bytes_refused(
        &tensor(&[many_dims, float.clone(), raw.clone()]),
        &["dimensions", "at byte"],
    );
    let many_dims = number(1, 1).repeat(10_000_000);
    check_bytes_refused(&tensor(&[many_dims, float, raw]), &["dimensions", "at byte"]);
    let shape = message(1, []).repeat(10_000_000);
    let ty = message(2, message(1, [number(1, 1), message(2, shape)].concat()));
    check_bytes_refused(&model(message(11, ty)), &["dimensions", "at byte"]);
}

#[test]
#[ignore = "takes long: cargo xtask test"]
fn floods_of_small_parts_stay_small() {
    const SIZE: usize = 12 << 20;
    let fill = |part: &[u8]| part.repeat(SIZE / part.len());
    let op = message(4, "A");
    let node_with = |parts: Vec<u8>| model(message(1, [op.clone(), parts].concat()));
    let attribute_with = |parts: Vec<u8>| model(one_node(&[parts]));
    let tensor_with = |parts: Vec<u8>| model(message(5, parts));
    let numbered = |part: &dyn Fn(&str) -> Vec<u8>| {
        (0..SIZE / part("000000").len()).flat_map(|index| part(&format!("{index:06x}"))).collect()
    };
    let floods: &[(&str, Vec<u8>)] = &[
        ("nodes without content", model(fill(&message(1, [])))),
        ("nodes with an operator", model(fill(&message(1, &op)))),
        ("40 MB of nodes", model(message(1, []).repeat(20 << 20))),
        ("unnamed inputs", model(fill(&message(11, [])))),
        ("unnamed outputs", model(fill(&message(12, [])))),
        ("unnamed values", model(fill(&message(13, [])))),
        ("inputs", model(numbered(&|name| message(11, message(1, name))))),
        ("values", model(fill(&message(13, message(1, "v"))))),
        ("initializers", model(fill(&message(5, [])))),
        ("sparse initializers", model(fill(&message(15, [])))),
        ("unknown numbers in a graph", model(fill(&number(99, 0)))),
        ("unknown texts in a graph", model(fill(&message(99, [])))),
        ("unknown numbers apart", model(fill(&[number(99, 0), message(2, "g")].concat()))),
        ("node inputs", model([node_with_reads(&fill), float_value(11, "x")].concat())),
        ("inputs left out", node_with(fill(&message(1, [])))),
        ("outputs left out", node_with(fill(&message(2, [])))),
        ("node outputs", node_with(numbered(&|name| message(2, name)))),
        ("attributes", node_with(fill(&message(5, [])))),
        ("integers", attribute_with(fill(&number(8, 1)))),
        ("packed integers", attribute_with(message(8, fill(&[1])))),
        ("floats", attribute_with(fill(&fixed32(7, 1)))),
        ("texts", attribute_with(fill(&message(9, [])))),
        ("tensors", attribute_with(fill(&message(10, [])))),
        ("graphs", attribute_with(fill(&message(11, [])))),
        ("types", attribute_with(fill(&message(15, [])))),
        ("references", attribute_with(fill(&message(21, "r")))),
        ("typed data", tensor_with([number(2, 7), fill(&number(7, 1))].concat())),
        ("packed typed data", tensor_with([number(2, 7), message(7, fill(&[1]))].concat())),
        ("single floats", tensor_with([number(2, 1), fill(&fixed32(4, 1))].concat())),
        ("string elements", tensor_with([number(2, 8), fill(&message(6, []))].concat())),
        ("locations", tensor_with([number(14, 1), fill(&message(13, []))].concat())),
        ("operator sets", [model([]), fill(&message(8, []))].concat()),
        ("metadata", [model([]), fill(&message(14, []))].concat()),
        ("functions", [model([]), fill(&message(25, []))].concat()),
        ("function inputs", [model([]), message(25, fill(&message(4, [])))].concat()),
        ("graphs in pieces", [header(), fill(&message(7, []))].concat()),
        ("training information", [model([]), fill(&message(20, []))].concat()),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flood.onnx");
    let mut broken = Vec::new();
    for (what, bytes) in floods {
        std::fs::write(&path, bytes).unwrap();
        let start = Instant::now();
        let (loaded, peak) = peak_memory(|| load(&path));
        let outcome = loaded.map_or_else(|error| error.kind.to_string(), |_| "loads".to_owned());
        let ratio = peak as f64 / bytes.len() as f64;
        let report = format!("{what}: {ratio:.1}, {:?}: {outcome:.200}", start.elapsed());
        if peak >= allowance(bytes.len() as u64) || start.elapsed() >= TIME {
            broken.push(report);
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

fn node_with_reads(fill: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    message(1, [message(4, "A"), fill(&message(1, "x"))].concat())
}

/// A long name may stand in many places, but is not to be copied for each.
#[test]
fn long_names_do_not_multiply() {
    let name = "n".repeat(1 << 20);
    let nodes: Vec<u8> = (0..50_000)
        .flat_map(|index| message(1, [message(4, "A"), message(2, format!("{index}"))].concat()))
        .collect();
    let outputs: Vec<u8> =
        (0..50_000).flat_map(|index| message(12, message(1, format!("{index}")))).collect();
    let bytes = model([message(2, &name), nodes, outputs].concat());
    let start = Instant::now();
    let (model, peak) = peak_memory(|| modelopt_onnx::parse(bytes.into(), Path::new("made")));
    model.unwrap();
    assert!(peak < 256 << 20, "{peak}");
    assert!(start.elapsed() < TIME, "{:?}", start.elapsed());
}

/// Ten times the nodes take ten times the time, within reason.
#[test]
#[ignore = "takes long: cargo xtask test"]
fn time_is_linear_in_nodes() {
    let chain = |nodes: usize| {
        let mut graph = float_value(11, "v0");
        for index in 0..nodes {
            let reads = [message(1, format!("v{index}")), message(1, format!("w{index}"))].concat();
            let makes = message(2, format!("v{}", index + 1));
            let weight =
                [number(1, 8), number(2, 1), message(8, format!("w{index}")), message(9, [0; 32])];
            graph.extend(message(1, [reads, makes, message(4, "Add")].concat()));
            graph.extend(message(5, weight.concat()));
            graph.extend(float_value(13, &format!("v{}", index + 1)));
        }
        graph.extend(float_value(12, &format!("v{nodes}")));
        bytes::Bytes::from(model(graph))
    };
    let time = |bytes: &bytes::Bytes| {
        let start = Instant::now();
        let model = modelopt_onnx::parse(bytes.clone(), Path::new("made")).unwrap();
        assert!(to_bytes(&model).unwrap().len() >= bytes.len() / 2);
        start.elapsed().as_secs_f64()
    };
    let (small, large) = (chain(10_000), chain(100_000));
    // Other work on the machine can spoil a measurement; quadratic time would spoil all of them.
    let ratios: Vec<f64> = (0..5).map(|_| time(&large) / time(&small)).collect();
    assert!(ratios.iter().any(|&ratio| ratio < 20.0), "{ratios:?}");
}

/// Bytes that a piece of work has allocated at most, on this thread.
fn peak_memory<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, usize::try_from(PEAK.get() - before).unwrap())
}

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: isize) {
    // At the end of a thread there may be nothing left to count in.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        PEAK.try_with(|peak| peak.set(peak.get().max(live.get())))
    });
}

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - layout.size().cast_signed());
        unsafe { System.realloc(pointer, layout, size) }
    }
}
