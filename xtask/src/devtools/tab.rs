//! A page that is open in a browser.

use std::path::Path;

use data_encoding::BASE64;
use fs_err as fs;
use serde_json::{Value, json};

use super::DevTools;

/// Of screenshots.
const MOST_HEIGHT: f64 = 7000.0;

/// Views of fewer pixels are those of phones.
const PHONE: u32 = 500;

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// In pixels.
    pub width: u32,
    /// Whether the reader wants it dark.
    pub dark: bool,
    /// `screen` or `print`.
    pub media: &'static str,
}

impl View {
    /// The colours that it asks for.
    pub fn scheme(self) -> &'static str {
        if self.dark { "dark" } else { "light" }
    }
}

/// An open page; it is closed with this value.
pub struct Tab<'a> {
    tools: &'a mut DevTools,
    session: String,
    target: Value,
}

impl<'a> Tab<'a> {
    /// Opens what is at a URL, and waits until it is loaded.
    ///
    /// # Panics
    /// If it cannot be loaded.
    pub fn open(tools: &'a mut DevTools, url: &str, view: View) -> Self {
        let target = tools.call("", "Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = tools.call("", "Target.attachToTarget", &attach);
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tools.call(&session, &format!("{domain}.enable"), &json!({}));
        }
        let phone = view.width < PHONE;
        let metrics = json!({
            "width": view.width, "height": 900, "deviceScaleFactor": if phone { 2 } else { 1 },
            "mobile": phone,
        });
        tools.call(&session, "Emulation.setDeviceMetricsOverride", &metrics);
        let features = [json!({ "name": "prefers-color-scheme", "value": view.scheme() })];
        let media = json!({ "media": view.media, "features": features });
        tools.call(&session, "Emulation.setEmulatedMedia", &media);
        tools.call(&session, "Page.navigate", &json!({ "url": url }));
        tools.wait(&session, "Page.loadEventFired");
        Tab { tools, session, target }
    }

    /// Calls a method of the page.
    ///
    /// # Panics
    /// If it answers with an error.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.tools.call(&self.session, method, parameters)
    }

    /// The value of a JavaScript expression.
    ///
    /// # Panics
    /// If it throws.
    pub fn evaluate(&mut self, script: &str) -> Value {
        let parameters = json!({ "expression": script, "returnByValue": true });
        let result = self.call("Runtime.evaluate", &parameters);
        assert!(result.get("exceptionDetails").is_none(), "{result}");
        result["result"]["value"].clone()
    }

    /// What the console was told: by scripts, of errors in them, and by the browser.
    pub fn console(&self) -> Vec<String> {
        const KINDS: [&str; 3] =
            ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"];
        let events = self.tools.events(&self.session);
        let said = events.filter(|event| KINDS.iter().any(|kind| event["method"] == *kind));
        said.map(|event| event["params"].to_string()).collect()
    }

    /// What the page told under the name of a method.
    pub fn told(&self, method: &'static str) -> impl Iterator<Item = &Value> {
        let events = self.tools.events(&self.session);
        events.filter(move |event| event["method"] == method).map(|event| &event["params"])
    }

    /// Writes an image of the page, of its upper end if it is very long, and gives its size in bytes.
    ///
    /// # Panics
    /// If that is not possible.
    pub fn screenshot(&mut self, file: &Path) -> usize {
        let metrics = self.call("Page.getLayoutMetrics", &json!({}));
        let mut clip = metrics["cssContentSize"].clone();
        clip["scale"] = 1.into();
        if clip["height"].as_f64() > Some(MOST_HEIGHT) {
            clip["height"] = MOST_HEIGHT.into();
        }
        let parameters = json!({ "captureBeyondViewport": true, "clip": clip });
        let shot = self.call("Page.captureScreenshot", &parameters);
        let image = BASE64.decode(shot["data"].as_str().unwrap().as_bytes()).unwrap();
        fs::write(file, &image).unwrap();
        image.len()
    }
}

impl Drop for Tab<'_> {
    fn drop(&mut self) {
        let target = json!({ "targetId": self.target["targetId"] });
        self.tools.call("", "Target.closeTarget", &target);
    }
}
