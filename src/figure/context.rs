//! What a figure says that no table holds.

/// What the tables do not say about a study.
#[derive(Debug, Clone, Copy, Default)]
pub struct FigureContext<'a> {
    /// The base model's name, for the overviews' titles.
    pub base_name: Option<&'a str>,
    /// The adapter that a fit is of, where its table does not say.
    pub adapter: Option<&'a str>,
}
