//! What several figures are made of: squares of cells, colour bars, line charts, and the numbers along their axes.

pub(super) mod bar;
pub(super) mod chart;
pub(super) mod dendrogram;
pub(super) mod layers;
pub(super) mod linkage;
pub(super) mod names;
pub(super) mod panel;
pub(super) mod side_by_side;
pub(super) mod square;
pub(super) mod ticks;
pub(super) mod values;
