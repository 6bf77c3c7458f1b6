//! What is checked.

use std::path::Path;

use xtask::devtools::{DevTools, View};

use crate::page::Page;
use crate::server::Server;

type Check = (&'static str, fn(&mut DevTools, &Server, &Path));

/// In this order: the last one takes the model away.
pub(crate) const ALL: &[Check] = &[
    ("models_and_their_figures_are_shown", models_and_their_figures_are_shown),
    ("an_example_is_sent_and_answered", an_example_is_sent_and_answered),
    ("nothing_else_may_be_run_or_loaded", nothing_else_may_be_run_or_loaded),
    ("phones_and_darkness", phones_and_darkness),
    ("what_changes_is_followed", what_changes_is_followed),
];

const DESKTOP: View = View { width: 1200, dark: false, media: "screen" };
const LOADED: &str = "document.querySelectorAll('#models section').length === 3";

fn url(server: &Server) -> String {
    format!("http://{}/", server.address)
}

fn models_and_their_figures_are_shown(tools: &mut DevTools, server: &Server, folder: &Path) {
    let mut page = Page::open(tools, &url(server), DESKTOP);
    page.wait(LOADED);
    let text = page.text("#models");
    for part in
        ["digits", "version 2", "unavailable", "image", "[batch, 1, 8, 8]", "Batching is on"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let curl = page.text("#curl");
    assert!(curl.starts_with(&format!("curl '{}v2/models/digits/versions/1/infer'", url(server))));
    assert!(page.screenshot(&folder.join("models.png")) > 10_000);
    assert_eq!(page.console(), [""; 0]);
    assert_eq!(page.requests_beside(&url(server)), [""; 0]);
}

fn an_example_is_sent_and_answered(tools: &mut DevTools, server: &Server, folder: &Path) {
    let mut page = Page::open(tools, &url(server), DESKTOP);
    page.wait(LOADED);
    page.evaluate("document.querySelector('#try button[type=submit]').click()");
    page.wait("!document.querySelector('#answer').hidden");
    let (outcome, answer) = (page.text("#outcome"), page.text("#answer"));
    assert!(outcome.starts_with("200 after "), "{outcome}: {answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["outputs"][0]["shape"], serde_json::json!([1, 10]));
    // It is counted, and the page looks every second.
    page.wait("!document.querySelector('.figures').innerText.includes('–')");
    page.screenshot(&folder.join("answered.png"));
    assert_eq!(page.console(), [""; 0]);
}

fn nothing_else_may_be_run_or_loaded(tools: &mut DevTools, server: &Server, _: &Path) {
    let mut page = Page::open(tools, &url(server), DESKTOP);
    page.wait(LOADED);
    page.evaluate("globalThis.ran = 0");
    let script = "const script = document.createElement('script'); script.textContent = 'ran = 1'; \
                  document.body.append(script); \
                  const image = document.createElement('div'); \
                  image.innerHTML = '<img src=x onerror=\"ran = 2\">'; document.body.append(image);";
    page.evaluate(&format!("{{ {script} }}"));
    page.wait("performance.now() > 0");
    assert_eq!(page.evaluate("ran"), 0);
    let told = page.console().join("\n");
    assert!(told.contains("Content Security Policy"), "{told}");
}

fn phones_and_darkness(tools: &mut DevTools, server: &Server, folder: &Path) {
    let mut page = Page::open(tools, &url(server), View { width: 360, dark: true, ..DESKTOP });
    page.wait(LOADED);
    let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(page.evaluate(overflow), 0);
    let ground = page.evaluate("getComputedStyle(document.body).backgroundColor");
    assert_eq!(ground, "rgb(18, 22, 27)");
    page.screenshot(&folder.join("phone.png"));
    assert_eq!(page.console(), [""; 0]);
}

fn what_changes_is_followed(tools: &mut DevTools, server: &Server, _: &Path) {
    let mut page = Page::open(tools, &url(server), DESKTOP);
    page.wait(LOADED);
    page.evaluate("document.querySelector('#request').value = 'mine'");
    server.unload();
    page.wait("document.querySelector('#models').innerText.includes('it was unloaded')");
    assert_eq!(page.evaluate("document.querySelectorAll('.figures').length"), 0);
    // What somebody wrote stays.
    assert_eq!(page.evaluate("document.querySelector('#request').value"), "mine");
    assert_eq!(page.console(), [""; 0]);
}
