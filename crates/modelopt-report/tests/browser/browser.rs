//! Pages in a browser, and what came of opening them.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use modelopt_report::Document;
use serde_json::{Value, json};
use xtask::devtools::DevTools;

/// Uses the page as a reader would, and says what it found.
const PROBE: &str = include_str!("probe.js");

/// Of screenshots.
const MOST_HEIGHT: f64 = 7000.0;

pub(crate) struct Browser {
    tools: DevTools,
    /// Where pages and screenshots are written.
    folder: PathBuf,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) width: u32,
    pub(crate) dark: bool,
    /// `screen` or `print`.
    pub(crate) media: &'static str,
}

pub(crate) const DESKTOP: View = View { width: 1200, dark: false, media: "screen" };
pub(crate) const PHONE: View = View { width: 360, ..DESKTOP };
pub(crate) const DARK: View = View { dark: true, ..DESKTOP };
pub(crate) const PAPER: View = View { width: 760, media: "print", ..DESKTOP };

impl Browser {
    pub(crate) fn start(program: &Path, folder: PathBuf) -> Self {
        Browser { tools: DevTools::start(program, &folder), folder }
    }

    /// Opens a page, which is written to the folder under this name.
    pub(crate) fn open(&mut self, name: &str, page: &str, view: View) -> Page<'_> {
        let file = self.folder.join(format!("{name}.html"));
        fs::write(&file, page).unwrap();
        let tools = &mut self.tools;
        let target = tools.call("", "Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = tools.call("", "Target.attachToTarget", &attach);
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tools.call(&session, &format!("{domain}.enable"), &json!({}));
        }
        let phone = view.width < 500;
        let metrics = json!({
            "width": view.width, "height": 900, "deviceScaleFactor": if phone { 2 } else { 1 },
            "mobile": phone,
        });
        tools.call(&session, "Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = if view.dark { "dark" } else { "light" };
        let features = [json!({ "name": "prefers-color-scheme", "value": scheme })];
        let media = json!({ "media": view.media, "features": features });
        tools.call(&session, "Emulation.setEmulatedMedia", &media);
        let url = format!("file://{}", file.display());
        tools.call(&session, "Page.navigate", &json!({ "url": url }));
        tools.wait(&session, "Page.loadEventFired");
        let image = format!("{name}-{}-{scheme}-{}.png", view.media, view.width);
        Page { tools, session, url, target, image: self.folder.join(image) }
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
    tools: &'a mut DevTools,
    session: String,
    url: String,
    target: Value,
    image: PathBuf,
}

impl Page<'_> {
    /// The value of a JavaScript expression.
    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        let parameters = json!({ "expression": script, "returnByValue": true });
        let result = self.tools.call(&self.session, "Runtime.evaluate", &parameters);
        assert!(result.get("exceptionDetails").is_none(), "{result}");
        result["result"]["value"].clone()
    }

    /// Presses the enter key.
    pub(crate) fn press_enter(&mut self) {
        for (kind, text) in [("keyDown", "\r"), ("keyUp", "")] {
            let key = json!({
                "type": kind, "key": "Enter", "code": "Enter", "text": text,
                "windowsVirtualKeyCode": 13,
            });
            self.tools.call(&self.session, "Input.dispatchKeyEvent", &key);
        }
    }

    /// What the console was told: by scripts, of errors in them, and by the browser.
    pub(crate) fn console(&self) -> Vec<String> {
        const KINDS: [&str; 3] =
            ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"];
        let events = self.tools.events(&self.session);
        let said = events.filter(|event| KINDS.iter().any(|kind| event["method"] == *kind));
        said.map(|event| event["params"].to_string()).collect()
    }

    /// What was asked of the network, but for the page itself.
    pub(crate) fn requests(&self) -> Vec<String> {
        let told = |method: &'static str| {
            let events = self.tools.events(&self.session);
            events.filter(move |event| event["method"] == method).map(|event| &event["params"])
        };
        let blocked = |request: &Value| {
            let mut failures = told("Network.loadingFailed");
            failures.any(|failed| {
                failed["requestId"] == request["requestId"] && failed["blockedReason"] == "csp"
            })
        };
        let sent = told("Network.requestWillBeSent").filter(|request| !blocked(request));
        let urls = sent.map(|request| request["request"]["url"].as_str().unwrap_or_default());
        let outside = urls.filter(|url| *url != self.url && !url.starts_with("data:"));
        outside.map(str::to_owned).collect()
    }

    /// Writes an image of the page, of its upper end if it is very long, and gives its size in bytes.
    pub(crate) fn screenshot(&mut self) -> usize {
        let metrics = self.tools.call(&self.session, "Page.getLayoutMetrics", &json!({}));
        let mut clip = metrics["cssContentSize"].clone();
        clip["scale"] = 1.into();
        if clip["height"].as_f64() > Some(MOST_HEIGHT) {
            clip["height"] = MOST_HEIGHT.into();
        }
        let parameters = json!({ "captureBeyondViewport": true, "clip": clip });
        let shot = self.tools.call(&self.session, "Page.captureScreenshot", &parameters);
        let image = BASE64.decode(shot["data"].as_str().unwrap().as_bytes()).unwrap();
        fs::write(&self.image, &image).unwrap();
        image.len()
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        let target = json!({ "targetId": self.target["targetId"] });
        self.tools.call("", "Target.closeTarget", &target);
    }
}
