//! Finding adapters below the paths given, and the untrained ones that they started from.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::image::{has_flat_names, is_image_lora, is_unmerged_model};
use super::mlx::{MLX_FILE, is_mlx};
use super::peft::{PICKLE_FILE, WEIGHTS_FILE};
use crate::checkpoint::config::CONFIG_FILE;
use crate::checkpoint::files::disk::{listing, sample, unreadable};
use crate::checkpoint::files::weights::WeightsFile;
use crate::error::{Error, Result, escape, field, show_path};
use crate::marker::{MANIFEST_FILE, is_our_output};

/// What marks an adapter's directory.
const ADAPTER_FILES: [&str; 4] = [CONFIG_FILE, WEIGHTS_FILE, PICKLE_FILE, MLX_FILE];
/// What Diffusers called its LoRA files before safetensors. No other pickle is opened to see whether it is an adapter.
const DIFFUSERS_PICKLE: &str = "pytorch_lora_weights.bin";

/// An adapter directory (or a file that is an adapter by itself) and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundAdapter {
    /// The path below the one given, with `/`, or the folder's name.
    pub name: String,
    /// The directory, or the file.
    pub dir: PathBuf,
}

/// Finds the adapters in or below some paths, sorted by name.
///
/// Links are followed after all real directories, and a directory counts once however many ways lead to it. Directories with
/// a manifest of this program below a given path are skipped, unless they are adapters that it made.
///
/// # Errors
/// [`Error::Missing`] for a path that is not there, is no directory, has no adapter below it, or has a link to a directory
/// that contains the link.
pub fn find_adapters(paths: &[PathBuf]) -> Result<Vec<FoundAdapter>> {
    let (mut counted, mut found) = (BTreeSet::new(), Vec::new());
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(|err| unreadable(path, &err))?;
        if !metadata.is_dir() {
            let named = NamedAdapter::file(path)?;
            if counted.insert(path.canonicalize().map_err(|err| unreadable(path, &err))?) {
                found.push(named);
            }
            continue;
        }
        let mut walk = Walk::default();
        walk.search(path)?;
        if walk.adapters.is_empty() {
            let skipped = if walk.ours > 0 { " (directories with results of condlora were skipped)" } else { "" };
            let what = format!(
                "has no adapter in it; expected {CONFIG_FILE}, {WEIGHTS_FILE}, {MLX_FILE} or a LoRA file of an image model at any depth, found {}{skipped}",
                listing(path)
            );
            return Err(Error::missing(path, what));
        }
        let root = if path.file_name().is_some() { std::path::absolute(path) } else { path.canonicalize() };
        let root = root.map_err(|err| unreadable(path, &err))?;
        for (dir, below, real) in walk.adapters {
            if counted.insert(real) {
                let parts = below.components().count().max(1);
                found.push(NamedAdapter { dir, full: root.join(below), parts });
            }
        }
    }
    Ok(tell_apart(found))
}

/// An adapter whose name is the last `parts` parts of its full path.
struct NamedAdapter {
    dir: PathBuf,
    full: PathBuf,
    parts: usize,
}

impl NamedAdapter {
    /// A file that is an adapter by itself; its name is the file's without the ending.
    fn file(path: &Path) -> Result<Self> {
        let has_folder =
            [CONFIG_FILE, WEIGHTS_FILE, PICKLE_FILE].iter().any(|name| path.file_name().is_some_and(|own| own == *name));
        if has_folder || !may_be_a_file(path) {
            if path.extension().is_some_and(|end| end == "gguf") {
                WeightsFile::open(path)?;
            }
            let error = Error::missing(path, "is not a directory; expected an adapter directory, or one with adapters below it");
            return Err(error.with_hint("give the folder that holds adapter_config.json"));
        }
        let weights = WeightsFile::open(path)?;
        if !is_image_lora(&weights) && !is_mlx(&weights) {
            let found = sample(weights.names().map(str::to_owned).collect(), 5);
            let expected = "names of LoRA files (`lora_unet_NAME.lora_down.weight`, `unet.NAME.lora_A.weight`)";
            let hint = if is_unmerged_model(&weights) {
                "this is a whole model with its adapter in it: save the adapter alone, with PEFT's save_pretrained"
            } else {
                "give the folder of an adapter that has an adapter_config.json"
            };
            return Err(Error::mismatch(path, "file is no adapter by itself", expected, found).with_hint(hint));
        }
        let full = std::path::absolute(path).map_err(|err| unreadable(path, &err))?;
        Ok(Self { dir: path.to_owned(), full: full.with_extension(""), parts: 1 })
    }

    fn name(&self) -> String {
        let components: Vec<String> = self.full.components().map(|part| readable(part.as_os_str())).collect();
        let from = components.len().saturating_sub(self.parts);
        components.iter().skip(from).map(|part| if part == "/" { "" } else { part }).collect::<Vec<_>>().join("/")
    }

    fn can_grow(&self) -> bool {
        self.parts < self.full.components().count()
    }
}

/// Names adapters that are given by their own directories: each by its folder, with parent folders where these are equal.
///
/// # Errors
/// [`Error::Missing`] for a directory that is not there.
pub fn adapter_names(dirs: &[PathBuf]) -> Result<Vec<String>> {
    let mut places: Vec<(PathBuf, usize)> = Vec::new();
    let mut found: Vec<NamedAdapter> = Vec::new();
    for dir in dirs {
        let real = dir.canonicalize().map_err(|err| unreadable(dir, &err))?;
        // The same directory twice has one name: no parent would tell the two apart.
        let known = places.iter().find(|(other, _)| *other == real).map(|(_, at)| *at);
        places.push((real.clone(), known.unwrap_or(found.len())));
        if known.is_none() {
            let full = if dir.file_name().is_some() { std::path::absolute(dir).unwrap_or(real) } else { real };
            found.push(NamedAdapter { dir: dir.clone(), full, parts: 1 });
        }
    }
    let names = unequal_names(&mut found);
    Ok(places.iter().map(|(_, at)| names[*at].clone()).collect())
}

/// The adapters by names that differ, in the order of these.
fn tell_apart(mut found: Vec<NamedAdapter>) -> Vec<FoundAdapter> {
    let names = unequal_names(&mut found);
    let named = found.into_iter().zip(names).map(|(named, name)| FoundAdapter { name, dir: named.dir });
    let mut adapters: Vec<FoundAdapter> = named.collect();
    adapters.sort();
    adapters
}

/// Prepends parent folders to equal names until they differ.
fn unequal_names(found: &mut [NamedAdapter]) -> Vec<String> {
    loop {
        let names: Vec<String> = found.iter().map(NamedAdapter::name).collect();
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        for name in &names {
            *count.entry(name).or_default() += 1;
        }
        let mut grown = false;
        for (named, name) in found.iter_mut().zip(&names) {
            if count.get(name.as_str()).is_some_and(|times| *times > 1) && named.can_grow() {
                named.parts += 1;
                grown = true;
            }
        }
        if !grown {
            return names;
        }
    }
}

/// Whether a file may be an adapter by itself, by its name.
fn may_be_a_file(path: &Path) -> bool {
    let is_safetensors = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("safetensors"));
    is_safetensors || path.file_name().is_some_and(|name| name == DIFFUSERS_PICKLE)
}

/// Whether a file is an adapter by itself, by its header; a file that cannot be opened is not. In an adapter's directory only names without dots say so: the
/// others may be of another state of that adapter.
fn is_adapter_file(path: &Path, in_adapter: bool) -> bool {
    let is_lora = if in_adapter { has_flat_names } else { is_image_lora };
    WeightsFile::open(path).is_ok_and(|weights| is_lora(&weights))
}

/// A file name as text; bytes that are not UTF-8 stay apart as `\xFF`.
fn readable(name: &OsStr) -> String {
    let mut out = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    out
}

/// One search below one path.
#[derive(Default)]
struct Walk {
    /// Directory, path below the root, real path.
    adapters: Vec<(PathBuf, PathBuf, PathBuf)>,
    visited: BTreeSet<PathBuf>,
    links: Vec<(PathBuf, PathBuf)>,
    ours: usize,
}

impl Walk {
    fn search(&mut self, root: &Path) -> Result<()> {
        let mut open = vec![(root.to_owned(), PathBuf::new())];
        // Links last: a directory that is also there for real is then visited, and named, by its real path.
        while let Some((dir, below)) = open.pop().or_else(|| self.links.pop()) {
            self.visit(dir, below, &mut open)?;
        }
        Ok(())
    }

    fn visit(&mut self, dir: PathBuf, below: PathBuf, open: &mut Vec<(PathBuf, PathBuf)>) -> Result<()> {
        let real = dir.canonicalize().map_err(|err| unreadable(&dir, &err))?;
        if !self.visited.insert(real.clone()) {
            return Ok(());
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(|err| unreadable(&dir, &err))? {
            let entry = entry.map_err(|err| unreadable(&dir, &err))?;
            let kind = entry.file_type().map_err(|err| unreadable(&entry.path(), &err))?;
            entries.push((entry.file_name(), kind));
        }
        entries.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        let has = |name: &str| entries.iter().any(|(other, _)| other == name);
        let is_adapter = ADAPTER_FILES.iter().any(|name| has(name));
        // Of what this program wrote, an adapter is one like any other.
        if !below.as_os_str().is_empty() && !is_adapter && has(MANIFEST_FILE) && is_our_output(&dir) {
            self.ours += 1;
            return Ok(());
        }
        for (name, kind) in entries {
            let child = dir.join(&name);
            if may_be_a_file(&child) && !ADAPTER_FILES.iter().any(|known| name == *known) && is_adapter_file(&child, is_adapter) {
                let real = child.canonicalize().map_err(|err| unreadable(&child, &err))?;
                self.adapters.push((child, below.join(Path::new(&name).with_extension("")), real));
                continue;
            }
            if kind.is_dir() {
                open.push((child, below.join(name)));
            } else if kind.is_symlink() && self.leads_on(&child, &real)? {
                self.links.push((child, below.join(name)));
            }
        }
        if is_adapter {
            self.adapters.push((dir, below, real));
        }
        Ok(())
    }

    /// Whether a link leads to a directory; one that leads back to its own folder is an error.
    fn leads_on(&self, link: &Path, real_parent: &Path) -> Result<bool> {
        let target = match link.canonicalize() {
            Ok(target) => target,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(err) => return Err(unreadable(link, &err)),
        };
        if !target.is_dir() {
            return Ok(false);
        }
        if real_parent.starts_with(&target) {
            let what = format!("is part of a loop of symbolic links; expected a directory outside {}", show_path(&target));
            return Err(Error::missing(link, what));
        }
        Ok(true)
    }
}

/// Finds the untrained adapter of each adapter: `init_root` is one (used for all), or has one below it for every name.
///
/// # Errors
/// [`Error::Missing`] if an adapter has none.
pub fn match_init(init_root: &Path, adapter_names: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    let found = find_adapters(&[init_root.to_owned()])?;
    if init_root.is_file() || ADAPTER_FILES.iter().any(|file| init_root.join(file).symlink_metadata().is_ok()) {
        return Ok(adapter_names.iter().map(|name| (name.clone(), init_root.to_owned())).collect());
    }
    let by_name: BTreeMap<&str, &PathBuf> = found.iter().map(|adapter| (adapter.name.as_str(), &adapter.dir)).collect();
    let mut matched = BTreeMap::new();
    for name in adapter_names {
        let Some(dir) = shorter_names(name).find_map(|suffix| by_name.get(suffix)) else {
            let names = by_name.keys().map(|name| (*name).to_owned()).collect();
            let what =
                format!("has no untrained adapter for `{}`; expected one of that name, found {}", escape(name), sample(names, 8));
            return Err(Error::missing(init_root, what)
                .with_hint(format!("{} takes one adapter for all, or one for each by its name", field("init"))));
        };
        matched.insert(name.clone(), (*dir).clone());
    }
    Ok(matched)
}

/// A name, then the same without its first folders, one fewer each time.
fn shorter_names(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |rest| rest.split_once('/').map(|(_, inner)| inner))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(adapters: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in adapters {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join(CONFIG_FILE), "{}").unwrap();
        }
        dir
    }

    fn names(paths: &[PathBuf]) -> Vec<String> {
        find_adapters(paths).unwrap().into_iter().map(|adapter| adapter.name).collect()
    }

    #[test]
    fn names_are_paths_below_the_one_given() {
        let dir = tree(&["run", "run/checkpoint-500", "run/named/other", "x/y"]);
        let at = |name: &str| dir.path().join(name);
        assert_eq!(names(&[at("run")]), ["checkpoint-500", "named/other", "run"]);
        assert_eq!(names(&[dir.path().to_owned()]), ["run", "run/checkpoint-500", "run/named/other", "x/y"]);
        assert_eq!(names(&[at("x/y/."), at("x/../run/named/other")]), ["other", "y"]);
        assert_eq!(names(&[at("x"), at("x/y")]), ["y"]);
    }

    #[test]
    fn equal_names_get_their_parents() {
        let dir = tree(&["a/s/sst2", "b/s/sst2", "b/s/trec"]);
        assert_eq!(names(&[dir.path().join("a/s"), dir.path().join("b/s")]), ["a/s/sst2", "b/s/sst2", "trec"]);
    }

    #[test]
    fn given_adapters_keep_their_order() {
        let dir = tree(&["z/s", "a/s", "a/t"]);
        let names = |given: &[&str]| adapter_names(&given.iter().map(|name| dir.path().join(name)).collect::<Vec<_>>()).unwrap();
        assert_eq!(names(&["z/s", "a/s"]), ["z/s", "a/s"]);
        assert_eq!(names(&["z/s", "a/t"]), ["s", "t"]);
        assert_eq!(names(&["a/s", "a/../a/s/."]), ["s", "s"]);
        assert_eq!(adapter_names(&[dir.path().join("none")]).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn a_real_directory_counts_once_and_by_its_own_name() {
        let dir = tree(&["runs/zeta"]);
        symlink(dir.path().join("runs/zeta"), dir.path().join("runs/best")).unwrap();
        symlink(dir.path().join("nowhere"), dir.path().join("runs/dangling")).unwrap();
        assert_eq!(names(&[dir.path().join("runs"), dir.path().join("runs/best")]), ["zeta"]);
        symlink("self", dir.path().join("runs/self")).unwrap();
        assert_eq!(find_adapters(&[dir.path().join("runs")]).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn our_results_are_skipped_unless_given() {
        let dir = tree(&["results/fitted", "other", "theirs"]);
        std::fs::write(dir.path().join("results").join(MANIFEST_FILE), r#"{"program": "condlora"}"#).unwrap();
        std::fs::write(dir.path().join("theirs").join(MANIFEST_FILE), r#"{"program": "else"}"#).unwrap();
        assert_eq!(names(&[dir.path().to_owned()]), ["other", "theirs"]);
        assert_eq!(names(&[dir.path().join("results")]), ["fitted"]);
        std::fs::write(dir.path().join("other").join(MANIFEST_FILE), r#"{"program": "condlora"}"#).unwrap();
        assert_eq!(names(&[dir.path().to_owned()]), ["other", "theirs"]);
    }

    #[test]
    fn names_that_are_not_utf8_stay_apart() {
        let dir = tree(&[]);
        for byte in [b'\xfe', b'\xff'] {
            let name = dir.path().join(OsStr::from_bytes(&[b'n', byte]));
            std::fs::create_dir(&name).unwrap();
            std::fs::write(name.join(CONFIG_FILE), "{}").unwrap();
        }
        assert_eq!(names(&[dir.path().to_owned()]), ["n\\xFE", "n\\xFF"]);
    }

    #[test]
    fn untrained_adapters_are_matched_by_name_or_are_one_for_all() {
        let dir = tree(&["init/a", "init/b", "one"]);
        let wanted = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let matched = match_init(&dir.path().join("init"), &wanted(&["a", "runs/b"])).unwrap();
        assert_eq!(matched["runs/b"], dir.path().join("init/b"));
        let one = match_init(&dir.path().join("one"), &wanted(&["a", "c"])).unwrap();
        assert_eq!((one.len(), &one["c"]), (2, &dir.path().join("one")));
        let error = match_init(&dir.path().join("init"), &wanted(&["c"])).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().contains("found a, b")), (3, true));
    }
}
