//! A part of the work: some members of a group, and some draws of its controls, solved through all its weights.

use std::ops::Range;

/// One reading of a group's weights: everything that is solved through them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) group: usize,
    /// The group's members in this pass.
    pub(crate) members: Range<usize>,
    /// The draws of the controls in this pass.
    pub(crate) draws: Range<usize>,
    /// Whether adapters are compared with one another; the pass then has all members.
    pub(crate) across: bool,
    /// Whether the layers of each adapter are compared; their vectors are then kept until all layers are solved.
    pub(crate) within: bool,
}
