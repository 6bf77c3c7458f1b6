//! Plots as inline SVG.
//!
//! Their colours are those of [`canvas`], which the page's style sheet replaces, so that plots
//! follow the light and the dark theme.

mod axis;
mod bars;
mod canvas;
mod columns;
mod histograms;
mod latency;
mod layers;
mod parity;
mod regions;
mod sensitivity;

use serde::Serialize;

pub(crate) use histograms::histograms;
pub(crate) use latency::latency;
pub(crate) use layers::layers;
pub(crate) use parity::parity;
pub(crate) use regions::regions;
pub(crate) use sensitivity::sensitivity;

/// A plot and the words around it, which are not escaped; the SVG is.
#[derive(Debug, Serialize)]
pub(crate) struct Plot {
    pub(crate) title: String,
    /// What there is to see, also for those who cannot see it.
    pub(crate) caption: String,
    pub(crate) svg: minijinja::Value,
}

impl Plot {
    fn new(title: impl Into<String>, caption: impl Into<String>, svg: String) -> Self {
        let svg = minijinja::Value::from_safe_string(svg);
        Plot { title: title.into(), caption: caption.into(), svg }
    }
}
