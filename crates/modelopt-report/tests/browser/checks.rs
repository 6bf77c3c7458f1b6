//! What is checked.

use modelopt_report::Document;
use serde_json::Value;

use crate::browser::{Browser, DARK, DESKTOP, PAPER, PHONE};
use crate::common::{latency, output, quantized, refused, rich};

type Check = (&'static str, fn(&mut Browser));

pub(crate) const ALL: &[Check] = &[
    ("errors_and_requests_are_noticed", errors_and_requests_are_noticed),
    ("reports_open_quietly", reports_open_quietly),
    ("reports_may_not_load_anything", reports_may_not_load_anything),
    ("the_plan_is_sorted", the_plan_is_sorted),
    ("the_plan_is_sorted_by_keyboard", the_plan_is_sorted_by_keyboard),
    ("the_plan_is_filtered", the_plan_is_filtered),
    ("names_are_never_markup", names_are_never_markup),
    ("plots_have_room_for_their_text", plots_have_room_for_their_text),
    ("dark_theme", dark_theme),
    ("phones", phones),
    ("paper", paper),
];

const PLANTED: &str = "<img src=\"http://planted.invalid/x.png\">";

fn errors_and_requests_are_noticed(browser: &mut Browser) {
    let html = format!(
        "<!doctype html><script>console.error('told')</script><script>thrown()</script>{PLANTED}"
    );
    let page = browser.open("control", &html, DESKTOP);
    let console = page.console().join("\n");
    assert!(["told", "thrown"].iter().all(|error| console.contains(error)), "{console}");
    assert_eq!(page.requests(), ["http://planted.invalid/x.png"]);
}

fn reports_open_quietly(browser: &mut Browser) {
    let empty = Document { command: "inspect".into(), ..Document::default() };
    for (name, document) in [("passed", rich(40)), ("refused", refused(3)), ("empty", empty)] {
        let mut page = browser.open(name, &document.to_html(), DESKTOP);
        assert_eq!(page.console(), [""; 0]);
        assert_eq!(page.requests(), [""; 0]);
        assert!(page.screenshot() > 10_000);
    }
}

fn reports_may_not_load_anything(browser: &mut Browser) {
    let html = rich(3).to_html().replace("</main>", &format!("{PLANTED}</main>"));
    let page = browser.open("policy", &html, DESKTOP);
    assert!(page.console().iter().any(|line| line.contains("Content Security Policy")));
    assert_eq!(page.requests(), [""; 0]);
}

fn the_plan_is_sorted(browser: &mut Browser) {
    let document = rich(40);
    let found = browser.probe("sorted", &document, DESKTOP);
    let line = |number: u64| &document.plan[number as usize - 1];

    assert_eq!(found["start"]["aria"], "ascending");
    assert_eq!(numbers(&found["start"]), (1..=40).collect::<Vec<_>>());

    let up = numbers(&found["before"]);
    assert_eq!((up.len(), &found["before"]["aria"]), (40, &Value::from("ascending")));
    assert!(up.is_sorted_by_key(|&at| line(at).bytes_before) && !up.is_sorted(), "{up:?}");
    let down = numbers(&found["beforeAgain"]);
    assert_eq!(found["beforeAgain"]["aria"], "descending");
    assert!(down.iter().rev().is_sorted_by_key(|&at| line(at).bytes_before), "{down:?}");

    let noise: Vec<_> = numbers(&found["sqnr"]).into_iter().map(|at| line(at).sqnr_db).collect();
    let known: Vec<_> = noise.iter().copied().take_while(Option::is_some).collect();
    assert!(known.is_sorted() && noise[known.len()..].iter().all(Option::is_none), "{noise:?}");
    // By the number in the name, not by its digits.
    assert_eq!(numbers(&found["layer"]), (1..=40).collect::<Vec<_>>());
    assert_eq!(found["sorted"], 1);
}

fn the_plan_is_sorted_by_keyboard(browser: &mut Browser) {
    let mut page = browser.open("keyboard", &rich(40).to_html(), DESKTOP);
    page.evaluate("document.querySelectorAll('#plan th button')[4].focus()");
    page.press_enter();
    page.press_enter();
    let sorted = "document.querySelector('#plan [aria-sort=descending]').textContent";
    assert_eq!(page.evaluate(sorted), "Before");
}

fn the_plan_is_filtered(browser: &mut Browser) {
    let document = rich(40);
    let found = browser.probe("filtered", &document, DESKTOP);
    let kept = |number: &u64| document.plan[*number as usize - 1].scheme == "keep";
    assert_eq!(found["filterShown"], true);
    assert_eq!(numbers(&found["byText"]), [2, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    assert_eq!(found["byText"]["count"], "11 of 40 layers");
    assert_eq!(numbers(&found["byScheme"]), (1..=40).filter(kept).collect::<Vec<_>>());
    assert_eq!(numbers(&found["byBoth"]), [4, 32, 39]);
    assert_eq!(numbers(&found["none"]), [0; 0]);
    assert_eq!(numbers(&found["all"]).len(), 40);
}

fn names_are_never_markup(browser: &mut Browser) {
    for layers in [3, 40] {
        let mut document = refused(layers);
        let plain = browser.probe("plain", &document, DESKTOP);
        crate::common::rename_all(&mut document, crate::common::HOSTILE);
        let found = browser.probe("hostile", &document, DESKTOP);
        for count in ["scripts", "images", "plots"] {
            assert_eq!(found[count], plain[count], "{count}");
        }
    }
}

fn plots_have_room_for_their_text(browser: &mut Browser) {
    let named = |name: &str, layers| {
        let mut document = refused(layers);
        document.plan.iter_mut().for_each(|line| line.layer = name.into());
        document
    };
    let strange = vec![output("a", 1e300), output("b", -1e300), output("c", f64::NAN)];
    for (name, document) in [
        ("layers-3", rich(3)),
        ("layers-200", rich(200)),
        ("layers-2000", rich(2000)),
        ("wide-names", named(&"W".repeat(1000), 24)),
        ("chinese-names", named(&"\u{6570}\u{636e}".repeat(40), 3)),
        ("strange-figures", quantized(strange, Some(latency(1e300, 1e-300)))),
        ("many-outputs", quantized(vec![output("logits", 20.0); 300], None)),
    ] {
        for view in [DESKTOP, PHONE] {
            let found = browser.probe(name, &document, view);
            assert_eq!(found["flaws"], Value::Array(vec![]), "{name} {view:?}");
            assert_eq!(found["overflow"], 0, "{name} {view:?}");
        }
        browser.open(name, &document.to_html(), DESKTOP).screenshot();
    }
}

fn dark_theme(browser: &mut Browser) {
    let backgrounds = [DESKTOP, DARK].map(|view| {
        let found = browser.probe("theme", &rich(3), view);
        found["background"].as_str().unwrap().to_owned()
    });
    assert_eq!(backgrounds, ["rgb(246, 247, 248)", "rgb(18, 22, 27)"]);
    for (name, document) in [("passed", rich(40)), ("refused", refused(3))] {
        browser.open(name, &document.to_html(), DARK).screenshot();
    }
}

fn phones(browser: &mut Browser) {
    for (name, document) in [("passed", rich(40)), ("refused", refused(3))] {
        let found = browser.probe(name, &document, PHONE);
        assert_eq!(found["overflow"], 0, "wider than the screen");
        assert_eq!(found["flaws"], Value::Array(vec![]));
        browser.open(name, &document.to_html(), PHONE).screenshot();
    }
}

fn paper(browser: &mut Browser) {
    let mut page = browser.open("passed", &rich(40).to_html(), PAPER);
    let shown = "document.querySelector('.filter').checkVisibility()";
    assert_eq!(page.evaluate(shown), false);
    // Nothing stands beyond the edge of the paper, not even of what is folded away on a screen.
    assert_eq!(page.evaluate("document.documentElement.scrollWidth - innerWidth"), 0);
    page.screenshot();
}

fn numbers(found: &Value) -> Vec<u64> {
    found["numbers"].as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}
