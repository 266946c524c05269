//! The training logs in the adapters' directories: rows of `training.csv`.

use super::adapter::PlannedAdapter;
use crate::checkpoint::{find_training_log, read_training_log};
use crate::record::InputRecord;
use crate::table::TrainingRow;

/// The log of one adapter of a plan.
pub(crate) struct PlannedLog {
    /// The adapter's index.
    pub(crate) adapter: usize,
    pub(crate) rows: Vec<TrainingRow>,
    pub(crate) record: InputRecord,
}

/// Reads the logs that exist. A malformed log gives a warning (adapter and text), since no result depends on it.
pub(crate) fn read_logs(adapters: &[PlannedAdapter]) -> (Vec<PlannedLog>, Vec<(String, String)>) {
    let (mut logs, mut warnings) = (Vec::new(), Vec::new());
    for (index, planned) in adapters.iter().enumerate() {
        let name = &planned.adapter.name;
        let Some(path) = find_training_log(&planned.adapter.dir) else { continue };
        match read_training_log(&path) {
            Ok(log) => {
                let row = |value: crate::checkpoint::LoggedValue| TrainingRow {
                    adapter: name.clone(),
                    step: value.step,
                    epoch: value.epoch,
                    name: value.name,
                    value: value.value,
                };
                let rows = log.values.into_iter().map(row).collect();
                logs.push(PlannedLog { adapter: index, rows, record: log.record });
            }
            Err(error) => warnings.push((name.clone(), format!("its training log is left out: {error}"))),
        }
    }
    (logs, warnings)
}
