//! Drawing with few words.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::wording::shortened;

pub(super) const TEXT: RGBColor = RGBColor(0x1c, 0x21, 0x28);
pub(super) const MUTED: RGBColor = RGBColor(0x5b, 0x65, 0x70);
pub(super) const GRID: RGBColor = RGBColor(0xe2, 0xe6, 0xea);
pub(super) const BEFORE: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
pub(super) const AFTER: RGBColor = RGBColor(0x1f, 0x6f, 0xb5);
pub(super) const BAD: RGBColor = RGBColor(0xc2, 0x36, 0x2b);
pub(super) const LIMIT: RGBColor = RGBColor(0x8a, 0x5a, 0x00);

/// Width of every plot: two stand side by side on a desktop, one fills a phone.
pub(super) const WIDTH: f64 = 400.0;
/// Height of letters.
pub(super) const LETTERS: f64 = 12.0;
/// Plotters draws at whole units: this many of them make one unit here.
const UNITS: f64 = 2.0;
/// What plotters divides font sizes by before it writes them.
const PLOTTERS_FONT: f64 = 1.24;

/// A drawing in units that are pixels on a desktop, from the upper left corner.
pub(super) struct Canvas<'a>(DrawingArea<SVGBackend<'a>, Shift>);

/// Which part of a text is at its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// The SVG of what `draw` draws.
pub(super) fn svg(height: f64, draw: impl FnOnce(&Canvas<'_>)) -> String {
    let mut out = String::new();
    let size = [WIDTH, height].map(|length| (length * UNITS) as u32);
    let canvas = Canvas(SVGBackend::with_string(&mut out, (size[0], size[1])).into_drawing_area());
    draw(&canvas);
    drop(canvas);
    out
}

impl Canvas<'_> {
    pub(super) fn line(&self, points: &[(f64, f64)], color: RGBColor, width: f64) {
        let points: Vec<_> = points.iter().copied().map(unit).collect();
        let style = color.stroke_width((width * UNITS) as u32);
        written(&self.0.draw(&PathElement::new(points, style)));
    }

    pub(super) fn rectangle(&self, (x, y): (f64, f64), size: (f64, f64), color: RGBColor) {
        let corners = [unit((x, y)), unit((x + size.0, y + size.1))];
        written(&self.0.draw(&Rectangle::new(corners, color.filled())));
    }

    pub(super) fn dot(&self, at: (f64, f64), color: RGBColor) {
        written(&self.0.draw(&Circle::new(unit(at), 3.0 * UNITS, color.filled())));
    }

    /// Text whose middle line is at the point.
    pub(super) fn text(&self, text: &str, at: (f64, f64), anchor: Anchor, color: RGBColor) {
        let horizontal = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let font = ("sans-serif", LETTERS * UNITS * PLOTTERS_FONT);
        let style = TextStyle::from(font).color(&color).pos(Pos::new(horizontal, VPos::Center));
        written(&self.0.draw(&Text::new(text, unit(at), style)));
    }

    /// Several swatches and their names beside each other, from the left.
    pub(super) fn legend(&self, entries: &[(RGBColor, &str)], at: (f64, f64)) {
        let mut x = at.0;
        for (color, name) in entries {
            self.rectangle((x, at.1 - 4.0), (14.0, 8.0), *color);
            self.text(name, (x + 20.0, at.1), Anchor::Start, TEXT);
            x += 20.0 + width(name) + 18.0;
        }
    }
}

/// Drawings are written to strings, which cannot fail.
fn written<E>(result: &Result<(), E>) {
    debug_assert!(result.is_ok());
}

/// Nothing is drawn further out than this.
const FAR: f64 = 100_000.0;

fn unit((x, y): (f64, f64)) -> (i32, i32) {
    let whole = |length: f64| (length.clamp(-FAR, FAR) * UNITS).round() as i32;
    (whole(x), whole(y))
}

/// About how wide a text is; fonts differ, so rather too much.
pub(super) fn width(text: &str) -> f64 {
    let em = |c: char| match c {
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | 'I' | ' ' | '.' | ',' | ':' | '/' | '|' | '(' | ')' => {
            0.36
        }
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' | '→' => 1.02,
        'A'..='Z' => 0.72,
        _ if c.is_ascii() => 0.6,
        '\u{a0}'..='\u{2fff}' => 0.75,
        '\u{1f000}'.. => 1.4,
        _ => 1.05,
    };
    text.chars().map(em).sum::<f64>() * LETTERS
}

/// The text, without its middle where it is wider than `most`.
pub(super) fn fitted(text: &str, most: f64) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if width(&line) <= most {
        return line;
    }
    let narrower = (3..80).rev().map(|chars| shortened(&line, chars));
    narrower.into_iter().find(|text| width(text) <= most).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_made_to_fit() {
        assert_eq!(fitted("/conv_1/Conv", 150.0), "/conv_1/Conv");
        let long = fitted(&"/encoder/layer.17/attention/MatMul\n".repeat(30), 150.0);
        assert!(width(&long) <= 150.0 && long.chars().count() > 12, "{long}");
        assert!(long.starts_with("/enc") && long.ends_with("atMul "), "{long}");
        assert!(width(&fitted(&"\u{6570}".repeat(99), 150.0)) <= 150.0);
    }

    #[test]
    fn text_in_drawings_is_no_markup() {
        let svg = svg(20.0, |canvas| {
            canvas.text("</svg><script>&\"'", (0.0, 0.0), Anchor::Start, TEXT);
        });
        assert!(svg.contains("&lt;/svg&gt;&lt;script&gt;&amp;&quot;&apos;"), "{svg}");
        assert_eq!((svg.matches("<svg").count(), svg.matches("</svg>").count()), (1, 1));
    }
}
