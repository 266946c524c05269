//! Which base model an adapter is of: the one given, or the one that its configuration names.

use std::path::{Path, PathBuf};

use super::hub_cache::{Lookup, look_up};
use crate::checkpoint::config::AdapterConfig;
use crate::checkpoint::files::disk::unreadable;
use crate::error::{Error, Result, escape, field};

/// Finds the base model: the one given, or the one that the adapter names. It is a path (from the adapter's folder or from here) or else a name
/// in the Hugging Face cache.
///
/// # Errors
/// [`Error::Missing`] if there is none, [`Error::Malformed`] for a damaged cache.
pub fn find_base(given: Option<&Path>, adapter_dir: &Path, config: &AdapterConfig) -> Result<PathBuf> {
    let hint = || format!("give the base model's directory with {}", field("base"));
    let download =
        |name: &str| format!("download it with `hf download {}`, or give its directory with {}", escape(name), field("base"));
    let named = config.base_model_name_or_path.as_deref().filter(|name| !name.is_empty());
    if let Some(path) = given {
        let Err(err) = std::fs::metadata(path) else { return Ok(path.to_owned()) };
        let error = unreadable(path, &err);
        let Some(name) = path.to_str().filter(|_| err.kind() == std::io::ErrorKind::NotFound) else { return Err(error) };
        return match look_up(name, config.revision.as_deref().filter(|_| named == Some(name)))? {
            Lookup::Found(snapshot) => Ok(snapshot),
            Lookup::NoHubName => Err(error),
            Lookup::Absent(looked) => {
                let hint = error.hint().map_or_else(|| download(name), str::to_owned);
                Err(Error::missing(path, format!("does not exist, and neither does {looked}")).with_hint(hint))
            }
        };
    }
    let Some(named) = named else {
        return Err(Error::missing(&config.path, "names no base model (base_model_name_or_path)").with_hint(hint()));
    };
    let candidates = [adapter_dir.join(named), PathBuf::from(named)];
    if let Some(path) = candidates.iter().find(|path| path.exists()) {
        return Ok(path.clone());
    }
    let what = format!("names the base model `{}`, which is neither below its folder nor here", escape(named));
    match look_up(named, config.revision.as_deref())? {
        Lookup::Found(snapshot) => Ok(snapshot),
        Lookup::NoHubName => Err(Error::missing(&config.path, what).with_hint(hint())),
        Lookup::Absent(looked) => {
            Err(Error::missing(&config.path, format!("{what}, nor in the Hugging Face cache (no {looked})"))
                .with_hint(download(named)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::generate;

    #[test]
    fn the_base_is_found_from_the_adapter_or_here() {
        let dir = tempfile::tempdir().unwrap();
        generate::good(dir.path());
        let adapter = dir.path().join("adapter");
        let config = |name: &str| {
            generate::config(dir.path(), &[("base_model_name_or_path", name)]);
            AdapterConfig::read(&adapter).unwrap()
        };
        assert_eq!(find_base(None, &adapter, &config("\"../base\"")).unwrap(), adapter.join("../base"));
        assert_eq!(find_base(None, &adapter, &config("\"src\"")).unwrap(), PathBuf::from("src"));
        for name in ["\"org/none\"", "null", "\"\""] {
            let error = find_base(None, &adapter, &config(name)).unwrap_err();
            assert_eq!((error.exit_code(), error.hint().unwrap().contains("`base`")), (3, true));
        }
        let wrong = dir.path().join("bse");
        assert!(find_base(Some(&wrong), &adapter, &config("null")).unwrap_err().hint().unwrap().ends_with("/base?"));
    }
}
