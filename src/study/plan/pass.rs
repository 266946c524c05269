//! A part of the work: some members of a group, and some draws of its controls, solved through all its weights.

use std::ops::Range;

/// One reading of a group's weights: what is solved through them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) group: usize,
    /// Of the group's members.
    pub(crate) members: Range<usize>,
    /// Of the controls.
    pub(crate) draws: Range<usize>,
    /// Whether adapters are compared with one another: then all members are there.
    pub(crate) across: bool,
    /// Whether the layers of each adapter are compared: then their vectors are kept until all are there.
    pub(crate) within: bool,
}
