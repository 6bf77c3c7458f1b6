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
#[allow(clippy::unnecessary_wraps)] // As adapters are.
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
#[allow(clippy::unnecessary_wraps)] // As adapters are.
pub(super) fn roi_align(site: &mut Site<'_>) -> Result<bool, Obstacle> {
    site.set_attribute("coordinate_transformation_mode", "output_half_pixel");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::upgrade::testing::{last, one, raised};

    #[test]
    fn names_change_and_what_was_a_default_is_said() {
        let mut scatter = one(10, "Scatter", &[&[3], &[1], &[1]], &[("axis", 0.into())]);
        assert_eq!(raised(&mut scatter, 11), ["ScatterElements"]);
        assert_eq!(last(&scatter.model).int("axis", 7), 0);
        for (before, after) in
            [("bilinear", "linear"), ("bicubic", "cubic"), ("nearest", "nearest")]
        {
            let shapes: [&[usize]; 2] = [&[1, 1, 2, 2], &[1, 2, 2, 2]];
            let mut grid = one(16, "GridSample", &shapes, &[("mode", before.into())]);
            raised(&mut grid, 20);
            assert_eq!(last(&grid.model).string("mode"), Some(after));
        }
        let shapes: [&[usize]; 3] = [&[1, 1, 4, 4], &[1, 4], &[1]];
        let mut align = one(10, "RoiAlign", &shapes, &[]);
        raised(&mut align, 16);
        let kind = last(&align.model).string("coordinate_transformation_mode");
        assert_eq!(kind, Some("output_half_pixel"));
    }
}
