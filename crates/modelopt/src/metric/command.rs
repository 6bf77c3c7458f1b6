//! A command that prints the metric.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use super::{Metric, MetricError, PLACE};
use crate::budget::Stop;

/// What is kept of what a command prints: its end.
const MOST_KEPT: usize = 1 << 16;

/// How many lines of stderr are shown.
const MOST_LINES: usize = 10;

/// How often to look whether it ended.
const LOOK: Duration = Duration::from_millis(10);

/// How long what was printed may still take to arrive once the command ended.
const LINGER: Duration = Duration::from_secs(2);

/// A command for the shell (`sh -c`, on Windows `cmd /C`) whose last line of output is the metric: a
/// number, or a JSON object of numbers, of which one counts.
#[derive(Debug)]
pub struct CommandMetric {
    template: String,
    wanted: Option<String>,
    name: String,
    timeout: Duration,
    stop: Stop,
    subject: &'static str,
    further: IndexMap<String, f64>,
}

impl CommandMetric {
    /// A command with `{model}` where the path goes, the name of the figure that counts if it
    /// prints several, and how long it may take, in seconds.
    pub fn new(template: &str, name: Option<String>, timeout: f64) -> Self {
        CommandMetric {
            template: template.to_owned(),
            name: name.clone().unwrap_or_else(|| "metric".to_owned()),
            wanted: name,
            timeout: Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX),
            stop: Stop::default(),
            subject: "model",
            further: IndexMap::new(),
        }
    }

    /// The same, ended with all that it started when somebody stops it.
    #[must_use]
    pub fn until(self, stop: Stop) -> Self {
        CommandMetric { stop, ..self }
    }

    /// What messages call the model that is evaluated next.
    pub(crate) fn subject(&mut self, subject: &'static str) {
        self.subject = subject;
    }

    fn run(&self, model: &Path) -> Result<String, MetricError> {
        let model = std::path::absolute(model).unwrap_or_else(|_| model.to_owned());
        let line = filled(&self.template, &model);
        let start = |source| MetricError::Start { command: self.template.clone(), source };
        let mut child = shell(&line)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        let (printed, said) = (child.stdout.take().map(listen), child.stderr.take().map(listen));
        let ended = self.wait(&mut child);
        // What it left behind would keep the pipes open.
        end(&mut child);
        let heard = |from: Option<Receiver<Vec<u8>>>| {
            let bytes = from.and_then(|from| from.recv_timeout(LINGER).ok()).unwrap_or_default();
            // The path is that of a file which is gone when this is read.
            String::from_utf8_lossy(&bytes).replace(&*model.to_string_lossy(), PLACE)
        };
        let status = ended?;
        let (printed, said) = (heard(printed), heard(said));
        if status.success() {
            return Ok(printed);
        }
        Err(MetricError::Failed {
            command: self.template.clone(),
            subject: self.subject,
            status: told(status),
            said: last_lines(&said, MOST_LINES),
        })
    }

    /// The command's end, if nobody stops it and it comes in time.
    fn wait(&self, child: &mut Child) -> Result<ExitStatus, MetricError> {
        let started = Instant::now();
        loop {
            let look = child.try_wait();
            let look = look
                .map_err(|source| MetricError::Start { command: self.template.clone(), source });
            if let Some(status) = look? {
                return Ok(status);
            }
            if self.stop.is_stopped() {
                return Err(MetricError::Stopped);
            }
            if started.elapsed() > self.timeout {
                return Err(MetricError::TimedOut {
                    command: self.template.clone(),
                    subject: self.subject,
                    seconds: self.timeout.as_secs_f64(),
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The figures in what was printed, by name.
    fn figures(&self, printed: &str) -> Result<IndexMap<String, f64>, MetricError> {
        let none = |found: String| MetricError::NoNumber {
            command: self.template.clone(),
            subject: self.subject,
            found,
        };
        let mut lines = printed.lines().rev().map(str::trim);
        let Some(line) = lines.find(|line| !line.is_empty()) else {
            return Err(none("nothing".to_owned()));
        };
        let shown = || format!("'{}'", shortened(line));
        let figures: IndexMap<String, f64> = if let Ok(number) = line.parse::<f64>() {
            [(self.name.clone(), number)].into()
        } else if let Ok(object) = serde_json::from_str::<IndexMap<String, serde_json::Value>>(line)
        {
            object.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect()
        } else {
            return Err(none(shown()));
        };
        if figures.is_empty() {
            return Err(none(shown()));
        }
        Ok(figures)
    }
}

impl Metric for CommandMetric {
    fn name(&self) -> &str {
        &self.name
    }

    fn evaluate(&mut self, model: &Path) -> Result<f64, MetricError> {
        let printed = self.run(model)?;
        let mut figures = self.figures(&printed)?;
        let chosen = match &self.wanted {
            // A bare number has the name that was asked for.
            Some(name) => figures.shift_remove_entry(name),
            None => figures.shift_remove_index(0),
        };
        let Some((name, value)) = chosen else {
            return Err(MetricError::NoSuchName {
                command: self.template.clone(),
                name: self.name.clone(),
                found: figures.into_keys().collect(),
            });
        };
        if !value.is_finite() {
            return Err(MetricError::NoNumber {
                command: self.template.clone(),
                subject: self.subject,
                found: value.to_string(),
            });
        }
        (self.name, self.further) = (name, figures);
        Ok(value)
    }

    fn further(&self) -> IndexMap<String, f64> {
        self.further.clone()
    }
}

/// The command with the path in it, quoted for the shell; quotes that stand around the place already
/// are taken out.
fn filled(template: &str, model: &Path) -> String {
    let path = quoted(&model.to_string_lossy());
    let bare = ["\"{model}\"", "'{model}'"]
        .iter()
        .fold(template.to_owned(), |text, place| text.replace(place, PLACE));
    bare.replace(PLACE, &path)
}

#[cfg(unix)]
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

#[cfg(not(unix))]
fn quoted(path: &str) -> String {
    format!("\"{path}\"")
}

/// The shell, at the head of a group of its own, so that all of it can be ended.
#[cfg(unix)]
fn shell(line: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).process_group(0);
    command
}

#[cfg(windows)]
fn shell(line: &str) -> Command {
    use std::os::windows::process::CommandExt;
    let mut command = Command::new("cmd");
    command.raw_arg(format!("/S /C \"{line}\""));
    command
}

/// Ends a command and all that it started.
#[cfg(unix)]
fn end(child: &mut Child) {
    use nix::sys::signal::{Signal, killpg};
    use nix::unistd::Pid;
    // A group that is gone cannot be ended, and need not be.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let _ = child.wait();
}

#[cfg(windows)]
fn end(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        let id = child.id().to_string();
        let mut all = Command::new("taskkill");
        let _ = all.args(["/T", "/F", "/PID", &id]).stdout(Stdio::null()).status();
        let _ = child.kill();
    }
    let _ = child.wait();
}

/// Hears all that a pipe says, and keeps the end.
fn listen(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (tell, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut kept, mut chunk) = (Vec::new(), [0; 8192]);
        while let Ok(count @ 1..) = pipe.read(&mut chunk) {
            kept.extend_from_slice(chunk.get(..count).unwrap_or_default());
            if kept.len() > 2 * MOST_KEPT {
                kept.drain(..kept.len() - MOST_KEPT);
            }
        }
        // Nobody may listen any more.
        let _ = tell.send(kept);
    });
    heard
}

fn told(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

fn last_lines(text: &str, most: usize) -> String {
    let lines: Vec<&str> =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.get(lines.len().saturating_sub(most)..).unwrap_or_default().join("\n")
}

/// The first hundred characters.
fn shortened(line: &str) -> String {
    let mut short: String = line.chars().take(100).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

#[cfg(all(test, unix))]
#[allow(clippy::float_cmp)] // What is read back is what was written.
mod tests {
    use super::*;

    fn run(command: &str) -> Result<f64, MetricError> {
        CommandMetric::new(command, None, 60.0).evaluate(Path::new("/tmp/a model.onnx"))
    }

    fn error(command: &str) -> String {
        run(command).unwrap_err().to_string()
    }

    #[test]
    fn the_last_line_counts() {
        assert_eq!(run("echo loading {model}; echo ' 0.5 '; echo").unwrap(), 0.5);
        assert_eq!(run("echo 1e-3; echo 9 >&2 # {model}").unwrap(), 1e-3);
        let mut several =
            CommandMetric::new("echo '{\"a\": 1, \"b\": 2.5, \"n\": \"x\"}'", None, 9.0);
        assert_eq!(several.evaluate(Path::new("m")).unwrap(), 1.0);
        assert_eq!((several.name(), several.further()), ("a", [("b".to_owned(), 2.5)].into()));
        several.wanted = Some("b".to_owned());
        assert_eq!(several.evaluate(Path::new("m")).unwrap(), 2.5);
        assert_eq!(several.name(), "b");
    }

    #[test]
    fn the_path_is_one_word_however_it_is_quoted() {
        for place in ["{model}", "'{model}'", "\"{model}\""] {
            let command =
                format!("for x in {place}; do test \"$x\" = '/tmp/a model.onnx' && echo 7; done");
            assert_eq!(run(&command).unwrap(), 7.0, "{place}");
        }
        assert_eq!(filled("x {model}", Path::new("/it's")), r"x '/it'\''s'");
    }

    #[test]
    fn what_is_no_number_is_told_and_the_path_is_not() {
        assert!(error("true {model}").contains("printed nothing for the model"));
        assert!(error("echo accuracy: 0.9 {model}").contains("printed 'accuracy: 0.9 {model}'"));
        assert!(error("echo nan {model} | cut -c1-3").contains("printed NaN"));
        assert!(error("echo '{}' {model} | cut -c1-2").contains("printed '{}'"));
        let failed = error("echo one >&2; echo no {model} >&2; exit 3");
        assert_eq!(
            failed,
            "the metric 'echo one >&2; echo no {model} >&2; exit 3' failed on the model (exit code 3)\n  | one\n  | no {model}"
        );
        let mut named =
            CommandMetric::new("echo '{\"a\": 1, \"b\": 2}' # {model}", Some("c".into()), 9.0);
        let error = named.evaluate(Path::new("m")).unwrap_err().to_string();
        assert!(error.contains("printed no 'c'; there are a, b"), "{error}");
    }

    #[test]
    fn what_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let command = format!("(sleep 2; touch '{}') & sleep 100 # {{model}}", mark.display());
        let started = Instant::now();
        let mut metric = CommandMetric::new(&command, None, 0.2);
        let error = metric.evaluate(Path::new("m")).unwrap_err();
        assert!(
            matches!(error, MetricError::TimedOut { seconds, .. } if seconds == 0.2),
            "{error}"
        );
        assert!(started.elapsed() < Duration::from_secs(30));
        // So is what is stopped.
        let stop = Stop::default();
        let mut metric = CommandMetric::new(&command, None, 600.0).until(stop.clone());
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            stop.stop();
        });
        assert!(matches!(metric.evaluate(Path::new("m")), Err(MetricError::Stopped)));
        std::thread::sleep(Duration::from_millis(2500));
        assert!(!mark.exists(), "something lived on");
    }

    #[test]
    fn what_is_left_running_does_not_keep_it_waiting() {
        let started = Instant::now();
        assert_eq!(run("sleep 100 & echo 4 # {model}").unwrap(), 4.0);
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
