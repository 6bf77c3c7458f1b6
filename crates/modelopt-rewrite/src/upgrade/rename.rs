//! Operators and attribute values that got other names, and defaults that became something else:
//!
//! ```text
//! y = Scatter(x, at, with)                 =>    y = ScatterElements(x, at, with)
//! y = GridSample(x, at) {mode = bilinear}  =>    y = GridSample(x, at) {mode = linear}
//! y = RoiAlign(x, rois, of)                =>    y = RoiAlign(x, rois, of)
//!                                  {coordinate_transformation_mode = output_half_pixel}
//! ```

use super::site::{Obstacle, Site};

/// `ScatterElements` is `Scatter` by another name.
pub(super) fn scatter(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    site.rename("ScatterElements");
    Ok(true)
}

/// The modes lost their `bi`.
pub(super) fn grid_sample(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    let mode = match site.text("mode")? {
        Some("bilinear") => "linear",
        Some("bicubic") => "cubic",
        _ => return Ok(false),
    };
    site.set_attribute("mode", mode);
    Ok(true)
}

/// Coordinates are shifted by half a pixel from version 16 on, unless one says otherwise.
pub(super) fn roi_align(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    site.set_attribute("coordinate_transformation_mode", "output_half_pixel");
    Ok(true)
}
