//! Converts a scene's device pixels to the pixels of a bitmap of some resolution.

use crate::figure::options::Dpi;
use crate::figure::scene::{PER_INCH, Scene};

/// The conversion from the scene's units to pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// Pixels in one unit.
    pub(super) factor: f64,
    pub(super) pixels_per_metre: u32,
}

impl Scale {
    pub(super) fn new(dpi: Dpi) -> Self {
        let dpi = f64::from(dpi.get());
        // An inch is 0.0254 m.
        Self { factor: dpi / PER_INCH, pixels_per_metre: (dpi / 0.0254).round() as u32 }
    }

    /// Width and height of a scene's bitmap.
    pub(super) fn size(self, scene: &Scene) -> (u32, u32) {
        let size = |units: u32| self.edge(i32::try_from(units).unwrap_or(i32::MAX)).max(1) as u32;
        (size(scene.width), size(scene.height))
    }

    /// The pixel at which something begins or ends. Edges are rounded and not sizes, so that neighbours share an edge.
    pub(super) fn edge(self, units: i32) -> i32 {
        (f64::from(units) * self.factor).round() as i32
    }

    pub(super) fn point(self, (x, y): (i32, i32)) -> (f64, f64) {
        (f64::from(x) * self.factor, f64::from(y) * self.factor)
    }
}
