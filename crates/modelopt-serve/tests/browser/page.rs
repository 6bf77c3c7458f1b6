//! The page in a browser.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};
use xtask::devtools::DevTools;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Page<'a> {
    tools: &'a mut DevTools,
    session: String,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) width: u32,
    pub(crate) dark: bool,
}

impl<'a> Page<'a> {
    pub(crate) fn open(tools: &'a mut DevTools, url: &str, view: View) -> Self {
        let target = tools.call("", "Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = tools.call("", "Target.attachToTarget", &attach);
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tools.call(&session, &format!("{domain}.enable"), &json!({}));
        }
        let metrics = json!({
            "width": view.width, "height": 900, "deviceScaleFactor": 1, "mobile": view.width < 500,
        });
        tools.call(&session, "Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = if view.dark { "dark" } else { "light" };
        let features = [json!({ "name": "prefers-color-scheme", "value": scheme })];
        let media = json!({ "media": "screen", "features": features });
        tools.call(&session, "Emulation.setEmulatedMedia", &media);
        tools.call(&session, "Page.navigate", &json!({ "url": url }));
        tools.wait(&session, "Page.loadEventFired");
        Page { tools, session }
    }

    /// The value of a JavaScript expression.
    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        let parameters = json!({ "expression": script, "returnByValue": true });
        let result = self.tools.call(&self.session, "Runtime.evaluate", &parameters);
        assert!(result.get("exceptionDetails").is_none(), "{result}");
        result["result"]["value"].clone()
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

    /// What the console was told: by scripts, of errors in them, and by the browser.
    pub(crate) fn console(&self) -> Vec<String> {
        const KINDS: [&str; 3] =
            ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"];
        let events = self.tools.events(&self.session);
        let said = events.filter(|event| KINDS.iter().any(|kind| event["method"] == *kind));
        said.map(|event| event["params"].to_string()).collect()
    }

    /// What was asked of other servers.
    pub(crate) fn requests_beside(&self, own: &str) -> Vec<String> {
        let events = self.tools.events(&self.session);
        let sent = events.filter(|event| event["method"] == "Network.requestWillBeSent");
        let urls = sent.filter_map(|event| event["params"]["request"]["url"].as_str());
        urls.filter(|url| !url.starts_with(own) && !url.starts_with("data:"))
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn screenshot(&mut self, file: &Path) -> usize {
        let metrics = self.tools.call(&self.session, "Page.getLayoutMetrics", &json!({}));
        let mut clip = metrics["cssContentSize"].clone();
        clip["scale"] = 1.into();
        let parameters = json!({ "captureBeyondViewport": true, "clip": clip });
        let shot = self.tools.call(&self.session, "Page.captureScreenshot", &parameters);
        let image = BASE64.decode(shot["data"].as_str().unwrap().as_bytes()).unwrap();
        std::fs::write(file, &image).unwrap();
        image.len()
    }
}
