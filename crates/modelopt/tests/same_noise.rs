//! Copies of random models that share their noise: the numbers have the distribution that the
//! operator promises, every runtime computes the same ones, run after run, and rewriting the model
//! does not change them.

use std::collections::HashMap;
use std::path::Path;

use modelopt::graph::{DataType, Model, Tensor, infer, verify};
use modelopt::onnx::{self, SaveOptions, Staged};
use modelopt::rewrite::{self, Noise, Preparation, Randomness, Scheme, random_operators};
use modelopt::runtime::{
    LibrarySearch, Outputs, RuntimeKind, Sample, SessionOptions, graph_inputs, load_samples,
    runtime,
};
use xtask::testdata::{fixture, python};

fn model(name: &str) -> Model {
    onnx::load(&fixture(format!("random/{name}.onnx"))).unwrap()
}

fn sample(model: &Model) -> Sample {
    let names: Vec<String> = graph_inputs(model).into_iter().map(|input| input.name).collect();
    load_samples(&fixture("random/samples.npz"), &names).unwrap().remove(0)
}

/// The copy in which everything random is replaced.
fn copy_of(original: &Model, model: &Model) -> Model {
    let same = Noise::of(original).given_to(model);
    assert!(same.left.is_empty(), "{:?}", same.left);
    assert!(same.replaced > 0);
    verify::check(&same.model).unwrap();
    assert!(random_operators(&same.model).is_empty());
    same.model
}

/// The runtime of a name.
fn named(name: &str) -> RuntimeKind {
    name.parse().unwrap()
}

/// What a model makes of a sample, twice.
fn run(kind: RuntimeKind, model: &Model, sample: &Sample) -> Outputs {
    let library = (kind == named("onnxruntime")).then(|| {
        let path = python().parent().unwrap().as_os_str().to_owned();
        let search = LibrarySearch { path: Some(path), ..Default::default() };
        kind.find_library(&search).unwrap().unwrap()
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    Staged::write(model, &path, SaveOptions::default()).unwrap().commit().unwrap();
    let runtime = runtime(kind, library.as_deref()).unwrap();
    let run = |path: &Path| {
        let mut session = runtime.prepare(path, &SessionOptions::default()).unwrap();
        (session.run(&sample.inputs).unwrap(), session.run(&sample.inputs).unwrap())
    };
    let ((first, second), (third, _)) = (run(&path), run(&path));
    assert!(first == second && first == third, "{kind}: runs differ");
    first
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    match tensor.to_f32() {
        Some(numbers) => numbers.iter().map(|&x| f64::from(x)).collect(),
        None => tensor.to_i64().unwrap().into_iter().map(|x| x as f64).collect(),
    }
}

fn mean(numbers: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = numbers.len() as f64;
    numbers.sum::<f64>() / count
}

fn moments(tensor: &Tensor) -> (f64, f64) {
    let numbers = numbers(tensor);
    let center = mean(numbers.iter().copied());
    (center, mean(numbers.iter().map(|x| (x - center).powi(2))))
}

/// The outputs of a copy in all runtimes, which agree; that of ONNX Runtime.
fn everywhere(name: &str) -> Outputs {
    let original = model(name);
    let (copy, sample) = (copy_of(&original, &original), sample(&original));
    let trusted = run(named("onnxruntime"), &copy, &sample);
    // tract knows no Loop, and of a list that NonZero makes it does not know how long it is.
    let not_tract = ["in_loop", "normal_like_opset10"].contains(&name);
    let kinds = [named("rten"), named("tract")];
    for kind in kinds.into_iter().filter(|kind| *kind == named("rten") || !not_tract) {
        let outputs = run(kind, &copy, &sample);
        for (output, tensor) in &trusted {
            let (a, b) = (numbers(tensor), numbers(&outputs[output]));
            let wrong = a.iter().zip(&b).filter(|(a, b)| (*a - *b).abs() > 1e-3).count();
            // A draw can lie so close to its limit that another rounding decides otherwise.
            assert!(a.len() == b.len() && wrong * 1000 <= a.len(), "{name} in {kind}: {wrong}");
        }
    }
    trusted
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn normal_and_uniform_numbers_are_spread_as_promised() {
    // 16384 numbers: the deviation of a mean is below 1 % of theirs.
    let spreads = [
        ("normal_like", 0.5, 4.0),
        ("normal_like_opset8", 0.0, 1.0),
        ("normal_like_opset10", 0.0, 1.0),
        ("normal", -1.0, 1.0),
        ("uniform_like", -1.0, 16.0 / 12.0),
        ("uniform_like_opset21", 0.5, 1.0 / 12.0),
        ("uniform", 0.5, 1.0 / 12.0),
    ];
    for (name, center, variance) in spreads {
        let drawn = everywhere(name).swap_remove("r").unwrap();
        let (middle, spread) = moments(&drawn);
        assert!((middle - center).abs() < 0.03 * f64::sqrt(variance), "{name}: mean {middle}");
        assert!((spread / variance - 1.0).abs() < 0.05, "{name}: variance {spread}");
        let x = numbers(&drawn);
        for lag in [1, 2, 64] {
            let pairs: Vec<f64> =
                x.iter().zip(&x[lag..]).map(|(a, b)| (a - center) * (b - center)).collect();
            let correlation = mean(pairs.into_iter()) / variance;
            assert!(correlation.abs() < 0.04, "{name}: {correlation} at {lag}");
        }
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn chances_come_true_as_often_as_they_say() {
    let outputs = everywhere("bernoulli");
    let (drawn, chances) = (numbers(&outputs["r"]), numbers(&outputs["p"]));
    assert!(drawn.iter().all(|x| [0.0, 1.0].contains(x)));
    for low in [0.1, 0.3, 0.5, 0.7] {
        let within: Vec<(f64, f64)> = chances
            .iter()
            .zip(&drawn)
            .filter(|(chance, _)| (low..low + 0.2).contains(*chance))
            .map(|(&chance, &drawn)| (chance, drawn))
            .collect();
        let expected = mean(within.iter().map(|(chance, _)| *chance));
        let seen = mean(within.iter().map(|(_, drawn)| *drawn));
        assert!((seen - expected).abs() < 0.05, "{seen} for {expected}");
    }
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn classes_are_drawn_by_their_probabilities() {
    let outputs = everywhere("multinomial");
    assert_eq!(outputs["r"].dtype(), DataType::INT32);
    let (drawn, chances) = (numbers(&outputs["r"]), numbers(&outputs["y"]));
    let (classes, draws) = (64, 40);
    let mut found = HashMap::new();
    let rows = drawn.chunks(draws).enumerate();
    for (row, class) in rows.flat_map(|(row, drawn)| drawn.iter().map(move |&c| (row, c))) {
        *found.entry((row, class as usize)).or_insert(0.0) += 1.0 / draws as f64;
    }
    // What is drawn is likelier than what is not, by as much as chances say.
    let all = mean(chances.iter().map(|p| p * p)) * classes as f64;
    let rows = drawn.len() / draws;
    let seen: f64 =
        found.iter().map(|((row, class), share)| share * chances[row * classes + class]).sum();
    assert!((seen / rows as f64 / all - 1.0).abs() < 0.05, "{} for {all}", seen / rows as f64);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn dropout_drops_its_share_and_scales_the_rest() {
    for name in ["dropout", "dropout_when"] {
        let outputs = everywhere(name);
        let (y, m) = (numbers(&outputs["y"]), numbers(&outputs["m"]));
        let kept = outputs["r"].to_i64().unwrap();
        let share = mean(kept.iter().map(|&kept| kept as f64));
        assert!((share - 0.7).abs() < 0.02, "{name}: {share}");
        let right = |((y, m), kept): ((&f64, &f64), &i64)| {
            let expected = if *kept == 1 { m / 0.7 } else { 0.0 };
            (y - expected).abs() < 1e-5
        };
        assert!(y.iter().zip(&m).zip(&kept).all(right), "{name}");
    }
    let original = model("dropout_when");
    let mut sample = sample(&original);
    sample.inputs.insert("on".into(), Tensor::dense(DataType::BOOL, vec![], vec![0]).unwrap());
    let outputs = run(named("onnxruntime"), &copy_of(&original, &original), &sample);
    assert_eq!(outputs["y"], outputs["m"]);
}

#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn nested_nodes_each_have_noise_of_their_own() {
    let (mean, variance) = moments(&everywhere("in_if")["r"]);
    assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    let turns = numbers(&everywhere("in_loop")["r"]);
    let turns: Vec<&[f64]> = turns.chunks(turns.len() / 4).collect();
    for (a, b) in [(0, 1), (0, 3), (2, 3)] {
        let products: Vec<f64> = turns[a].iter().zip(turns[b]).map(|(a, b)| a * b).collect();
        let correlation = products.iter().sum::<f64>() / products.len() as f64;
        assert!(correlation.abs() < 0.04, "turns {a} and {b}: {correlation}");
    }
    let outputs = everywhere("in_function");
    let (s, y) = (numbers(&outputs["s"]), numbers(&outputs["y"]));
    let second: Vec<f64> = s.iter().zip(&y).map(|(s, y)| y - s).collect();
    let variance = second.iter().map(|x| x * x).sum::<f64>() / second.len() as f64;
    assert!((variance - 1.0).abs() < 0.05, "{variance}");
}

/// The noise of what was made of a model is that of the model, also where names changed.
#[test]
#[ignore = "needs the test material: cargo xtask test"]
fn rewriting_keeps_the_noise() {
    for name in ["normal_like", "dropout", "in_if", "in_loop", "in_function", "vits"] {
        for scheme in [Scheme::INT8_WEIGHTS, Scheme::INT8_DYNAMIC, Scheme::FP16] {
            let original = model(name);
            let mut made = original.clone();
            let how = Preparation { skip: &[], inline_functions: scheme == Scheme::FP16 };
            rewrite::prepare(&mut made, how).unwrap();
            infer::infer(&mut made);
            let options = rewrite::PlanOptions {
                scheme: Some(scheme),
                min_weight_bytes: 0,
                ..Default::default()
            };
            let plan = rewrite::plan(&made, &options).unwrap();
            rewrite::apply(&mut made, &plan).unwrap();
            assert!(plan.changed() > 0, "{name}: {scheme}");
            assert!(!random_operators(&made).is_empty(), "{name}: it keeps its randomness");
            let sample = sample(&original);
            let kind = named("onnxruntime");
            let expected = run(kind, &copy_of(&original, &original), &sample);
            let actual = run(kind, &copy_of(&original, &made), &sample);
            for (output, tensor) in expected.iter().filter(|(_, t)| t.dtype() == DataType::FLOAT) {
                let (a, b) = (numbers(tensor), numbers(&actual[output]));
                let power = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
                let error: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
                let db = 10.0 * (power(&a) / power(&error)).log10();
                assert!(db > 25.0, "{name} {scheme}, {output}: {db} dB");
            }
        }
    }
}

#[test]
fn operators_are_called_what_they_are() {
    let found = |name: &str| -> Vec<String> {
        random_operators(&model(name)).iter().map(ToString::to_string).collect()
    };
    assert_eq!(found("normal_like"), ["RandomNormalLike 'noise' draws random numbers"]);
    assert_eq!(
        found("dropout"),
        ["Dropout 'drop' is in training mode: it drops elements at random"]
    );
    assert_eq!(
        found("dropout_when"),
        ["Dropout 'drop' is in training mode where 'on' is true: it drops elements at random"]
    );
    assert!(found("dropout_off").is_empty());
    assert_eq!(found("in_if").len(), 2);
    assert_eq!(found("in_function").len(), 1);
    let norm = random_operators(&model("batchnorm"));
    assert_eq!(norm[0].kind, Randomness::ReadsBatch);
    assert!(!norm[0].is_random() && Noise::of(&model("batchnorm")).is_empty());
}
