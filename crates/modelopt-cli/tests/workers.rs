//! Workers that die, hang or run out of memory, folders that are full, and what is left behind.
#![cfg(target_os = "linux")]

#[macro_use]
mod support;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelopt::graph::{
    DataType, Dim, Model, ModelInfo, NewNode, Operator, OpsetImport, Origin, Place, Tensor, Type,
    ValueInfo,
};
use modelopt::onnx::{SaveOptions, Staged};
use modelopt::runtime::worker::WorkerPool;
use modelopt::runtime::{
    FailureKind, Outputs, Rounds, Runtime, RuntimeError, Session, SessionOptions, Timed,
    load_samples, time_in_turn,
};
use support::{PROGRAM, files, finish, quiet, run_in, tempdir};
use xtask::testdata::{fixture, model, samples};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(2);

/// Workers that are told from those of other tests by a variable in their environment.
fn pool(tag: &str, patience: Duration) -> WorkerPool {
    let arguments = [&format!("WORKER_OF={tag}"), PROGRAM, "worker"].map(str::to_owned);
    WorkerPool::new("/usr/bin/env".into(), arguments.to_vec(), patience)
}

/// The workers of a test that are there.
fn workers(tag: &str) -> Vec<u32> {
    let mark = format!("WORKER_OF={tag}").into_bytes();
    let is_marked = |id: &u32| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == mark)
    };
    workers_of(std::process::id()).into_iter().filter(is_marked).collect()
}

fn rten(pool: &WorkerPool) -> Box<dyn Runtime> {
    pool.runtime("rten".parse().unwrap(), None).unwrap()
}

fn prepare(runtime: &dyn Runtime, model: &Path) -> Box<dyn Session> {
    runtime.prepare(model, &SessionOptions::default()).unwrap()
}

/// A model that makes as many numbers as its input says, and adds up a few.
fn spender(folder: &Path) -> PathBuf {
    let import = OpsetImport { domain: String::new(), version: 13, origin: Origin::NONE };
    let mut model =
        Model::new(ModelInfo { ir_version: 7, opsets: vec![import], ..ModelInfo::default() });
    let main = model.main();
    let ty = |elem| Some(Type::Tensor { elem, shape: Some(vec![Dim::Fixed(1)]) }.into());
    let names = ["n", "numbers", "y"];
    let [n, numbers, y] = names.map(|name| model.add_value(name));
    model.add_input(main, ValueInfo { value: n, ty: ty(DataType::INT64), origin: Origin::NONE });
    for (op, input, output) in [("ConstantOfShape", n, numbers), ("ReduceMax", numbers, y)] {
        let node = NewNode {
            name: op.to_owned(),
            op: Operator::onnx(op),
            inputs: vec![Some(input)],
            outputs: vec![Some(output)],
            attributes: Vec::new(),
            origin: Origin::NONE,
        };
        model.insert(node, Place::Back(main));
    }
    model.add_output(main, ValueInfo { value: y, ty: ty(DataType::FLOAT), origin: Origin::NONE });
    let path = folder.join("spender.onnx");
    Staged::write(&model, &path, SaveOptions::default()).unwrap().commit().unwrap();
    path
}

fn count(n: i64) -> Outputs {
    [("n".to_owned(), Tensor::of(vec![1], &[n]).unwrap())].into()
}

/// Those whose parent is this process and that run `modelopt worker`.
fn workers_of(parent: u32) -> Vec<u32> {
    let processes = fs_err::read_dir("/proc").unwrap();
    let ids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    ids.filter(|&id: &u32| is_worker(id) && parent_of(id) == Some(parent)).collect()
}

fn parent_of(id: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

fn is_worker(id: u32) -> bool {
    let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    line.ends_with(b"\0worker\0")
}

fn signal(name: &str, ids: &[u32]) {
    let ids = ids.iter().map(u32::to_string);
    // One that is gone by now is no failure.
    let _ = Command::new("kill").arg(format!("-{name}")).args(ids).stderr(Stdio::null()).status();
}

fn start(folder: &Path, arguments: &[OsString]) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(folder);
    quiet(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until something is so.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn outputs_and_errors_are_those_of_the_runtime_itself() {
    let pool = pool("same", PATIENCE);
    let cnn = fixture("digits/cnn.onnx");
    let sample = load_samples(&fixture("digits/heldout.npz"), &["image".into()]).unwrap().remove(0);
    for name in ["tract", "rten"] {
        let here = modelopt::runtime::runtime(name.parse().unwrap(), None).unwrap();
        let there = pool.runtime(name.parse().unwrap(), None).unwrap();
        assert_eq!((here.name(), here.version()), (there.name(), there.version()));
        let (mut ours, mut theirs) = (prepare(&*here, &cnn), prepare(&*there, &cnn));
        let outputs = theirs.run(&sample.inputs).unwrap();
        assert_eq!(ours.run(&sample.inputs).unwrap(), outputs);
        let told = |error: RuntimeError| (error.kind(), error.to_string());
        let nothing = Outputs::new();
        assert_eq!(told(theirs.run(&nothing).unwrap_err()), told(ours.run(&nothing).unwrap_err()));
        let options = SessionOptions::default();
        let missing = Path::new("nowhere.onnx");
        let refused =
            |runtime: &dyn Runtime| told(runtime.prepare(missing, &options).err().unwrap());
        assert_eq!(refused(&*there), refused(&*here));
    }
}

#[test]
fn a_worker_that_is_killed_in_a_run_fails_that_run_alone() {
    let folder = tempdir();
    let runtime = rten(&pool("killed", PATIENCE));
    let spender = spender(folder.path());
    let (mut slow, mut other) = (prepare(&*runtime, &spender), prepare(&*runtime, &spender));
    let ids = workers("killed");
    assert_eq!(ids.len(), 2);
    let error = std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            // Again and again, so that it is in a run when it is killed.
            loop {
                if let Err(error) = slow.run(&count(1 << 22)) {
                    return error;
                }
            }
        });
        wait_until("busy", || ids.iter().any(|&id| time_of(id) > 20));
        let busy = ids.iter().copied().max_by_key(|&id| time_of(id)).unwrap();
        signal("KILL", &[busy]);
        run.join().unwrap()
    });
    assert_eq!(error.kind(), FailureKind::Crashed);
    assert!(error.to_string().contains("SIGKILL"), "{error}");
    assert_eq!(other.run(&count(3)).unwrap(), slow.run(&count(3)).unwrap());
}

/// Time on the processor, in ticks.
fn time_of(id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut times = fields.split_whitespace().skip(11).take(2);
    let mut next = || times.next().and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    next() + next()
}

#[test]
fn one_that_hangs_is_ended_and_replaced() {
    let folder = tempdir();
    // Long enough for a worker to start on a machine that has other things to do.
    let pool = pool("hangs", Duration::from_secs(15));
    let mut session = prepare(&*rten(&pool), &spender(folder.path()));
    let before = workers("hangs");
    signal("STOP", &before);
    let error = session.run(&count(3)).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Crashed);
    assert!(error.to_string().contains("not done after 15 s"), "{error}");
    assert!(session.run(&count(3)).is_ok());
    let after = workers("hangs");
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
}

#[test]
fn sessions_of_one_worker_are_timed_in_it_and_in_turn() {
    let folder = tempdir();
    let runtime = rten(&pool("timed", PATIENCE));
    let spender = spender(folder.path());
    let mut first = prepare(&*runtime, &spender);
    let options = SessionOptions::default();
    let mut second = runtime.prepare_beside(&*first, &spender, &options).unwrap();
    let mut elsewhere = prepare(&*runtime, &spender);
    let (small, large) = (count(1 << 10), count(1 << 22));
    for other in [&mut second, &mut elsewhere] {
        let mut sessions = [
            Timed { session: first.as_mut(), inputs: &small },
            Timed { session: other.as_mut(), inputs: &large },
        ];
        let times = time_in_turn(&mut sessions, &Rounds::exactly(7)).unwrap();
        assert_eq!(times.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7]);
        // Each has its own inputs, and no time of the way to the worker.
        let fastest = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(fastest(&times[0]) * 4.0 < fastest(&times[1]), "{times:?}");
    }
}

#[test]
fn a_model_that_takes_all_memory_does_not_take_the_program() {
    let folder = tempdir();
    let spender = spender(folder.path());
    let arguments = args![
        "compare",
        spender,
        spender,
        "--runtime",
        "rten",
        "--input",
        "n=2000000000",
        "--no-latency",
    ];
    let mut shell = Command::new("sh");
    shell.args(args!["-c", "ulimit -v 4000000; exec \"$0\" \"$@\"", PROGRAM]).args(arguments);
    let output = finish(shell.current_dir(folder.path())).expect(1);
    assert!(output.is_orderly(), "{output:?}");
    assert!(output.stderr.contains("rten does not survive"), "{}", output.stderr);
    assert!(output.stderr.contains("after 'memory allocation of "), "{}", output.stderr);
}

#[test]
fn workers_that_are_killed_in_a_search_do_not_end_it() {
    let folder = tempdir();
    let (cnn, samples) = (fixture("digits/cnn.onnx"), fixture("digits/heldout.npz"));
    let arguments = args![
        "quantize",
        cnn,
        "-o",
        "out.onnx",
        "--samples",
        samples,
        "--runtime",
        "rten",
        "--no-latency",
        "--min-sqnr",
        "45",
        "--min-weight-bytes",
        "256",
        "--json",
    ];
    let took = run_in(folder.path(), &arguments).took;
    let (mut failed, mut ended) = (0, 0);
    for part in 2..8 {
        let child = Command::new(PROGRAM)
            .args(&arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(took.mul_f64(f64::from(part) / 8.0));
        signal("KILL", &workers_of(child.id()));
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0 | 3) => {
                let report = String::from_utf8_lossy(&output.stdout).into_owned();
                failed += usize::from(report.contains("SIGKILL"));
                ended += 1;
            }
            // The original itself was being run.
            Some(1) => assert!(said.contains("SIGKILL"), "{said}"),
            code => panic!("{code:?}: {said}"),
        }
    }
    println!("{ended} of 6 searches went on, {failed} with a trial that failed");
    assert!(ended > 0);
}

#[test]
fn a_worker_program_that_cannot_be_started_is_an_error_of_the_machine() {
    let pool = WorkerPool::new("/nowhere/modelopt".into(), Vec::new(), PATIENCE);
    let runtime = rten(&pool);
    let error = runtime.prepare(&fixture("digits/mlp.onnx"), &SessionOptions::default());
    let error = error.err().unwrap();
    assert_eq!(error.kind(), FailureKind::Environment);
    assert!(error.is_of_machine() && error.to_string().contains("/nowhere/modelopt"), "{error}");
}

#[test]
fn a_temporary_folder_that_is_full_or_missing_ends_the_run_and_is_named() {
    let folder = tempdir();
    let random = fixture("random/multinomial.onnx");
    let convert = args!["convert", fixture("digits/cnn.onnx"), "-o", "out.onnx", "--to", "fp16"];
    for arguments in [&args!["quantize", random, "-o", "out.onnx"][..], &convert] {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(folder.path()).env("TMPDIR", "/nowhere");
        let output = finish(&mut command).expect(1);
        let said = &output.stderr;
        assert!(said.contains("cannot write a model to try in /nowhere: "), "{said}");
        assert!(said.contains("hint: set TMPDIR to a folder with more room"), "{said}");
        assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
    }
    // Files may not grow beyond a fraction of what a model takes: as on a disk that is full.
    let mut shell = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    shell.args(args!["-c", script, PROGRAM]).args(args!["quantize", random, "-o", "out.onnx"]);
    let output = finish(shell.current_dir(folder.path())).expect(1);
    let said = &output.stderr;
    assert!(said.contains("cannot write a model to try in "), "{said}");
    assert!(said.contains("hint: set TMPDIR to a folder with more room"), "{said}");
    assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
}

#[test]
fn nobody_is_left_when_the_program_ends() {
    let folder = tempdir();
    let arguments = args![
        "quantize",
        model("det"),
        "-o",
        "out.onnx",
        "--samples",
        samples("det"),
        "--runtime",
        "rten",
        "--min-sqnr",
        "60",
    ];
    // In order, at once, and without a chance to do anything.
    for (first, second) in [("INT", None), ("INT", Some("INT")), ("KILL", None)] {
        let mut child = start(folder.path(), &arguments);
        let mut workers = Vec::new();
        wait_until("at work", || {
            workers = workers_of(child.id());
            workers.iter().any(|&id| time_of(id) > 20)
        });
        signal(first, &[child.id()]);
        if let Some(second) = second {
            std::thread::sleep(Duration::from_millis(100));
            signal(second, &[child.id()]);
        }
        let mut done = None;
        wait_until("at an end", || {
            workers.extend(workers_of(child.id()));
            done = child.try_wait().unwrap();
            done.is_some()
        });
        assert!(done.is_some_and(|status| !status.success()));
        wait_until("alone", || !workers.iter().any(|&id| is_worker(id)));
    }
}
