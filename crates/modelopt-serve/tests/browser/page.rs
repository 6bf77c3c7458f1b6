//! The page in a browser.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::devtools::{DevTools, Tab, View};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Page<'a>(Tab<'a>);

impl<'a> Page<'a> {
    pub(crate) fn open(tools: &'a mut DevTools, url: &str, view: View) -> Self {
        Page(Tab::open(tools, url, view))
    }

    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        self.0.evaluate(script)
    }

    pub(crate) fn text(&mut self, selector: &str) -> String {
        let script = format!("document.querySelector({selector:?})?.innerText ?? ''");
        self.evaluate(&script).as_str().unwrap().to_owned()
    }

    /// Waits until an expression is true.
    pub(crate) fn wait(&mut self, script: &str) {
        let since = Instant::now();
        while self.evaluate(script) != true {
            let text = self.text("body");
            assert!(since.elapsed() < PATIENCE, "never: {script}\n{text}");
            sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn console(&self) -> Vec<String> {
        self.0.console()
    }

    /// What was asked of other servers.
    pub(crate) fn requests_beside(&self, own: &str) -> Vec<String> {
        let sent = self.0.told("Network.requestWillBeSent");
        let urls = sent.filter_map(|request| request["request"]["url"].as_str());
        urls.filter(|url| !url.starts_with(own) && !url.starts_with("data:"))
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn screenshot(&mut self, file: &Path) -> usize {
        self.0.screenshot(file)
    }
}
