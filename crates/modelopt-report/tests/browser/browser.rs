//! Pages in a browser, and what came of opening them.

use std::fs;
use std::path::{Path, PathBuf};

use modelopt_report::Document;
use serde_json::{Value, json};
use xtask::devtools::{DevTools, Tab, View};

/// Uses the page as a reader would, and says what it found.
const PROBE: &str = include_str!("probe.js");

pub(crate) struct Browser {
    tools: DevTools,
    /// Where pages and screenshots are written.
    folder: PathBuf,
}

pub(crate) const DESKTOP: View = View { width: 1200, dark: false, media: "screen" };
pub(crate) const PHONE: View = View { width: 360, ..DESKTOP };
pub(crate) const DARK: View = View { dark: true, ..DESKTOP };
pub(crate) const PAPER: View = View { width: 760, media: "print", ..DESKTOP };

impl Browser {
    pub(crate) fn start(program: &Path, folder: &Path) -> Self {
        Browser { tools: DevTools::start(program, folder), folder: folder.to_owned() }
    }

    /// Opens a page, which is written to the folder under this name.
    pub(crate) fn open(&mut self, name: &str, page: &str, view: View) -> Page<'_> {
        let file = self.folder.join(format!("{name}.html"));
        fs::write(&file, page).unwrap();
        let url = format!("file://{}", file.display());
        let image = format!("{name}-{}-{}-{}.png", view.media, view.scheme(), view.width);
        let image = self.folder.join(image);
        Page { tab: Tab::open(&mut self.tools, &url, view), url, image }
    }

    /// Opens a report, which must be quiet, and probes it.
    pub(crate) fn probe(&mut self, name: &str, document: &Document, view: View) -> Value {
        let mut page = self.open(name, &document.to_html(), view);
        let found = page.evaluate(PROBE);
        assert_eq!(page.console(), [""; 0], "{name}");
        assert_eq!(page.requests(), [""; 0], "{name}");
        found
    }
}

/// An open page; it is closed with this value.
pub(crate) struct Page<'a> {
    tab: Tab<'a>,
    url: String,
    image: PathBuf,
}

impl Page<'_> {
    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        self.tab.evaluate(script)
    }

    pub(crate) fn console(&self) -> Vec<String> {
        self.tab.console()
    }

    /// Presses the enter key.
    pub(crate) fn press_enter(&mut self) {
        for (kind, text) in [("keyDown", "\r"), ("keyUp", "")] {
            let key = json!({
                "type": kind, "key": "Enter", "code": "Enter", "text": text,
                "windowsVirtualKeyCode": 13,
            });
            self.tab.call("Input.dispatchKeyEvent", &key);
        }
    }

    /// What was asked of the network, but for the page itself.
    pub(crate) fn requests(&self) -> Vec<String> {
        let blocked = |request: &Value| {
            let mut failures = self.tab.told("Network.loadingFailed");
            failures.any(|failed| {
                failed["requestId"] == request["requestId"] && failed["blockedReason"] == "csp"
            })
        };
        let sent = self.tab.told("Network.requestWillBeSent").filter(|request| !blocked(request));
        let urls = sent.map(|request| request["request"]["url"].as_str().unwrap_or_default());
        let outside = urls.filter(|url| *url != self.url && !url.starts_with("data:"));
        outside.map(str::to_owned).collect()
    }

    /// Writes an image of the page, and gives its size in bytes.
    pub(crate) fn screenshot(&mut self) -> usize {
        self.tab.screenshot(&self.image)
    }
}
