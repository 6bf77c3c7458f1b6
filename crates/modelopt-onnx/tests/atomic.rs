//! A target is always the old file or the new one, and nothing else stays behind.

mod wire;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use modelopt_graph::Model;
use modelopt_onnx::{SaveOptions, Staged, load, parse, to_bytes};
use wire::{message, number, one_node};

const INLINE: SaveOptions = SaveOptions { external_data: false };
const EXTERNAL: SaveOptions = SaveOptions { external_data: true };

/// A model with one weight, which is full of this byte.
fn model(fill: u8) -> Model {
    let weight =
        [number(1, 1 << 16), number(2, 2), message(8, "w"), message(9, vec![fill; 1 << 16])];
    let graph = [one_node(&[]), message(5, weight.concat())].concat();
    parse(wire::model(graph).into(), Path::new("made")).unwrap()
}

/// What a model holds, wherever it lies.
fn content(model: &Model) -> Vec<u8> {
    to_bytes(model).unwrap()
}

fn save(model: &Model, target: &Path, options: SaveOptions) {
    Staged::write(model, target, options).unwrap().commit().unwrap();
}

fn refusal(target: &Path) -> String {
    Staged::write(&model(1), target, INLINE).unwrap_err().to_string()
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn without_a_commit_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    fs::write(&target, "old").unwrap();
    for options in [INLINE, EXTERNAL] {
        let staged = Staged::write(&model(1), &target, options).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(staged.path().parent(), target.parent());
        assert_eq!(content(&load(staged.path()).unwrap()), content(&model(1)));
        drop(staged);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["m.onnx"]);
    }
}

#[test]
fn a_commit_puts_the_new_file_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    for fill in [1, 2] {
        let staged = Staged::write(&model(fill), &target, INLINE).unwrap();
        assert_eq!(staged.size(), content(&model(fill)).len() as u64);
        staged.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), content(&model(fill)));
        assert_eq!(names(folder.path()), ["m.onnx"]);
    }
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    save(&model(1), &target, EXTERNAL);
    let other = folder.path().join(".other.onnx.x.modelopt-tmp");
    fs::write(&other, "another target's").unwrap();
    let before = names(folder.path());
    assert_eq!(before.len(), 3);

    let mut child = staging_process(&target);
    // A temporary model, and the data of a model that is not in place yet.
    assert_eq!(names(folder.path()).len(), before.len() + 2);
    // While it lives, its files are its own.
    drop(Staged::write(&model(2), &target, EXTERNAL).unwrap());
    assert_eq!(names(folder.path()).len(), before.len() + 2);
    assert_eq!(content(&load(&target).unwrap()), content(&model(1)));

    child.kill().unwrap();
    child.wait().unwrap();
    // Killed between the two renames: the old model is whole.
    assert_eq!(content(&load(&target).unwrap()), content(&model(1)));
    assert_eq!(names(folder.path()).len(), before.len() + 2);
    drop(Staged::write(&model(2), &target, INLINE).unwrap());
    assert_eq!(names(folder.path()), before);
}

const STAGE_HERE: &str = "MODELOPT_TEST_STAGE_HERE";

/// A process of this test that has staged a model and waits to be killed.
fn staging_process(target: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_stages_and_waits", "--nocapture"])
        .env(STAGE_HERE, target)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line.contains("staged")));
    child
}

/// Not a test of its own: the other process of [`staging_process`].
#[test]
fn helper_that_stages_and_waits() {
    let Some(target) = std::env::var_os(STAGE_HERE) else { return };
    let staged = Staged::write(&model(3), Path::new(&target), EXTERNAL).unwrap();
    println!("staged {}", staged.path().display());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

#[test]
fn two_stagings_of_one_target_do_not_disturb_each_other() {
    for options in [INLINE, EXTERNAL] {
        for second in [1, 2] {
            let folder = tempfile::tempdir().unwrap();
            let target = folder.path().join("m.onnx");
            let files = if options.external_data { 2 } else { 1 };
            let stage = |fill| Staged::write(&model(fill), &target, options).unwrap();
            let holds = |fill: u8| content(&load(&target).unwrap()) == content(&model(fill));

            let (a, b) = (stage(1), stage(second));
            a.commit().unwrap();
            assert!(holds(1));
            b.commit().unwrap();
            assert!(holds(second));
            assert_eq!(names(folder.path()).len(), files);

            let (a, b) = (stage(3), stage(2 + second));
            drop(a);
            b.commit().unwrap();
            assert!(holds(2 + second));
            assert_eq!(names(folder.path()).len(), files);

            // The same again as is in place already, and then not.
            drop(stage(2 + second));
            assert!(holds(2 + second));
            assert_eq!(names(folder.path()).len(), files);
        }
    }
}

#[test]
fn many_writers_of_one_target_leave_one_whole_model() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("m.onnx");
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let target = &target;
            scope.spawn(move || {
                for round in 0..25u8 {
                    // Often the same content, so that they share data files.
                    let staged = Staged::write(&model((writer + round) % 3), target, EXTERNAL);
                    let staged = staged.unwrap();
                    load(staged.path()).unwrap();
                    if round % 4 != 0 {
                        staged.commit().unwrap();
                    }
                }
            });
        }
    });
    let found = content(&load(&target).unwrap());
    assert!((0..3).any(|fill| found == content(&model(fill))));
    save(&model(9), &target, INLINE);
    assert_eq!(names(folder.path()), ["m.onnx"]);
}

#[test]
fn a_model_is_saved_over_the_file_it_is_mapped_from() {
    for options in [INLINE, EXTERNAL] {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("m.onnx");
        save(&model(1), &target, options);
        let mapped = load(&target).unwrap();
        save(&mapped, &target, INLINE);
        save(&model(2), &target, options);
        assert_eq!(content(&mapped), content(&model(1)));
        save(&mapped, &target, EXTERNAL);
        assert_eq!(content(&load(&target).unwrap()), content(&model(1)));
        assert_eq!(names(folder.path()).len(), 2);
    }
}

#[test]
fn what_cannot_be_written_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("file"), "").unwrap();
    for (target, why) in [
        (path("folder"), "it is a folder, not a file"),
        (path("absent").join("m.onnx"), "No such file or directory"),
        (path("file").join("m.onnx"), "Not a directory"),
        (path("folder").join(".."), "no file name"),
    ] {
        let message = refusal(&target);
        assert!(message.contains(why), "{message}");
        assert!(message.contains(&target.display().to_string()), "{message}");
    }
    assert_eq!(names(folder.path()), ["file", "folder"]);
    assert!(names(&path("folder")).is_empty());
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_without_write_permission_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("m.onnx"), "old").unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o555)).unwrap();
        let target = unwritable(folder.path()).join("m.onnx");
        let before = names(target.parent().unwrap());
        let error = Staged::write(&model(1), &target, EXTERNAL).unwrap_err().to_string();
        // The last two: of a superuser's /sys in a container.
        let says = ["denied", "not permitted", "Read-only file system", "No such file"];
        assert!(says.iter().any(|why| error.contains(why)), "{error}");
        assert!(error.contains(&target.display().to_string()), "{error}");
        assert!(!error.contains("modelopt-tmp"), "{error}");
        assert_eq!(names(target.parent().unwrap()), before);
    }

    /// This folder, or, for a superuser whom no mode stops, one of the kernel's.
    fn unwritable(folder: &Path) -> PathBuf {
        match fs::write(folder.join("probe"), "") {
            Ok(()) => PathBuf::from("/sys/kernel"),
            Err(_) => folder.to_owned(),
        }
    }

    #[test]
    fn the_mode_of_the_old_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("m.onnx");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let ordinary = folder.path().join("ordinary");
        fs::write(&ordinary, "").unwrap();
        save(&model(1), &target, INLINE);
        assert_eq!(mode(&target), mode(&ordinary));
        fs::set_permissions(&target, PermissionsExt::from_mode(0o640)).unwrap();
        save(&model(2), &target, INLINE);
        assert_eq!(mode(&target), 0o640);
    }

    #[test]
    fn behind_a_link_the_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("store")).unwrap();
        fs::write(path("store/m.onnx"), "old").unwrap();
        symlink("store/m.onnx", path("link.onnx")).unwrap();
        for options in [INLINE, EXTERNAL] {
            save(&model(1), &path("link.onnx"), options);
            assert!(path("link.onnx").is_symlink());
            for model_file in ["link.onnx", "store/m.onnx"] {
                assert_eq!(content(&load(&path(model_file)).unwrap()), content(&model(1)));
            }
            assert_eq!(names(folder.path()), ["link.onnx", "store"]);
        }
        assert_eq!(names(&path("store")).len(), 2);
    }

    #[test]
    fn a_link_to_nothing_and_a_pipe_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (link, pipe) = (folder.path().join("link.onnx"), folder.path().join("pipe.onnx"));
        symlink("absent", &link).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(refusal(&link).contains("a link to a file that does not exist"));
        assert!(refusal(&pipe).contains("not a regular file"));
        assert!(link.is_symlink());
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(names(folder.path()), ["link.onnx", "pipe.onnx"]);
    }
}
