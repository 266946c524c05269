//! A table with any type of rows: the operations that are the same for all tables of a study.

use std::io::{self, Read, Write};
use std::path::Path;

use super::columns::Row;
use super::csv;
#[cfg(feature = "parquet")]
use super::parquet;
use crate::error::Result;
use crate::terms::Status;

/// A table with any type of rows.
pub trait AnyTable {
    /// Its name, which is its file's without the ending.
    fn name(&self) -> &'static str;

    /// How many rows it has.
    fn len(&self) -> usize;

    /// Whether it has no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes it as CSV.
    ///
    /// # Errors
    /// Only those of `out`.
    fn write_csv(&self, out: &mut dyn Write) -> io::Result<()>;

    /// Writes it as Parquet.
    ///
    /// # Errors
    /// Only those of `out`.
    #[cfg(feature = "parquet")]
    fn write_parquet(&self, out: &mut (dyn Write + Send)) -> io::Result<()>;

    /// Adds the rows of a CSV; `path` is for messages.
    ///
    /// # Errors
    /// Those of [`csv::read_rows`].
    fn read_csv(&mut self, path: &Path, input: &mut dyn Read) -> Result<()>;

    /// The rows with another status than `ok`, each by its adapter (the first, of two), module and status; a table without statuses has none.
    fn doubts(&self) -> Vec<[&str; 3]>;

    /// Leaves out every row that has another name in one of these columns; a table without the column keeps all.
    fn keep(&mut self, columns: &[&str], names: &[String]);
}

impl<R: Row> AnyTable for Vec<R> {
    fn name(&self) -> &'static str {
        R::TABLE
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn write_csv(&self, out: &mut dyn Write) -> io::Result<()> {
        csv::write_rows(out, self)
    }

    #[cfg(feature = "parquet")]
    fn write_parquet(&self, out: &mut (dyn Write + Send)) -> io::Result<()> {
        parquet::write_rows(out, self)
    }

    fn read_csv(&mut self, path: &Path, input: &mut dyn Read) -> Result<()> {
        self.extend(csv::read_rows_from(path, input)?);
        Ok(())
    }

    fn doubts(&self) -> Vec<[&str; 3]> {
        self.iter().filter_map(doubt_of).collect()
    }

    fn keep(&mut self, columns: &[&str], names: &[String]) {
        let kept = |name: &str| names.iter().any(|kept| kept == name);
        self.retain(|row| columns.iter().all(|column| row.name_in(column).is_none_or(kept)));
    }
}

/// A row's adapter (the first, of two), module and status, where that is not `ok`.
fn doubt_of<R: Row>(row: &R) -> Option<[&str; 3]> {
    let status = row.name_in("status").filter(|status| *status != Status::Ok.name())?;
    let adapter = row.name_in("adapter").or_else(|| row.name_in("adapter_a"));
    Some([adapter.unwrap_or_default(), row.name_in("module").unwrap_or_default(), status])
}

/// The place of a table in a study.
pub trait Slot {
    /// The name of the table that belongs here.
    fn name(&self) -> &'static str;

    /// Whether every study has this table, even without rows.
    fn is_required(&self) -> bool;

    /// The table, if the study has it.
    fn table(&self) -> Option<&dyn AnyTable>;

    /// The table, if the study has it.
    fn table_mut(&mut self) -> Option<&mut dyn AnyTable>;

    /// The table, which is made if the study does not have it.
    fn fill(&mut self) -> &mut dyn AnyTable;

    /// Reserves room for exactly this many more rows.
    fn reserve_exact(&mut self, rows: usize);

    /// Adds the rows of another.
    fn append(&mut self, other: Self)
    where
        Self: Sized;
}

/// A table that every study has.
impl<R: Row> Slot for Vec<R> {
    fn name(&self) -> &'static str {
        R::TABLE
    }

    fn is_required(&self) -> bool {
        true
    }

    fn table(&self) -> Option<&dyn AnyTable> {
        Some(self)
    }

    fn table_mut(&mut self) -> Option<&mut dyn AnyTable> {
        Some(self)
    }

    fn fill(&mut self) -> &mut dyn AnyTable {
        self
    }

    fn reserve_exact(&mut self, rows: usize) {
        self.reserve_exact(rows);
    }

    fn append(&mut self, other: Self) {
        self.extend(other);
    }
}

/// A table that exists only on request.
impl<R: Row> Slot for Option<Vec<R>> {
    fn name(&self) -> &'static str {
        R::TABLE
    }

    fn is_required(&self) -> bool {
        false
    }

    fn table(&self) -> Option<&dyn AnyTable> {
        self.as_ref().map(|rows| rows as &dyn AnyTable)
    }

    fn table_mut(&mut self) -> Option<&mut dyn AnyTable> {
        self.as_mut().map(|rows| rows as &mut dyn AnyTable)
    }

    fn fill(&mut self) -> &mut dyn AnyTable {
        self.get_or_insert_default()
    }

    fn reserve_exact(&mut self, rows: usize) {
        if rows > 0 {
            self.get_or_insert_default().reserve_exact(rows);
        }
    }

    fn append(&mut self, other: Self) {
        if let Some(rows) = other {
            self.get_or_insert_default().extend(rows);
        }
    }
}

/// Defines a struct of tables, each a `Vec` of rows or optional, and the operations on all of them.
macro_rules! tables {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $table:ident: $rows:ty,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name { $($(#[$doc])* pub $table: $rows,)+ }

        impl $name {
            /// The tables that the study has, in the order they are written.
            pub fn each(&self) -> impl Iterator<Item = &dyn AnyTable> {
                [$(self.$table.table()),+].into_iter().flatten()
            }

            /// A slot for every table, whether the study has it or not.
            pub fn each_mut(&mut self) -> impl Iterator<Item = &mut dyn Slot> {
                [$(&mut self.$table as &mut dyn Slot),+].into_iter()
            }

            /// Adds the rows of `parts`, in their order.
            pub fn append(&mut self, parts: Vec<Self>) {
                $(self.$table.reserve_exact(parts.iter().filter_map(|part| part.$table.table()).map(AnyTable::len).sum());)+
                for part in parts {
                    $(Slot::append(&mut self.$table, part.$table);)+
                }
            }
        }
    };
}
pub(super) use tables;

#[cfg(test)]
mod tests {
    use super::super::{SpectrumRow, Tables, TrainingRow};
    use super::*;
    use crate::terms::SpectrumMatrix;

    fn row(adapter: &str, module: &str, k: usize) -> SpectrumRow {
        SpectrumRow { adapter: adapter.into(), module: module.into(), matrix: SpectrumMatrix::A, layer: None, k, sigma: 0.5 }
    }

    fn log(adapter: &str) -> TrainingRow {
        TrainingRow { adapter: adapter.into(), step: 1, epoch: None, name: "loss".into(), value: None }
    }

    fn tables(spectrum: Vec<SpectrumRow>, training: Option<Vec<TrainingRow>>) -> Tables {
        Tables { spectrum, training, ..Tables::default() }
    }

    #[test]
    fn parts_are_put_behind_one_another_and_a_table_that_none_has_stays_away() {
        let mut all = Tables { grid: Some(Vec::new()), ..Tables::default() };
        all.append(vec![tables(vec![row("b", "q", 1)], None), tables(vec![row("a", "q", 1)], Some(vec![log("a")]))]);
        assert_eq!(all.spectrum, [row("b", "q", 1), row("a", "q", 1)]);
        assert_eq!((all.training, all.grid, all.across), (Some(vec![log("a")]), Some(Vec::new()), None));
    }

    #[test]
    fn rows_are_kept_by_name_where_there_is_such_a_column() {
        let mut all = tables(vec![row("a", "q", 9), row("b", "v", 2), row("b", "q", 1)], Some(vec![log("a"), log("b")]));
        let keep = |all: &mut Tables, column, name: &str| {
            all.each_mut().filter_map(Slot::table_mut).for_each(|table| table.keep(&[column], &[name.to_owned()]));
        };
        keep(&mut all, "module", "q");
        assert_eq!((&all.spectrum[..], all.training.as_ref().unwrap().len()), (&[row("a", "q", 9), row("b", "q", 1)][..], 2));
        keep(&mut all, "adapter", "b");
        assert_eq!((&all.spectrum[..], all.training.as_deref()), (&[row("b", "q", 1)][..], Some(&[log("b")][..])));
    }

    #[test]
    fn tables_are_listed_as_they_are_written() {
        let mut all = tables(Vec::new(), Some(Vec::new()));
        let names: Vec<&str> = all.each().map(AnyTable::name).collect();
        assert_eq!(names, ["summary", "similarity", "conversion", "spectrum", "training"]);
        let required: Vec<&str> = all.each_mut().filter(|slot| slot.is_required()).map(|slot| slot.name()).collect();
        assert_eq!(required, ["summary", "similarity", "conversion", "spectrum"]);
        let text = "sigma,adapter,k,module,layer,matrix\n0.5,a,1,q,,A\n";
        all.spectrum.read_csv(Path::new("spectrum.csv"), &mut text.as_bytes()).unwrap();
        assert_eq!(all.spectrum, [row("a", "q", 1)]);
        assert!(!all.spectrum.is_empty());
    }
}
