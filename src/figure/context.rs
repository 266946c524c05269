//! What a figure says that is in no table.

/// Names that the tables of a study do not contain.
#[derive(Debug, Clone, Copy, Default)]
pub struct FigureContext<'a> {
    /// The base model's name, for the titles of overviews.
    pub base_name: Option<&'a str>,
    /// The adapter that was fitted, for the titles of its figures.
    pub adapter: Option<&'a str>,
}
