//! `upgrade` over models of older operator sets, to the newest that onnxruntime runs: node tests up to
//! version 17, node tests stamped with older versions of their operators, models written for each adapter, and the
//! real models. Each is held against its original by the checker and by onnxruntime, and a second upgrade must
//! leave every byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{batch, exceptions, steps};
use crate::oracle::{self, RunJob};
use crate::parallel::{cores, parallel};
use crate::{readme, testdata};

/// What real models must keep, in dB.
const LEAST_SQNR: f64 = 100.0;

/// A model, as `make_older.py` tells of it.
#[derive(Debug, Deserialize)]
struct Case {
    kind: String,
    name: String,
    model: PathBuf,
    data: PathBuf,
}

/// A model to run and judge.
#[derive(Serialize)]
struct Question<'a> {
    model: &'a Path,
    candidate: Option<&'a Path>,
    data: &'a Path,
}

#[derive(Debug, Deserialize)]
struct Answer {
    original_runs: bool,
    original_checks_plainly: bool,
    checker_error: Option<String>,
    run_error: Option<String>,
    disagreement: Option<String>,
}

/// How the models of one kind went.
#[derive(Debug, Default)]
struct Tally {
    models: usize,
    upgraded: usize,
    checkable: usize,
    clean: usize,
    running: usize,
    equal: usize,
    stable: usize,
}

/// Upgrades everything; gives what is not as it should be. The tables of `docs/upgrade.md` are written, or
/// held against what was found.
pub(super) fn run(writes: bool) -> Result<Vec<String>> {
    let known = steps::known()?;
    let mut complaints = steps::complaints(&known)?;
    let folder = testdata::target_dir().join("upgrades");
    let cases = cases(&folder)?;
    let outputs: Vec<PathBuf> =
        cases.iter().map(|case| folder.join(format!("out/{}.onnx", case.name))).collect();
    fs::create_dir_all(folder.join("out"))?;
    let jobs = cases.iter().zip(&outputs);
    let jobs: Vec<batch::Job> = jobs.map(|(case, output)| job(&case.model, output)).collect();
    let documents = batch::upgrade(&settings()?, &jobs)?;
    let answers = asked(&cases, &outputs, &documents)?;
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut failures = BTreeMap::new();
    for ((case, document), answer) in cases.iter().zip(&documents).zip(&answers) {
        tallies.entry(&case.kind).or_default().count(document, answer);
        failures.extend(failure(document, answer).map(|failure| (case.name.clone(), failure)));
    }
    complaints.extend(exceptions::against("upgrade", &failures)?);
    complaints.extend(without_a_case(&known, &documents));
    let (real, of_real) = real_models(&folder)?;
    complaints.extend(of_real);
    let mut rows: Vec<(&str, &Tally)> = tallies.iter().map(|(kind, t)| (*kind, t)).collect();
    rows.push(("real models", &real));
    let table = table(&rows);
    println!("{table}");
    let is_written = writes && complaints.is_empty();
    let told = in_document(&[("upgrades", &table), ("steps", &steps::tables(&known))], is_written);
    complaints.extend(told.err().map(|error| format!("{error:#}")));
    Ok(complaints)
}

/// Nothing is run while models are upgraded: the oracle does that, on the tests' own inputs.
fn settings() -> Result<String> {
    batch::settings("enforcement = \"none\"\n")
}

fn job(model: &Path, output: &Path) -> batch::Job {
    batch::Job { model: model.to_owned(), output: output.to_owned(), samples: None }
}

/// The models, made anew.
fn cases(folder: &Path) -> Result<Vec<Case>> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let nodes = testdata::node_tests();
    let nodes = nodes.first().and_then(|case| case.parent()).context("there are no node tests")?;
    let made = folder.join("cases");
    let output = Command::new(testdata::python())
        .arg(oracle::script("make_older.py"))
        .args([nodes, &made])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .context("cannot start Python")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "make_older.py failed, {}:\n{stderr}", output.status);
    Ok(serde_json::from_str(&fs::read_to_string(made.join("cases.json"))?)?)
}

/// Asks as many interpreters as there are cores.
fn asked(cases: &[Case], outputs: &[PathBuf], documents: &[Value]) -> Result<Vec<Answer>> {
    let questions = cases.iter().zip(outputs).zip(documents);
    let questions: Vec<Question<'_>> = questions
        .map(|((case, output), document)| Question {
            model: &case.model,
            candidate: is_upgraded(document).then_some(output),
            data: &case.data,
        })
        .collect();
    let size = questions.len().div_ceil(cores()).max(1);
    let parts: Vec<&[Question<'_>]> = questions.chunks(size).collect();
    let answers: Result<Vec<Vec<Answer>>> =
        parallel(&parts, |part| oracle::ask("run_upgrades.py", part)).into_iter().collect();
    Ok(answers?.into_iter().flatten().collect())
}

fn is_upgraded(document: &Value) -> bool {
    document["error"].is_null()
}

impl Tally {
    fn count(&mut self, document: &Value, answer: &Answer) {
        let upgraded = is_upgraded(document);
        let checkable = upgraded && answer.original_checks_plainly;
        let running = upgraded && answer.original_runs;
        let equal = answer.run_error.is_none() && answer.disagreement.is_none();
        self.models += 1;
        self.upgraded += usize::from(upgraded);
        self.checkable += usize::from(checkable);
        self.clean += usize::from(checkable && answer.checker_error.is_none());
        self.running += usize::from(running);
        self.equal += usize::from(running && equal);
        self.stable += usize::from(document["stays"] == true);
    }
}

/// What is wrong with one upgrade, if anything is. What onnxruntime does not run before need not run
/// afterwards.
fn failure(document: &Value, answer: &Answer) -> Option<String> {
    if let Some(error) = document["error"].as_str() {
        return Some(error.to_owned());
    }
    if let Some(error) = &answer.checker_error {
        return Some(format!("the checker refuses it: {error}"));
    }
    if document["stays"] != true {
        return Some("a second upgrade changes it".to_owned());
    }
    if !answer.original_runs {
        return None;
    }
    answer.run_error.as_ref().or(answer.disagreement.as_ref()).cloned()
}

/// Adapters that no model needed.
fn without_a_case(known: &[steps::Step], documents: &[Value]) -> Vec<String> {
    let used: BTreeSet<(String, i64)> = documents
        .iter()
        .filter_map(|document| document["adapted"].as_array())
        .flatten()
        .filter_map(|step| Some((step[0].as_str()?.to_owned(), step[1].as_i64()?)))
        .collect();
    let unused =
        steps::adapted(known).filter(|(name, at)| !used.contains(&((*name).to_owned(), *at)));
    unused.map(|(name, at)| format!("no model has {name} adapted to version {at}")).collect()
}

/// The real models on their samples.
fn real_models(folder: &Path) -> Result<(Tally, Vec<String>)> {
    let models = testdata::models();
    let outputs: Vec<PathBuf> =
        models.iter().map(|(name, _)| folder.join(format!("{name}.onnx"))).collect();
    let jobs: Vec<batch::Job> =
        models.iter().zip(&outputs).map(|((_, model), output)| job(model, output)).collect();
    let documents = batch::upgrade(&settings()?, &jobs)?;
    let originals: Vec<PathBuf> = models.iter().map(|(_, model)| model.clone()).collect();
    let before = oracle::check_models(&originals)?;
    let after = oracle::check_models(&outputs)?;
    let runs = models.iter().zip(&outputs).map(|((name, model), output)| RunJob {
        original: model.clone(),
        candidate: output.clone(),
        samples: testdata::npz_files(&testdata::samples(name)),
        time: false,
    });
    let results = oracle::run_models(&runs.collect::<Vec<_>>())?;
    let mut tally = Tally::default();
    let mut complaints = Vec::new();
    for (index, (name, _)) in models.iter().enumerate() {
        let result = &results[index];
        let sqnr = result.worst_sqnr_db();
        let differs = (sqnr < LEAST_SQNR).then(|| format!("{sqnr:.1} dB"));
        let answer = Answer {
            original_runs: true,
            original_checks_plainly: before[index].is_ok(),
            checker_error: after[index].error.clone().filter(|_| before[index].is_ok()),
            run_error: result.error.clone(),
            disagreement: differs,
        };
        tally.count(&documents[index], &answer);
        let failure = failure(&documents[index], &answer);
        complaints.extend(failure.map(|failure| format!("upgrade of {name}: {failure}")));
    }
    Ok((tally, complaints))
}

fn table(rows: &[(&str, &Tally)]) -> String {
    let mut table =
        "| models | number | upgraded | checker-clean | outputs equal in onnxruntime | left \
                     alone by a second upgrade |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for (kind, tally) in rows {
        let Tally { models, upgraded, checkable, clean, running, equal, stable } = tally;
        let _ = writeln!(
            table,
            "| {kind} | {models} | {upgraded} | {clean} of {checkable} | {equal} of {running} | {stable} |"
        );
    }
    table
}

/// Writes the tables of `docs/upgrade.md`, or holds them against what was found.
fn in_document(tables: &[(&str, &str)], writes: bool) -> Result<()> {
    let path = testdata::workspace_root().join("docs/upgrade.md");
    let before = fs::read_to_string(&path)?;
    let mut after = before.clone();
    for (name, table) in tables {
        after = readme::replaced(&after, name, table)?;
    }
    if writes {
        fs::write(&path, &after)?;
    } else {
        let say = "docs/upgrade.md has other figures: `cargo xtask upgrades --write`";
        ensure!(after == before, say);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(run_error: Option<&str>, original_runs: bool) -> Answer {
        Answer {
            original_runs,
            original_checks_plainly: true,
            checker_error: None,
            run_error: run_error.map(str::to_owned),
            disagreement: None,
        }
    }

    #[test]
    fn what_ran_before_must_run_and_what_did_not_need_not() {
        let done = json!({ "adapted": [["Clip", 11]], "stays": true });
        assert_eq!(failure(&done, &answer(None, true)), None);
        assert_eq!(failure(&done, &answer(Some("no kernel"), false)), None);
        assert_eq!(failure(&done, &answer(Some("no kernel"), true)).unwrap(), "no kernel");
        let moved = json!({ "adapted": [], "stays": false });
        assert!(failure(&moved, &answer(None, true)).unwrap().contains("second"));
        assert_eq!(failure(&json!({ "error": "no" }), &answer(None, true)).unwrap(), "no");
    }

    #[test]
    fn a_tally_counts_what_is_comparable() {
        let mut tally = Tally::default();
        tally.count(&json!({ "stays": true }), &answer(None, true));
        tally.count(&json!({ "stays": true }), &answer(Some("no"), true));
        tally.count(&json!({ "error": "no" }), &answer(None, true));
        let Tally { models, upgraded, running, equal, stable, .. } = tally;
        assert_eq!((models, upgraded, running, equal, stable), (3, 2, 2, 1, 2));
    }
}
