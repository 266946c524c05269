//! The options of a study as its manifest keeps them.

use std::path::Path;

use super::args::AnalyzeArgs;
use crate::checkpoint::Split;
use crate::error::Result;
use crate::study::AnalyzeParams;
use crate::terms::Convention;

/// The options as they were resolved, for the manifest.
///
/// # Errors
/// [`crate::Error::Usage`] for figure formats that contradict one another.
pub(super) fn options_json(args: &AnalyzeArgs, given: &AnalyzeParams) -> Result<serde_json::Value> {
    let drawing = args.drawing.options()?;
    Ok(serde_json::json!({
        "command": "analyze",
        "paths": given.paths.iter().map(|path| plain(path)).collect::<Vec<_>>(),
        "base": given.base.as_deref().map(plain),
        "out": plain(&args.out),
        "map": given.pairing.maps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "split": given.pairing.split.map(Split::name),
        "modules": given.modules,
        "layers": given.layers,
        "matrices": given.matrices.iter().map(|m| m.name()).collect::<Vec<_>>(),
        "ij": given.ij,
        "sides": given.sides.iter().map(|s| s.name()).collect::<Vec<_>>(),
        "convention": given.convention.map_or("auto", Convention::name),
        "null_draws": given.null_draws,
        "seed": given.seed,
        "init": given.init.as_deref().map(plain),
        "rcond": given.rcond,
        "eq6": given.eq6,
        "across": given.across,
        "measures": given.measures,
        "keep_going": given.keep_going,
        "memory_limit": given.memory_limit,
        "formats": args.table_formats().iter().map(|f| f.name()).collect::<Vec<_>>(),
        "figures": drawing.formats.iter().map(|f| f.name()).collect::<Vec<_>>(),
        "figures_dir": args.drawing.figures_dir.as_deref().map(plain),
        "scale": drawing.scale.name(),
        "strict": args.strict,
    }))
}

/// A path as JSON can hold it, whole: what is printed would be cut where it is long.
fn plain(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
