//! `modelopt calibrate`: one run, shards, interruptions, and what is refused.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use xtask::testdata::{self, fixture, samples};

use crate::support::{Output, PROGRAM, files, finish, quiet, run_in, tempdir, with_onnxruntime};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(2);

fn number(field: u8, number: u8) -> [u8; 2] {
    [field << 3, number]
}

fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = [field << 3 | 2, length as u8 | 0x80, (length >> 7) as u8];
    [&head, content].concat()
}

/// A sample for `conv1d.onnx`: a folder with a serialized tensor `[1, 4, 64]` that begins with a number.
fn write_sample(samples: &Path, at: usize, first: f32) {
    let value = |place: usize| ((place * 37 + at * 101) % 199) as f32 / 100.0 - 1.0;
    let numbers = std::iter::once(first).chain((1..4 * 64).map(value));
    let raw: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
    let dims = [number(1, 1), number(1, 4), number(1, 64)].concat();
    let tensor = [dims, number(2, 1).to_vec(), bytes(8, b"x"), bytes(9, &raw)].concat();
    let folder = samples.join(format!("test_data_set_{at}"));
    fs_err::create_dir_all(&folder).unwrap();
    fs_err::write(folder.join("input_0.pb"), tensor).unwrap();
}

/// A folder with so many samples in `samples`.
fn prepared(count: usize) -> tempfile::TempDir {
    let folder = tempdir();
    for at in 0..count {
        write_sample(&folder.path().join("samples"), at, 0.5);
    }
    folder
}

fn model() -> PathBuf {
    fixture("graphs/conv1d.onnx")
}

fn arguments(output: &str, more: &[&str]) -> Vec<OsString> {
    let all = args!["calibrate", model(), "--samples", "samples", "-o", output].to_vec();
    all.into_iter().chain(more.iter().map(OsString::from)).collect()
}

fn calibrate(folder: &Path, output: &str, more: &[&str]) -> Output {
    run_in(folder, arguments(output, more))
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    fs_err::read(folder.join(name)).unwrap()
}

/// The tensor of a name in a document.
fn tensor<'a>(document: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let tensors = document["tensors"].as_array().unwrap();
    tensors.iter().find(|tensor| tensor["name"] == name).unwrap()
}

#[test]
fn what_was_seen_is_told_and_written() {
    let folder = prepared(3);
    let output = calibrate(folder.path(), "out.calibration", &[]).expect(0);
    assert!(output.stderr.is_empty(), "{}", output.stderr);
    let first = output.stdout.lines().next().unwrap();
    assert!(
        first.starts_with("out.calibration: ") && first.contains("3 samples, in tract"),
        "{first}"
    );
    for method in ["min-max", "percentile:99.99", "entropy", "mse", "moving"] {
        assert!(output.stdout.contains(&format!("  {method}")), "{}", output.stdout);
    }
    let document = calibrate(folder.path(), "again.calibration", &["--json"]).expect(0).json();
    assert_eq!(document["schema"], "modelopt.calibration/1");
    assert_eq!((&document["samples"], &document["samples_in_all"]), (&3.into(), &3.into()));
    let x = tensor(&document, "x");
    assert_eq!((&x["finite"], &x["infinite"]), (&(3 * 256).into(), &0.into()));
    assert_eq!(x["seen"], x["ranges"]["min-max"]);
    assert!(x["ranges"].as_object().unwrap().len() == 5, "{x}");
    assert!(read(folder.path(), "out.calibration") == read(folder.path(), "again.calibration"));
    // Neither progress nor anything temporary is left.
    let left = files(folder.path());
    assert_eq!(left.iter().filter(|file| !file.starts_with("samples")).count(), 2, "{left:?}");
}

#[test]
fn shards_merged_in_any_order_are_the_file_of_one_run() {
    let folder = prepared(5);
    let folder = folder.path();
    calibrate(folder, "whole", &[]).expect(0);
    for of in [2, 3] {
        let names: Vec<String> = (1..=of).map(|index| format!("part{index}of{of}")).collect();
        for (index, name) in names.iter().enumerate() {
            let output = calibrate(folder, name, &["--shard", &format!("{}/{of}", index + 1)]);
            assert!(output.expect(0).stdout.contains("of 5"), "{name}");
        }
        for turn in 0..of {
            let (mut order, mut more) = (names.clone(), vec![]);
            order.rotate_left(turn);
            more.extend(args!["calibrate", "-o", "merged", "--merge"]);
            more.extend(order.iter().map(OsString::from));
            let output = run_in(folder, more).expect(0);
            assert!(output.stdout.contains("seen on 5 samples, put together"), "{}", output.stdout);
            assert!(read(folder, "merged") == read(folder, "whole"), "{order:?}");
        }
    }
}

#[test]
fn what_cannot_be_merged_is_named() {
    let folder = prepared(4);
    let folder = folder.path();
    for (name, shard) in [("a", "1/2"), ("b", "2/2"), ("c", "2/3")] {
        calibrate(folder, name, &["--shard", shard]).expect(0);
    }
    let merge = |names: &[&str]| {
        let all = args!["calibrate", "-o", "merged", "--merge"].to_vec();
        let output = run_in(folder, all.into_iter().chain(names.iter().map(OsString::from)));
        assert!(!folder.join("merged").exists());
        output.expect(1).stderr
    };
    assert_snapshot!(merge(&["a", "b", "c"]), @"error: c cannot be merged with a: both saw sample 1");
    assert!(merge(&["a", "none"]).contains("`none`"));
    let old = fs_err::read_to_string(folder.join("b")).unwrap();
    fs_err::write(folder.join("old"), old.replace("version = 2", "version = 1")).unwrap();
    assert_snapshot!(merge(&["a", "old"]), @"error: old: it has version 1; this program reads version 2");
    let other = args![
        "calibrate",
        fixture("graphs/conv1d.onnx"),
        "--samples",
        "samples",
        "-o",
        "other",
        "--shard",
        "2/2"
    ];
    run_in(folder, other).expect(0);
    let foreign = fs_err::read_to_string(folder.join("other")).unwrap();
    let digest = foreign.lines().find(|line| line.starts_with("model = ")).unwrap();
    fs_err::write(folder.join("other"), foreign.replace(digest, "model = \"abc\"")).unwrap();
    let said = merge(&["a", "other"]);
    assert!(
        said.starts_with("error: other cannot be merged with a: one is of the model"),
        "{said}"
    );
}

/// The program, calibrating, with its progress kept after every sample.
fn start(folder: &Path) -> Child {
    let mut command = Command::new(PROGRAM);
    quiet(&mut command);
    command.args(arguments("out", &["--save-every", "0"])).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let begun = Instant::now();
    while !folder.join("out.partial").exists() {
        assert!(begun.elapsed() < PATIENCE, "no progress is kept");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

fn signal(child: &Child, signal: &str) {
    finish(Command::new("kill").args([signal, &child.id().to_string()])).expect(0);
}

/// Goes on, and holds the result against that of one run.
fn goes_on(folder: &Path) {
    assert!(!folder.join("out").exists() && folder.join("out.partial").exists());
    let document = calibrate(folder, "out", &["--resume", "--json"]).expect(0).json();
    assert_eq!(document["resumed"], true);
    assert!(!folder.join("out.partial").exists());
    calibrate(folder, "whole", &["-q"]).expect(0);
    assert!(read(folder, "out") == read(folder, "whole"));
}

#[cfg(unix)]
#[test]
fn a_killed_run_is_gone_on_with_to_the_same_file() {
    let folder = prepared(400);
    let mut child = start(folder.path());
    signal(&child, "-KILL");
    assert_eq!(child.wait().unwrap().code(), None);
    goes_on(folder.path());
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_progress_and_says_so() {
    let folder = prepared(400);
    let child = start(folder.path());
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_snapshot!(said, @"stopped; progress is kept in out.partial: --resume goes on from there");
    // Other samples are not gone on with.
    write_sample(&folder.path().join("samples"), 400, 0.5);
    let refused = calibrate(folder.path(), "out", &["--resume"]).expect(1);
    assert_snapshot!(refused.stderr, @"error: out.partial was begun with other samples, or another shard of them");
    fs_err::remove_dir_all(folder.path().join("samples/test_data_set_400")).unwrap();
    goes_on(folder.path());
}

#[test]
fn a_sample_that_is_no_use_is_named() {
    let folder = prepared(3);
    let samples = folder.path().join("samples");
    write_sample(&samples, 1, f32::NAN);
    let said = calibrate(folder.path(), "out", &[]).expect(1).stderr;
    assert_snapshot!(said, @"error: sample 'test_data_set_1': input 'x' has elements that are NaN");
    write_sample(&samples, 1, f32::INFINITY);
    fs_err::write(
        samples.join("test_data_set_2/input_0.pb"),
        [number(1, 9), number(2, 1)].concat(),
    )
    .unwrap();
    let said = calibrate(folder.path(), "out", &[]).expect(1).stderr;
    assert!(said.contains("test_data_set_2"), "{said}");
    let left = files(folder.path());
    assert!(left.iter().all(|file| file.starts_with("samples")), "{left:?}");
}

#[test]
fn wrong_use_is_told_before_work_begins() {
    let folder = prepared(1);
    let wrong = |arguments: Vec<OsString>, code: i32, words: &[&str]| {
        let output = run_in(folder.path(), arguments).expect(code);
        for word in words {
            assert!(output.stderr.contains(word), "{word} in {}", output.stderr);
        }
    };
    let model = model();
    wrong(args!["calibrate", &model, "-o", "out"].to_vec(), 2, &["--samples"]);
    wrong(args!["calibrate", "-o", "out"].to_vec(), 2, &["MODEL", "--samples"].map(|_| "required"));
    wrong(args!["calibrate", &model, "--merge", "a", "-o", "out"].to_vec(), 2, &["--merge"]);
    wrong(arguments("out", &["--shard", "3/2"]), 2, &["'3/2' is no shard", "2/8"]);
    wrong(arguments("-", &[]), 2, &["not stdout"]);
    wrong(arguments(model.to_str().unwrap(), &[]), 2, &["would overwrite"]);
    wrong(arguments("samples", &[]), 1, &["is a folder", "samples/model.calibration"]);
    wrong(arguments("none/out", &[]), 1, &["none does not exist"]);
    let missing = args!["calibrate", &model, "--samples", "nothing", "-o", "out"].to_vec();
    wrong(missing, 1, &["nothing"]);
}

/// A shell that finds the program.
fn shell(folder: &Path) -> Command {
    let mut path = vec![Path::new(PROGRAM).parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut command = Command::new("sh");
    command.current_dir(folder).env("PATH", std::env::join_paths(path).unwrap());
    command
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/calibration").join(name)
}

#[cfg(unix)]
#[test]
fn the_script_of_the_documentation_divides_and_merges() {
    let folder = prepared(7);
    let folder = folder.path();
    calibrate(folder, "whole", &["-q"]).expect(0);
    let script = args![docs("shards.sh"), model(), "samples", "out.calibration", "3"];
    let output = finish(shell(folder).args(script)).expect(0);
    assert!(output.stdout.contains("seen on 7 samples, put together"), "{}", output.stdout);
    assert!(read(folder, "out.calibration") == read(folder, "whole"));
    assert!(!folder.join("out.calibration.0").exists());
}

#[cfg(unix)]
#[test]
fn the_manifest_of_the_documentation_does_the_same() {
    let folder = prepared(9);
    let folder = folder.path();
    fs_err::copy(model(), folder.join("model.onnx")).unwrap();
    calibrate(folder, "whole", &["-q"]).expect(0);
    let manifest = fs_err::read_to_string(docs("job.yaml")).unwrap();
    // Folded lines of the scripts of both jobs.
    let scripts: Vec<String> = manifest
        .split("- >-\n")
        .skip(1)
        .map(|rest| {
            let lines = rest.lines().take_while(|line| line.starts_with("              "));
            lines.map(str::trim).collect::<Vec<_>>().join(" ")
        })
        .map(|script| script.replace("/data", &folder.display().to_string()))
        .collect();
    let [shard, merge] = scripts.as_slice() else { panic!("{scripts:?}") };
    for index in 0..8 {
        let mut command = shell(folder);
        command.env("JOB_COMPLETION_INDEX", index.to_string()).args(["-c", shard]);
        finish(&mut command).expect(0);
    }
    finish(shell(folder).args(["-c", merge])).expect(0);
    assert!(read(folder, "model.calibration") == read(folder, "whole"));
}

/// Runs a command to its end, and says how much memory it had at most, in kB.
#[cfg(target_os = "linux")]
fn peak_kb(mut command: Command) -> u64 {
    quiet(&mut command);
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let own = line.and_then(|line| line.trim_end_matches("kB").trim().parse().ok());
        peak = peak.max(own.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return peak;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder with these samples, so many times each.
#[cfg(target_os = "linux")]
fn repeated(real: &Path, times: usize, folder: &Path) {
    fs_err::create_dir(folder).unwrap();
    for (at, file) in files(real).into_iter().enumerate() {
        for time in 0..times {
            let link = folder.join(format!("s{}.npz", time * 100 + at));
            std::os::unix::fs::symlink(real.join(&file), link).unwrap();
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_real_detector_takes_the_same_memory_for_many_samples_and_is_one_file() {
    let folder = tempdir();
    let folder = folder.path();
    let real = samples("nudenet");
    let calibrate = |samples: &str, output: &str, more: &[&str]| {
        let mut command = with_onnxruntime(folder);
        let detector = testdata::model("nudenet");
        let rest = args!["calibrate", detector, "--samples", samples, "-o", output, "-q"];
        command.args(rest).args(["--runtime", "onnxruntime"]).args(more);
        command
    };
    repeated(&real, 1, &folder.join("few"));
    repeated(&real, 5, &folder.join("many"));
    let few = peak_kb(calibrate("few", "whole", &[]));
    let many = peak_kb(calibrate("many", "many.calibration", &["--save-every", "1"]));
    assert!(many < few + 50_000 && many < 200_000, "{few} kB and {many} kB");
    for (shard, name) in [("1/3", "a"), ("2/3", "b"), ("3/3", "c")] {
        finish(&mut calibrate("few", name, &["--shard", shard])).expect(0);
    }
    let merge = args!["calibrate", "-o", "merged", "-q", "--merge", "c", "a", "b"];
    run_in(folder, merge).expect(0);
    assert!(read(folder, "merged") == read(folder, "whole"));
}
