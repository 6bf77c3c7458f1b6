//! What people and programs read. Snapshots hold the texts; `cargo insta review` shows changes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Output, files, finish, run, run_in, tempdir};
use insta::assert_snapshot;
use tempfile::TempDir;
use xtask::testdata::fixture;

/// A folder with the digits classifier and pictures for it.
fn digits() -> TempDir {
    let folder = tempdir();
    for (from, to) in [("cnn.onnx", "cnn.onnx"), ("heldout.npz", "pictures.npz")] {
        fs_err::copy(fixture("digits").join(from), folder.path().join(to)).unwrap();
    }
    folder
}

fn quantized(folder: &Path) -> Output {
    run_in(
        folder,
        args![
            "quantize",
            "cnn.onnx",
            "-o",
            "small.onnx",
            "--min-weight-bytes",
            "1024",
            "--samples",
            "pictures.npz",
            "--no-latency"
        ],
    )
}

/// The text without what depends on the processor or on the versions of what modelopt is built on.
fn stable(text: &str) -> String {
    let mut stable = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_inclusive(' ').collect();
        for (index, word) in words.iter().enumerate() {
            let next = words[index + 1..].iter().find(|word| **word != " ");
            let is_decibels = next.is_some_and(|next| next.trim().trim_end_matches(',') == "dB");
            let is_limit = !word.contains('.') || index > 0 && words[index - 1] == "least ";
            // A limit that is advised is what was measured.
            if index > 0 && words[index - 1] == "--min-sqnr " {
                stable.extend(word.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }));
                continue;
            }
            let is_error = word.contains("e-") || word.contains("e0");
            let is_cosine = word.trim_end().split('.').nth(1).is_some_and(|part| part.len() == 6);
            let is_version = word.trim() == env!("CARGO_PKG_VERSION")
                || index > 0 && matches!(words[index - 1].trim(), "tract" | "rten");
            let is_number = word.trim_end().parse::<f64>().is_ok();
            if is_version || is_number && (is_decibels && !is_limit || is_error || is_cosine) {
                stable.extend(word.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }));
            } else {
                stable += word;
            }
        }
        stable.push('\n');
    }
    stable
}

#[test]
fn quantize_sums_up() {
    let folder = digits();
    assert_snapshot!(stable(&quantized(folder.path()).expect(0).stdout));
}

#[test]
fn quantize_explains() {
    let folder = digits();
    let arguments = args![
        "quantize",
        "cnn.onnx",
        "-o",
        "small.onnx",
        "--explain",
        "--exclude",
        "conv*",
        "--no-validate",
    ];
    assert_snapshot!(stable(&run_in(folder.path(), arguments).expect(0).stdout));
}

#[test]
fn quantize_refuses() {
    let folder = digits();
    let output = run_in(
        folder.path(),
        args![
            "quantize",
            "cnn.onnx",
            "-o",
            "small.onnx",
            "--samples",
            "pictures.npz",
            "--min-sqnr",
            "90",
            "--include",
            "dense2",
            "--min-weight-bytes",
            "0",
            "--no-latency"
        ],
    )
    .expect(3);
    assert_snapshot!(stable(&output.stdout));
    assert_eq!(output.stderr, "");
}

#[test]
fn quantize_finds_nothing_to_do() {
    let folder = digits();
    let arguments =
        args!["quantize", "cnn.onnx", "-o", "same.onnx", "--scheme", "keep", "--no-latency"];
    let output = run_in(folder.path(), arguments).expect(0);
    assert_snapshot!(format!("{}{}", output.stderr, stable(&output.stdout)));
}

#[test]
fn quantize_warns_of_invented_inputs() {
    let folder = digits();
    let output =
        run_in(folder.path(), args!["quantize", "cnn.onnx", "-o", "small.onnx", "--no-latency"])
            .expect(0);
    assert_snapshot!(format!("{}{}", output.stderr, stable(&output.stdout)));
}

#[test]
fn compare_sums_up() {
    let folder = digits();
    quantized(folder.path()).expect(0);
    let arguments =
        args!["compare", "cnn.onnx", "small.onnx", "--samples", "pictures.npz", "--no-latency"];
    assert_snapshot!("compare_passes", stable(&run_in(folder.path(), &arguments).expect(0).stdout));
    let strict = [&arguments[..], &args!["--min-sqnr", "90"]].concat();
    assert_snapshot!("compare_fails", stable(&run_in(folder.path(), strict).expect(3).stdout));
    let same = args!["compare", "cnn.onnx", "cnn.onnx", "--runtime", "rten", "--no-latency"];
    assert_snapshot!("compare_equal", stable(&run_in(folder.path(), same).expect(0).stdout));
}

#[test]
fn inspect_sums_up() {
    let folder = digits();
    assert_snapshot!(
        "inspect",
        run_in(folder.path(), args!["inspect", "cnn.onnx"]).expect(0).stdout
    );
    for name in ["metadata_rich", "if_nested", "ir7_overridable"] {
        let model = folder.path().join(format!("{name}.onnx"));
        fs_err::copy(fixture(format!("graphs/{name}.onnx")), &model).unwrap();
        let output = run_in(folder.path(), args!["inspect", format!("{name}.onnx")]).expect(0);
        assert_snapshot!(format!("inspect_{name}"), output.stdout);
    }
}

#[test]
fn plan_says_why() {
    let folder = digits();
    assert_snapshot!(run_in(folder.path(), args!["plan", "cnn.onnx"]).expect(0).stdout);
}

#[test]
fn saved_plans_can_be_read() {
    let folder = digits();
    run_in(folder.path(), args!["plan", "cnn.onnx", "--save", "plan.toml"]).expect(0);
    assert_snapshot!(fs_err::read_to_string(folder.path().join("plan.toml")).unwrap());
}

#[test]
fn reports_can_be_read() {
    let folder = digits();
    let arguments = args![
        "quantize",
        "cnn.onnx",
        "-o",
        "small.onnx",
        "--samples",
        "pictures.npz",
        "--report",
        "report",
        "--no-latency"
    ];
    run_in(folder.path(), arguments).expect(0);
    let read =
        |name: &str| fs_err::read_to_string(folder.path().join("report").join(name)).unwrap();
    let report: serde_json::Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!(report["schema"], "modelopt.report/1");
    assert!(read("report.md").starts_with('#'));
}

#[test]
fn every_command_helps() {
    let commands = [
        "",
        "quantize",
        "convert",
        "upgrade",
        "plan",
        "calibrate",
        "compare",
        "inspect",
        "completions",
        "man",
    ]
    .map(str::to_owned);
    for command in commands {
        let mut help = Command::new(crate::support::PROGRAM);
        help.args(command.split_whitespace()).arg("--help").env_remove("COLUMNS");
        let output = finish(&mut help).expect(0);
        let name = if command.is_empty() { "help".to_owned() } else { format!("help_{command}") };
        assert_snapshot!(name, output.stdout);
        assert_eq!(output.stderr, "");
    }
    let version = format!("modelopt {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(args!["--version"]).expect(0).stdout, version);
}

#[test]
fn json_documents_say_what_they_are() {
    let folder = digits();
    let refuse = args![
        "quantize",
        "cnn.onnx",
        "-o",
        "x.onnx",
        "--min-sqnr",
        "200",
        "--json",
        "--no-latency"
    ];
    let documents = [
        (
            "modelopt.report/1",
            0,
            args!["quantize", "cnn.onnx", "-o", "small.onnx", "--json", "--no-latency"].to_vec(),
        ),
        ("modelopt.report/1", 3, refuse.to_vec()),
        (
            "modelopt.report/1",
            0,
            args!["compare", "cnn.onnx", "small.onnx", "--json", "--no-latency"].to_vec(),
        ),
        ("modelopt.plan/1", 0, args!["plan", "cnn.onnx", "--json"].to_vec()),
        ("modelopt.inspect/1", 0, args!["inspect", "cnn.onnx", "--json"].to_vec()),
        ("modelopt.error/1", 1, args!["inspect", "absent.onnx", "--json"].to_vec()),
    ];
    for (schema, code, arguments) in documents {
        let document = run_in(folder.path(), &arguments).expect(code).json();
        assert_eq!(document["schema"], schema, "{arguments:?}");
    }
}

/// Progress is for people who wait, and neither for logs nor for pipes.
#[test]
fn nothing_is_on_stderr_that_is_no_terminal() {
    let folder = digits();
    let output = quantized(folder.path()).expect(0);
    assert_eq!(output.stderr, "");
    assert!(!output.stdout.contains('\u{1b}'), "{:?}", output.stdout);
    let arguments =
        args!["compare", "cnn.onnx", "small.onnx", "--samples", "pictures.npz", "--no-latency"];
    assert_eq!(run_in(folder.path(), arguments).expect(0).stderr, "");
}

#[test]
fn quiet_is_quiet() {
    let folder = digits();
    let commands = [
        args![
            "quantize",
            "cnn.onnx",
            "-o",
            "small.onnx",
            "--samples",
            "pictures.npz",
            "--no-latency"
        ]
        .to_vec(),
        args!["compare", "cnn.onnx", "small.onnx", "--no-latency"].to_vec(),
        args!["plan", "cnn.onnx"].to_vec(),
        args!["inspect", "cnn.onnx"].to_vec(),
    ];
    for mut arguments in commands {
        arguments.push("--quiet".into());
        let output = run_in(folder.path(), &arguments).expect(0);
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""), "{arguments:?}");
    }
}

#[test]
fn models_go_through_pipes() {
    let folder = digits();
    // The same plan gives the same bytes, proven or not.
    let [expected, unproven] = ["--no-latency", "--no-validate"].map(|how| {
        let arguments = args!["quantize", "cnn.onnx", "-o", "small.onnx", how];
        run_in(folder.path(), arguments).expect(0);
        fs_err::read(folder.path().join("small.onnx")).unwrap()
    });
    assert!(expected == unproven);

    let pipe = |arguments: &[&str]| {
        let model = fs_err::File::open(folder.path().join("cnn.onnx")).unwrap();
        let mut command = Command::new(crate::support::PROGRAM);
        command.args(arguments).current_dir(folder.path()).stdin(Stdio::from(model.into_file()));
        command.output().unwrap()
    };
    let output = pipe(&["quantize", "-", "-o", "-"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == expected, "the pipe gives {} bytes", output.stdout.len());
    // What would have been on stdout is on stderr.
    assert!(String::from_utf8_lossy(&output.stderr).contains("passed"));

    let output = pipe(&["quantize", "-", "-o", "piped.onnx", "--no-validate", "-q"]);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    assert!(fs_err::read(folder.path().join("piped.onnx")).unwrap() == expected);

    let output = pipe(&["inspect", "-"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("3 Conv"));
}

/// A reader that has seen enough is no error.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    let folder = digits();
    let commands: [&[&str]; 4] = [
        &["inspect", "cnn.onnx"],
        &["plan", "cnn.onnx", "--json"],
        &["completions", "zsh"],
        &["quantize", "cnn.onnx", "-o", "-", "--no-validate"],
    ];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(crate::support::PROGRAM)
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("error"), "{arguments:?}: {stderr}");
    }
}

/// The schemes in a model's plan.
fn schemes(folder: &Path, more: &[&str]) -> Vec<String> {
    let arguments = ["plan", "cnn.onnx", "--json"].iter().chain(more);
    let plan = run_in(folder, arguments).expect(0).json();
    let layers = plan["plan"]["layer"].as_array().unwrap().clone();
    layers.iter().map(|layer| layer["scheme"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_settings_file_is_honoured_and_flags_win() {
    let folder = digits();
    let count =
        |schemes: &[String], scheme: &str| schemes.iter().filter(|other| *other == scheme).count();
    let plain = schemes(folder.path(), &[]);
    assert!(count(&plain, "int8-dynamic") > 0);

    let settings = "scheme = \"int8-weights\"\nmin-weight-bytes = 256\nexclude = [\"dense2\"]\n\n\
                    [gate]\nmin-sqnr-db = 200.0\n";
    fs_err::write(folder.path().join("modelopt.toml"), settings).unwrap();
    let configured = schemes(folder.path(), &[]);
    assert_eq!(count(&configured, "int8-dynamic"), 0);
    assert_eq!(count(&configured, "int8-weights"), 4);
    assert_eq!(count(&configured, "keep"), 1);

    let flags = ["--scheme", "int8-dynamic", "--exclude", "dense1", "--min-weight-bytes", "1024"];
    let overridden = schemes(folder.path(), &flags);
    assert_eq!(count(&overridden, "int8-dynamic"), 1);
    assert_eq!(count(&overridden, "keep"), 2);

    let quantize = args!["quantize", "cnn.onnx", "-o", "small.onnx", "--no-latency"];
    run_in(folder.path(), &quantize).expect(3);
    run_in(folder.path(), [&quantize[..], &args!["--min-sqnr", "20"]].concat()).expect(0);

    // Another file, by name; and the defaults, where there is none.
    fs_err::rename(folder.path().join("modelopt.toml"), folder.path().join("other.toml")).unwrap();
    assert_eq!(schemes(folder.path(), &["--config", "other.toml"]), configured);
    assert_eq!(schemes(folder.path(), &[]), plain);
}

#[test]
fn a_wrong_settings_file_is_an_error_that_names_it() {
    let folder = digits();
    fs_err::write(folder.path().join("modelopt.toml"), "sheme = \"keep\"\n").unwrap();
    let output = run_in(folder.path(), args!["plan", "cnn.onnx"]).expect(1);
    assert_snapshot!(output.stderr);
}

#[test]
fn completions_are_generated() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(args!["completions", shell]).expect(0).stdout;
        for word in ["modelopt", "quantize", "min-sqnr"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn man_pages_are_generated() {
    let folder = tempdir();
    run_in(folder.path(), args!["man", "pages"]).expect(0);
    let pages = folder.path().join("pages");
    let mut names = String::new();
    for page in files(&pages) {
        writeln!(names, "{}", page.display()).unwrap();
        let text = fs_err::read_to_string(pages.join(&page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{}", page.display());
    }
    assert_snapshot!(names);
}
