//! A headless browser for tests: the protocol of Chromium's developer tools over a pipe, JSON messages that
//! end with a NUL. What goes wrong fails the test.

mod harness;
mod tab;

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

pub use harness::run;
pub use tab::{Tab, View};

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const PATIENCE: Duration = Duration::from_mins(1);
/// Chromium talks on descriptors 3 and 4.
const ON_3_AND_4: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

/// The first of the usual names on PATH.
pub fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let places = || env::split_paths(&path);
    let mut programs = NAMES.iter().flat_map(|name| places().map(move |at| at.join(name)));
    programs.find(|program| program.is_file())
}

/// A headless browser; it ends with this value.
pub struct DevTools {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    calls: u64,
    /// What was told and not yet taken.
    events: Vec<Value>,
}

impl DevTools {
    /// Starts it, with its profile and its log in `folder`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(program: &Path, folder: &Path) -> Self {
        let mut process = Command::new("sh")
            .args(["-c", ON_3_AND_4])
            .arg(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
            .args(["--remote-debugging-pipe", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join("chromium.log")).unwrap())
            .spawn()
            .unwrap();
        let (told, from) = channel();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                let _ = told.send(serde_json::from_slice(&message[..message.len() - 1]).unwrap());
                message.clear();
            }
        });
        let to = process.stdin.take().unwrap();
        DevTools { process, to, from, calls: 0, events: Vec::new() }
    }

    /// Calls a method, of a page's session unless that is empty.
    ///
    /// # Panics
    /// If it answers with an error, or not within a minute.
    pub fn call(&mut self, session: &str, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if !session.is_empty() {
            message["sessionId"] = session.into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.next();
            if answer["id"] != self.calls {
                self.events.push(answer);
                continue;
            }
            assert!(answer.get("error").is_none(), "{method}: {answer}");
            return answer["result"].clone();
        }
    }

    /// Waits until the session tells of this.
    ///
    /// # Panics
    /// If it does not for a minute.
    pub fn wait(&mut self, session: &str, method: &str) {
        let wanted = |event: &Value| event["sessionId"] == session && event["method"] == method;
        while !self.events.iter().any(wanted) {
            let event = self.next();
            self.events.push(event);
        }
    }

    /// All that the session told so far.
    pub fn events(&self, session: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |event| event["sessionId"] == session)
    }

    fn next(&self) -> Value {
        self.from.recv_timeout(PATIENCE).expect("Chromium answers; see chromium.log")
    }
}

impl Drop for DevTools {
    fn drop(&mut self) {
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.process.wait();
    }
}
