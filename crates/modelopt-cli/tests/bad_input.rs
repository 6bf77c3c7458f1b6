//! Files and arguments that mean harm or make no sense. Whatever they hold, the program ends by
//! itself, soon, in little memory, and says what is wrong and where.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Output, PROGRAM, files, finish, run_in, tempdir};
use xtask::parallel::parallel;
use xtask::testdata::fixture;

/// Address space for loading and rewriting, in kB.
const MEMORY: u32 = 1_000_000;

/// Address space where runtimes run as well, in kB.
const MEMORY_TO_RUN: u32 = 4_000_000;

/// Processor time.
const TIME: Duration = Duration::from_secs(20);

/// On the clock, with whatever else the machine has to do.
const PATIENCE: Duration = Duration::from_mins(3);

/// Files that the README of the attacks calls errors, but that only look like one to those who
/// follow the calls: other calls are left as they are.
const LEFT_AS_THEY_ARE: [&str; 2] = ["recursion_function.onnx", "recursion_mutual.onnx"];

/// Runs the program with bounds on address space and processor time; beyond them it fails.
fn bounded(folder: &Path, memory: u32, arguments: &[OsString]) -> Output {
    let mut command = if cfg!(target_os = "linux") {
        let mut shell = Command::new("sh");
        let limits =
            format!("ulimit -v {memory}; ulimit -t {}; exec \"$0\" \"$@\"", TIME.as_secs());
        shell.args(args!["-c", limits, PROGRAM]);
        shell
    } else {
        Command::new(PROGRAM)
    };
    // Every thread takes address space for its stack and its share of the heap: on many cores more
    // than there is.
    command.env("RAYON_NUM_THREADS", "2").env("MALLOC_ARENA_MAX", "2");
    finish(command.args(arguments).current_dir(folder))
}

/// What the README of the attacks says of each file, `error` for instance.
fn attacks() -> Vec<(String, String)> {
    let readme = fs_err::read_to_string(fixture("attacks/README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    let listed: Vec<(String, String)> = rows
        .flat_map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let files = cells[1].split(", ").map(|name| name.trim_matches('`').to_owned());
            files.map(move |name| (name, cells[2].to_owned())).collect::<Vec<_>>()
        })
        .collect();
    let is_model = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "onnx");
    let there = files(&fixture("attacks"));
    assert_eq!(listed.len(), there.iter().filter(is_model).count());
    listed
}

/// Runs every command that reads one model on a file, and checks that it ends in order: with
/// code 1 where `is_error` says so.
fn check_commands(input: &Path, is_error: Option<bool>) {
    let folder = tempdir();
    let commands = [
        args!["quantize", input, "-o", "out.onnx", "--no-validate"].to_vec(),
        args!["quantize", input, "-o", "out.onnx", "--no-validate", "--min-weight-bytes", "0"]
            .to_vec(),
        args!["plan", input, "--scheme", "int8-weights"].to_vec(),
        args!["inspect", input, "--json"].to_vec(),
        args!["compare", fixture("graphs/conv1d.onnx"), input].to_vec(),
    ];
    for arguments in &commands {
        let is_compare = arguments[0] == "compare";
        let memory = if is_compare { MEMORY_TO_RUN } else { MEMORY };
        let output = bounded(folder.path(), memory, arguments);
        let label = format!("{arguments:?}: {output:?}");
        assert!(output.is_orderly() && output.took < PATIENCE, "{label}");
        if is_compare {
            // Other inputs, or nothing that runs: an error or a bad verdict in any case.
            assert!(matches!(output.code, Some(1 | 3)), "{label}");
        } else {
            assert!(matches!(output.code, Some(0 | 1)), "{label}");
            if let Some(is_error) = is_error {
                assert_eq!(output.code == Some(1), is_error, "{label}");
            }
        }
        if output.code == Some(1) && (!is_compare || is_error == Some(true)) {
            check_message(&output, input);
        }
        let wrote = files(folder.path());
        let should = arguments[0] == "quantize" && output.code == Some(0);
        assert_eq!(wrote.is_empty(), !should, "{label}: {wrote:?}");
        for file in wrote {
            fs_err::remove_file(folder.path().join(file)).unwrap();
        }
    }
}

/// Checks that the message names the file first, then what is wrong, once, and in few words.
#[track_caller]
fn check_message(output: &Output, input: &Path) {
    let message = output.stderr.lines().find_map(|line| line.strip_prefix("error: "));
    let message = message.unwrap_or_else(|| panic!("no message: {output:?}"));
    let what = message.strip_prefix(&format!("{}: ", input.display()));
    let what = what.unwrap_or_else(|| panic!("another file: {message}"));
    assert!(!what.is_empty() && what.len() < 1000, "{message}");
    let mut parts: Vec<&str> = what.split(": ").collect();
    parts.sort_unstable();
    assert!(parts.windows(2).all(|pair| pair[0] != pair[1]), "said twice: {message}");
    assert!(!output.stderr.chars().any(|c| c.is_control() && c != '\n'), "{:?}", output.stderr);
}

#[test]
#[ignore = "takes long: cargo xtask test"]
fn every_attack_ends_in_order() {
    parallel(&attacks(), |(name, expected)| {
        let expected = match expected.as_str() {
            "error" => Some(!LEFT_AS_THEY_ARE.contains(&name.as_str())),
            "fine" | "bounded" => Some(false),
            "no panic" => None,
            other => panic!("{name}: {other}"),
        };
        check_commands(&fixture("attacks").join(name), expected);
    });
}

#[test]
#[ignore = "takes long: cargo xtask test"]
fn what_loads_may_be_tried_to_run() {
    let folder = tempdir();
    let loads: Vec<_> = attacks().into_iter().filter(|(_, expected)| expected != "error").collect();
    parallel(&loads, |(name, _)| {
        for runtime in ["auto", "tract", "rten"] {
            let out = folder.path().join(format!("{name}.{runtime}"));
            let arguments = args![
                "quantize",
                fixture("attacks").join(name),
                "-o",
                out,
                "--runtime",
                runtime,
                "--min-weight-bytes",
                "1024",
            ];
            let output = bounded(folder.path(), MEMORY_TO_RUN, &arguments);
            assert!(
                output.is_orderly() && output.took < PATIENCE,
                "{name} in {runtime}: {output:?}"
            );
            assert_eq!(out.exists(), output.code == Some(0), "{name} in {runtime}: {output:?}");
        }
    });
}

#[test]
fn bombs_are_refused_before_they_run() {
    let folder = tempdir();
    for (name, what) in [
        ("fold_constant_of_shape", "makes float[1048576, 1048576]"),
        ("fold_range", "makes 999999995904 numbers"),
        ("fold_concat", "makes float["),
        ("fold_loop", "takes 4611686018427387904 turns"),
    ] {
        let model = fixture(format!("attacks/{name}.onnx"));
        let quantize =
            args!["quantize", model, "-o", "out.onnx", "--min-weight-bytes", "0"].to_vec();
        let compare = args!["compare", model, model].to_vec();
        for arguments in [quantize, compare] {
            let output = bounded(folder.path(), MEMORY_TO_RUN, &arguments).expect(1);
            assert!(output.stderr.contains("the model cannot be run here"), "{}", output.stderr);
            assert!(output.stderr.contains(what), "{}", output.stderr);
        }
        // Without proof, on demand.
        let judge =
            args!["quantize", model, "-o", "out.onnx", "--min-weight-bytes", "0", "--no-gate"];
        let output = bounded(folder.path(), MEMORY_TO_RUN, &judge).expect(0);
        assert!(output.stderr.contains("emitted without proof"), "{}", output.stderr);
    }
}

#[test]
fn inputs_of_any_size_are_not_invented() {
    let folder = tempdir();
    let model = fixture("graphs/conv1d.onnx");
    let arguments = args!["quantize", model, "-o", "out.onnx", "--dim", "n=1000000000000"];
    let output = bounded(folder.path(), MEMORY_TO_RUN, &arguments).expect(1);
    assert!(output.stderr.contains("too large"), "{}", output.stderr);
    assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
}

#[test]
fn what_is_no_file() {
    let folder = tempdir();
    check_commands(&folder.path().join("missing.onnx"), Some(true));
    check_commands(folder.path(), Some(true));
}

#[test]
fn files_that_are_too_large_to_keep() {
    let folder = tempdir();
    let check = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        check_commands(&path, Some(true));
    };
    check("groups.onnx", &[0xa3, 0x06].repeat(5_000_000));
    check("nodes.onnx", &message(7, &[0x0a, 0x00].repeat(5_000_000)));
    check("nested.onnx", &nested(10_000));
    check("long.onnx", &[&[0x3a, 0x80, 0x80, 0x80, 0x80, 0x08][..], &[0; 1000]].concat());
}

/// A protobuf field with content.
fn message(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    let mut length = content.len();
    while length > 127 {
        bytes.push(length as u8 | 128);
        length >>= 7;
    }
    bytes.push(length as u8);
    [&bytes, content].concat()
}

/// A model of graphs nested in attributes of nodes.
fn nested(levels: usize) -> Vec<u8> {
    let mut graph = Vec::new();
    for _ in 0..levels {
        let attribute = message(5, &message(6, &graph));
        graph = message(1, &[message(4, b"If"), attribute].concat());
    }
    let opset = message(8, &[0x10, 17]);
    [&[0x08, 8], &opset[..], &message(7, &graph)].concat()
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_not_followed() {
    let root = tempdir();
    let folder = root.path().join("model");
    fs_err::create_dir(&folder).unwrap();
    fs_err::write(root.path().join("secret"), [0; 4096]).unwrap();
    let model = folder.join("external_symlink.onnx");
    fs_err::copy(fixture("attacks/external_symlink.onnx"), &model).unwrap();
    std::os::unix::fs::symlink("../secret", folder.join("link.bin")).unwrap();
    check_commands(&model, Some(true));
}

#[test]
fn names_cannot_command_the_terminal() {
    let folder = tempdir();
    for command in ["plan", "inspect"] {
        let arguments = args![command, fixture("graphs/odd_names.onnx")];
        let output = run_in(folder.path(), arguments).expect(0);
        assert!(!output.stdout.chars().any(|c| c.is_control() && c != '\n'), "{:?}", output.stdout);
    }
}

#[test]
fn folders_that_cannot_be_written() {
    let folder = tempdir();
    let model = fixture("graphs/conv1d.onnx");
    fs_err::write(folder.path().join("file"), "").unwrap();
    for output in ["missing/out.onnx", "file/out.onnx", "."] {
        let done = run_in(folder.path(), args!["quantize", model, "-o", output, "--no-validate"])
            .expect(1);
        assert!(done.stderr.starts_with("error: "), "{}", done.stderr);
        assert!(done.stderr.contains(output), "{}", done.stderr);
        assert_eq!(files(folder.path()), [PathBuf::from("file")]);
    }
}

#[test]
fn arguments_that_contradict_each_other_or_make_no_sense() {
    let folder = tempdir();
    for name in ["model.onnx", "plan.toml", "x.npz"] {
        fs_err::copy(fixture("graphs/conv1d.onnx"), folder.path().join(name)).unwrap();
    }
    let before = files(folder.path());
    for (arguments, parts) in [
        ("quantize model.onnx", &["--output"][..]),
        ("quantize -o o.onnx", &["<INPUT>"]),
        ("quantize model.onnx -o o.onnx --no-gate --no-validate", &["--no-gate", "--no-validate"]),
        (
            "quantize model.onnx -o o.onnx --no-validate --threads 2",
            &["--no-validate", "--threads"],
        ),
        (
            "quantize model.onnx -o o.onnx --no-validate --samples x.npz",
            &["--no-validate", "--samples"],
        ),
        ("quantize model.onnx -o o.onnx --no-validate --dim n=1", &["--no-validate", "--dim"]),
        ("quantize model.onnx -o o.onnx --no-validate --input x=1", &["--no-validate", "--input"]),
        ("quantize model.onnx -o o.onnx --no-validate --seed 1", &["--no-validate", "--seed"]),
        (
            "quantize model.onnx -o o.onnx --no-validate --min-sqnr 3",
            &["--no-validate", "--min-sqnr"],
        ),
        (
            "quantize model.onnx -o o.onnx --no-validate --min-top1 1",
            &["--no-validate", "--min-top1"],
        ),
        (
            "quantize model.onnx -o o.onnx --no-validate --min-shrink 1",
            &["--no-validate", "--min-shrink"],
        ),
        (
            "quantize model.onnx -o o.onnx --no-validate --max-abs-error 1",
            &["--no-validate", "--max-abs-error"],
        ),
        ("quantize model.onnx -o o.onnx --samples x.npz --dim n=1", &["--samples", "--dim"]),
        ("quantize model.onnx -o o.onnx --samples x.npz --input x=1", &["--samples", "--input"]),
        ("quantize model.onnx -o o.onnx --samples x.npz --seed 1", &["--samples", "--seed"]),
        (
            "quantize model.onnx -o o.onnx --samples x.npz --sample-count 1",
            &["--samples", "--sample-count"],
        ),
        ("quantize model.onnx -o o.onnx --plan plan.toml --scheme keep", &["--plan", "--scheme"]),
        ("quantize model.onnx -o o.onnx --plan plan.toml --include a", &["--plan", "--include"]),
        ("quantize model.onnx -o o.onnx --plan plan.toml --exclude a", &["--plan", "--exclude"]),
        (
            "quantize model.onnx -o o.onnx --plan plan.toml --reduce-range",
            &["--plan", "--reduce-range"],
        ),
        (
            "quantize model.onnx -o o.onnx --plan plan.toml --granularity per-tensor",
            &["--plan", "--granularity"],
        ),
        (
            "plan model.onnx --plan plan.toml --min-weight-bytes 1",
            &["--plan", "--min-weight-bytes"],
        ),
        ("quantize model.onnx -o - --json", &["--json", "-o -"]),
        ("quantize model.onnx -o - --external-data", &["external data", "stdout"]),
        ("quantize model.onnx -o o.onnx --save-plan o.onnx", &["overwrite", "o.onnx"]),
        ("quantize model.onnx -o o.onnx --save-plan model.onnx", &["overwrite", "model.onnx"]),
        ("plan model.onnx --save model.onnx", &["overwrite", "model.onnx"]),
        ("quantize model.onnx -o o.onnx --scheme int5", &["int5", "int8-weights"]),
        ("quantize model.onnx -o o.onnx --skip-rewrite nothing", &["nothing", "batchnorm"]),
        ("quantize model.onnx -o o.onnx --dim n", &["'n'", "NAME=SIZE"]),
        ("quantize model.onnx -o o.onnx --dim n=many", &["many"]),
        ("quantize model.onnx -o o.onnx --input x", &["'x'", "NAME=VALUE"]),
        ("quantize model.onnx -o o.onnx --sample-count 0", &["--sample-count", "from 1"]),
        (
            "quantize model.onnx -o o.onnx --sample-count 100000000000",
            &["--sample-count", "to 10000"],
        ),
        ("quantize model.onnx -o o.onnx --min-top1 7", &["--min-top1", "from 0 to 1"]),
        ("quantize model.onnx -o o.onnx --min-sqnr nan", &["--min-sqnr", "number"]),
        ("quantize model.onnx -o o.onnx --min-weight-bytes=-1", &["--min-weight-bytes", "-1"]),
        ("quantize model.onnx -o o.onnx --runtime onnx", &["onnx", "tract", "rten"]),
        ("compare model.onnx", &["<CANDIDATE>"]),
        ("optimise model.onnx", &["optimise"]),
        ("", &["Usage"]),
    ] {
        let output = run_in(folder.path(), arguments.split_whitespace()).expect(2);
        for part in parts {
            assert!(output.stderr.contains(part), "{arguments}: no {part} in {}", output.stderr);
        }
        // Programs that asked for JSON get the message there as well.
        assert_eq!(output.stdout.is_empty(), !arguments.contains("--json"), "{arguments}");
        assert_eq!(files(folder.path()), before, "{arguments}");
    }
}

#[test]
fn arguments_that_do_not_fit_the_model() {
    let folder = tempdir();
    let model = fixture("graphs/conv1d.onnx");
    for (more, parts) in [
        (&["--exclude", "nothing"][..], &["'nothing'", "modelopt plan"][..]),
        (&["--include", "["], &["'['", "modelopt plan"]),
        (&["--dim", "nothing=1"], &["'nothing'", "'n'"]),
        (&["--input", "nothing=1"], &["'nothing'", "'x'"]),
        (&["--input", "x=1,2"], &["2 values for shape [", "hint: ", "--dim"]),
        (&["--samples", "nothing.npz"], &["nothing.npz"]),
        (&["--plan", "nothing.toml"], &["nothing.toml"]),
        (&["--config", "nothing.toml"], &["nothing.toml"]),
    ] {
        let arguments = args!["quantize", model, "-o", "o.onnx"].to_vec();
        let more = more.iter().map(OsString::from);
        let output = run_in(folder.path(), arguments.into_iter().chain(more)).expect(1);
        for part in parts {
            assert!(output.stderr.contains(part), "no {part} in {}", output.stderr);
        }
        assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
    }
}
