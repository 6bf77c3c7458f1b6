//! Planted disasters: in each public model with scores, the class that wins most clearly on the
//! samples never wins in a copy. `compare` sees that with its default limits.

use std::process::Command;

use crate::support::{finish, with_onnxruntime};
use xtask::parallel::parallel;
use xtask::{oracle, testdata};

/// Models with the axis of their first output that classes lie along, and the first place of one.
const SCORES: [(&str, usize, usize); 7] = [
    ("cls", 1, 0),
    ("silero_vad_16k_op15", 1, 0),
    ("silero_vad", 1, 0),
    ("magika", 1, 0),
    ("det", 1, 0),
    ("rec", 2, 0),
    ("nudenet", 1, 4),
];

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn a_class_that_never_wins_is_caught() {
    let folder = crate::support::tempdir();
    let told = parallel(&SCORES, |&(name, axis, first)| {
        let (model, samples) = (testdata::model(name), testdata::samples(name));
        let damaged = folder.path().join(format!("{name}.onnx"));
        let planted = Command::new(testdata::python())
            .arg(oracle::script("drop_class.py"))
            .args([model.as_os_str(), samples.as_os_str()])
            .args([axis.to_string(), first.to_string()])
            .arg(&damaged)
            .output()
            .unwrap();
        let class = String::from_utf8_lossy(&planted.stdout).trim().to_owned();
        assert!(planted.status.success(), "{}", String::from_utf8_lossy(&planted.stderr));
        let mut command = with_onnxruntime(folder.path());
        command.arg("compare").args(args![model, damaged, "--samples", samples]);
        command.args(["--runtime", "onnxruntime", "--no-latency"]);
        let compared = finish(&mut command);
        (name, class, compared.code, compared.stdout)
    });
    for (name, class, code, said) in told {
        assert_eq!(code, Some(3), "{name}, {class}:\n{said}");
    }
}
