//! The options of a study as its manifest keeps them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::args::AnalyzeArgs;
use crate::checkpoint::{PairingRules, Split};
use crate::cli::drawing::add_to_manifest;
use crate::error::Result;
use crate::study::AnalyzeParams;
use crate::terms::Convention;

/// The options as they were resolved, for the manifest.
///
/// # Errors
/// [`crate::Error::Usage`] for figure formats that contradict one another.
pub(super) fn options_json(args: &AnalyzeArgs, given: &AnalyzeParams) -> Result<serde_json::Value> {
    let drawing = args.drawing.options()?;
    // Every field by name: a new option is not forgotten here, nor in `params_of`.
    let AnalyzeParams {
        paths,
        base,
        pairing,
        modules,
        layers,
        matrices,
        ij,
        sides,
        convention,
        null_draws,
        seed,
        init,
        rcond,
        eq6,
        across,
        measures,
        grid,
        keep_going,
        memory_limit,
        shard,
    } = given;
    let mut options = serde_json::json!({
        "command": "analyze",
        "paths": paths.iter().map(|path| plain(path)).collect::<Vec<_>>(),
        "base": base.as_deref().map(plain),
        "out": plain(&args.out),
        "map": pairing.maps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "split": pairing.split.map(Split::name),
        "modules": modules,
        "layers": layers,
        "matrices": matrices.iter().map(|m| m.name()).collect::<Vec<_>>(),
        "ij": ij,
        "sides": sides.iter().map(|s| s.name()).collect::<Vec<_>>(),
        "convention": convention.map_or("auto", Convention::name),
        "null_draws": null_draws,
        "seed": seed,
        "init": init.as_deref().map(plain),
        "rcond": rcond,
        "eq6": eq6,
        "across": across,
        "measures": measures,
        "grid": grid,
        "keep_going": keep_going,
        "memory_limit": memory_limit,
        "shard": shard.map(|shard| shard.to_string()),
        "formats": args.table_formats().iter().map(|f| f.name()).collect::<Vec<_>>(),
        "figures_dir": args.drawing.figures_dir.as_deref().map(plain),
        "strict": args.strict,
    });
    add_to_manifest(&mut options, &drawing, true);
    Ok(options)
}

/// Options in which the shards of one study may differ: they change no row.
pub(in crate::cli) const NO_BEARING: [&str; 11] =
    ["out", "shard", "keep_going", "memory_limit", "figures", "figures_dir", "dpi", "scale", "colours", "order", "strict"];

/// The options of a study from its manifest; none where they are not what [`options_json`] writes.
pub(in crate::cli) fn params_of(options: &Value) -> Option<AnalyzeParams> {
    let given = |name: &str| options.get(name).filter(|value| !value.is_null());
    let text = |name: &str| given(name).and_then(Value::as_str);
    Some(AnalyzeParams {
        paths: texts(options, "paths")?.into_iter().map(PathBuf::from).collect(),
        base: text("base").map(PathBuf::from),
        pairing: PairingRules {
            maps: texts(options, "map")?.into_iter().map(|map| map.parse().ok()).collect::<Option<_>>()?,
            split: text("split").map(str::parse).transpose().ok()?,
        },
        modules: texts(options, "modules")?.into_iter().map(str::to_owned).collect(),
        layers: text("layers").map(str::to_owned),
        matrices: texts(options, "matrices")?.into_iter().map(|name| name.parse().ok()).collect::<Option<_>>()?,
        ij: serde_json::from_value(options.get("ij")?.clone()).ok()?,
        sides: texts(options, "sides")?.into_iter().map(|name| name.parse().ok()).collect::<Option<_>>()?,
        convention: match text("convention")? {
            "auto" => None,
            name => Some(name.parse().ok()?),
        },
        null_draws: usize::try_from(given("null_draws")?.as_u64()?).ok()?,
        seed: given("seed")?.as_u64()?,
        init: text("init").map(PathBuf::from),
        rcond: given("rcond").and_then(Value::as_f64),
        eq6: given("eq6")?.as_bool()?,
        measures: given("measures")?.as_bool()?,
        grid: serde_json::from_value(options.get("grid")?.clone()).ok()?,
        across: given("across")?.as_bool()?,
        keep_going: given("keep_going")?.as_bool()?,
        memory_limit: given("memory_limit").and_then(Value::as_u64),
        shard: text("shard").and_then(|text| text.parse().ok()),
    })
}

fn texts<'v>(options: &'v Value, name: &str) -> Option<Vec<&'v str>> {
    options.get(name)?.as_array()?.iter().map(Value::as_str).collect()
}

/// A path as JSON can hold it, whole: what is printed would be cut where it is long.
pub(in crate::cli) fn plain(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        analyze: AnalyzeArgs,
    }

    #[test]
    fn options_come_back_from_the_manifest() {
        let every = "analyze a b/c --base base --map a.b=c --map d= --split qkv -o out --modules query,value --layers 0..5,8 --matrices BA,lora_A --ij 8,8 --ij 1,2 \
                     --side both --convention general --null-draws 3 --seed 18446744073709551615 --init i --rcond 1e-9 --eq6 --measures --grid 0,5 --grid 3,3 --keep-going \
                     --memory-limit 8G --shard 2/3";
        for line in ["analyze x", "analyze x --across", every] {
            let args = Line::parse_from(line.split_whitespace()).analyze;
            let given = args.params().check().unwrap().params().clone();
            let json = options_json(&args, &given).unwrap();
            let text = serde_json::to_string(&json).unwrap();
            let back = params_of(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(format!("{back:?}"), format!("{given:?}"));
        }
        assert!(params_of(&Value::Null).is_none());
        assert!(params_of(&serde_json::json!({"paths": ["x"], "matrices": ["C"]})).is_none());
    }
}
