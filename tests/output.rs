//! The output directory: the old one or the new one, never half of one, and nothing is left next to it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by them, or a child answers")]
#![allow(clippy::result_large_err, reason = "the library's error is what it is")]

#[cfg(debug_assertions)]
#[path = "shared/held.rs"]
mod held;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use condlora::output::manifest::is_our_output;
use condlora::output::{Manifest, OutputDir, remove_temporaries};
use condlora::results::write_study;
use condlora::table::columns::Row;
use condlora::table::csv::read_rows;
use condlora::table::{ConversionRow, SimilarityRow, SpectrumRow, SummaryRow, TableFormat, Tables};
use condlora::terms::{Convention, MatrixKind, Method, Side, SpectrumMatrix, Status};
#[cfg(debug_assertions)]
use held::Held;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn manifest() -> Manifest {
    Manifest::new(vec!["condlora".into()])
}

fn write_output(out: &Path, overwrite: bool, text: &str) -> condlora::Result<PathBuf> {
    let mut dir = OutputDir::begin(out, overwrite, &[])?;
    dir.write("summary.csv", text.as_bytes())?;
    dir.commit(&manifest())
}

fn refused(result: condlora::Result<impl Sized>) -> String {
    let Err(error) = result else { panic!("it was accepted") };
    assert_eq!(error.exit_code(), 7, "{error}");
    let text = error.to_string();
    assert!(!text.contains('\n') && !text.contains("os error") && !text.contains("condlora-tmp"), "{text}");
    text
}

fn summary(out: &Path) -> String {
    std::fs::read_to_string(out.join("summary.csv")).unwrap()
}

#[test]
fn an_output_appears_whole_with_its_hashes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a/b/out");
    let mut dir = OutputDir::begin(&out, false, &[]).unwrap();
    dir.write("summary.csv", b"x\n").unwrap();
    dir.stream("matrices/run/m.csv", |file| (0..10_000).try_for_each(|n| writeln!(file, "{n}"))).unwrap();
    assert!(!out.exists());
    assert_eq!(dir.outputs().len(), 2);
    assert_eq!(dir.commit(&manifest()).unwrap(), out);
    assert_eq!(names(&out), ["manifest.json", "matrices", "summary.csv"]);
    assert_eq!(names(out.parent().unwrap()), ["out"]);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
    for file in ["summary.csv", "matrices/run/m.csv"] {
        let hash = blake3::hash(&std::fs::read(out.join(file)).unwrap()).to_hex();
        assert_eq!(json["outputs"][file], hash.as_str());
    }
    assert!(is_our_output(&out));
}

#[test]
fn files_and_directories_have_the_usual_modes() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, out) = (folder.path().join("plain"), folder.path().join("out"));
    std::fs::create_dir(&plain).unwrap();
    std::fs::write(plain.join("file"), "").unwrap();
    write_output(&out, false, "x").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode();
    assert_eq!(mode(&out), mode(&plain));
    assert_eq!(mode(&out.join("summary.csv")), mode(&plain.join("file")));
    assert_eq!(mode(&out.join("manifest.json")), mode(&plain.join("file")));
    // A directory that somebody prepared keeps what they prepared.
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o2770)).unwrap();
    write_output(&out, true, "y").unwrap();
    assert_eq!(mode(&out) & 0o7777, 0o2770);
}

#[test]
fn what_exists_is_replaced_only_when_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    write_output(&out, false, "first").unwrap();
    assert!(refused(write_output(&out, false, "second")).ends_with("out: exists already"));
    assert_eq!(summary(&out), "first");
    write_output(&out, true, "second").unwrap();
    assert_eq!(summary(&out), "second");
    std::fs::write(out.join("adapter_config.json"), "{}").unwrap();
    assert!(refused(write_output(&out, true, "third")).contains("adapter_config.json"));
    std::fs::remove_file(out.join("adapter_config.json")).unwrap();
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    assert!(refused(write_output(&out, true, "third")).contains("not an output of condlora"));
    assert_eq!(summary(&out), "second");
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn a_run_that_fails_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x/y/out");
    let mut dir = OutputDir::begin(&out, false, &[]).unwrap();
    dir.write("a/b.csv", b"1").unwrap();
    assert!(refused(dir.write("a/b.csv", b"2")).contains("out/a/b.csv: cannot be written"));
    for bad in ["", "/etc/x", "../x", "a/../../x", "./x", "a/b.csv/c"] {
        refused(dir.write(bad, b"2"));
    }
    refused(dir.stream("c.csv", |_| Err(std::io::Error::other("no"))));
    drop(dir);
    assert!(names(folder.path()).is_empty());

    let out = folder.path().join("out");
    write_output(&out, false, "old").unwrap();
    let mut dir = OutputDir::begin(&out, true, &[]).unwrap();
    dir.write("summary.csv", b"new").unwrap();
    drop(dir);
    assert_eq!(summary(&out), "old");
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn inputs_are_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    write_output(&out, false, "old").unwrap();
    let input = out.join("model/weights.bin");
    std::fs::create_dir(out.join("model")).unwrap();
    std::fs::write(&input, "w").unwrap();
    assert!(refused(OutputDir::begin(&out, true, std::slice::from_ref(&input))).contains("weights.bin"));
    // The other way round is how `analyze .` works: the output is inside what is searched.
    drop(OutputDir::begin(&out, true, &[folder.path().to_owned()]).unwrap());
    assert!(input.exists());
}

#[test]
fn a_link_to_a_directory_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, link) = (folder.path().join("disk"), folder.path().join("link"));
    std::fs::create_dir_all(disk.join("out")).unwrap();
    symlink(disk.join("out"), &link).unwrap();
    write_output(&link, false, "one").unwrap();
    write_output(&link, true, "two").unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(summary(&disk.join("out")), "two");
    assert_eq!(names(&disk), ["out"]);
}

#[test]
fn odd_names_work() {
    let folder = tempfile::tempdir().unwrap();
    for name in [b"\xff\xfe not utf-8".to_vec(), vec![b'x'; 255], b" ".to_vec(), b"-o".to_vec(), b"a\nb\x1b".to_vec()] {
        let out = folder.path().join(std::ffi::OsString::from_vec(name));
        write_output(&out, false, "one").unwrap();
        write_output(&out, true, "two").unwrap();
        assert_eq!(summary(&out), "two");
    }
    assert_eq!(names(folder.path()).len(), 5);
    refused(write_output(&folder.path().join("x".repeat(256)), false, "one"));
    assert_eq!(names(folder.path()).len(), 5);
}

#[test]
fn of_two_runs_at_once_one_wins_or_both_do() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let first = OutputDir::begin(&out, false, &[]).unwrap();
    let second = OutputDir::begin(&out, false, &[]).unwrap();
    let third = OutputDir::begin(&out, true, &[]).unwrap();
    second.commit(&manifest()).unwrap();
    refused(first.commit(&manifest()));
    third.commit(&manifest()).unwrap();
    assert_eq!(names(folder.path()), ["out"]);

    std::thread::scope(|scope| {
        for run in 0..8 {
            let out = &out;
            scope.spawn(move || {
                for turn in 0..10 {
                    write_output(out, true, &format!("{run}.{turn}")).unwrap();
                }
            });
        }
        // Somebody who reads meanwhile always finds a whole output.
        for _ in 0..200 {
            assert!(is_our_output(&out));
        }
    });
    assert_eq!(names(folder.path()), ["out"]);
    assert_eq!(names(&out), ["manifest.json", "summary.csv"]);
}

/// Starts this test program again to do one thing in a process of its own.
fn child(task: &str, out: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "task_of_a_child", "--nocapture"]).env("CONDLORA_TEST_TASK", task).env("CONDLORA_TEST_OUT", out);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn wait_for_line(child: &mut Child, line: &str) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|found| found == line), "the child never said {line}");
}

#[test]
fn task_of_a_child() {
    let Some(task) = std::env::var_os("CONDLORA_TEST_TASK") else { return };
    let out = PathBuf::from(std::env::var_os("CONDLORA_TEST_OUT").unwrap());
    match task.to_str().unwrap() {
        "hold" => {
            let mut dir = OutputDir::begin(&out, true, &[]).unwrap();
            dir.write("summary.csv", b"half").unwrap();
            println!("\nholding");
            // Until it is killed, or the test that has the other end is gone.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        }
        "signal" => {
            let mut dir = OutputDir::begin(&out, true, &[]).unwrap();
            let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM]).unwrap();
            std::thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    remove_temporaries(signal);
                    std::process::exit(128 + signal);
                }
            });
            println!("\nwriting");
            for n in 0.. {
                if let Err(error) = dir.write(&format!("{n}/x.csv"), b"x") {
                    std::process::exit(error.exit_code().into());
                }
            }
        }
        "replace" => println!("\n{:?}", write_output(&out, true, "new").map_err(|error| error.exit_code())),
        "repeat" => {
            println!("\nrepeating");
            for n in 0.. {
                write_output(&out, true, &n.to_string()).unwrap();
            }
        }
        "fill" => {
            // A full file system, mounted by the parent test.
            let refused_at_once = OutputDir::begin(&out, false, &[]).map(|mut dir| {
                let error = dir.stream("similarity.csv", |file| (0..100).try_for_each(|_| file.write_all(&[b'x'; 65536])));
                let error = error.unwrap_err();
                assert_eq!(error.exit_code(), 7);
                assert!(error.to_string().ends_with("out/similarity.csv: cannot be written: No space left on device"), "{error}");
                assert_eq!(dir.require_room(1 << 30).unwrap_err().exit_code(), 7);
            });
            assert!(names(out.parent().unwrap()).is_empty());
            println!("\n{}", if refused_at_once.is_ok() { "refused later" } else { "refused at once" });
        }
        other => panic!("no task {other}"),
    }
}

#[test]
fn a_killed_run_leaves_the_old_output_and_the_next_clears_up() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    write_output(&out, false, "old").unwrap();
    let mut run = child("hold", &out).spawn().unwrap();
    wait_for_line(&mut run, "holding");
    assert_eq!(names(folder.path()).len(), 2);
    // While it lives, its temporary directory is left alone.
    write_output(&out, true, "newer").unwrap();
    assert_eq!(names(folder.path()).len(), 2);
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(summary(&out), "newer");
    write_output(&out, true, "newest").unwrap();
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
#[cfg(debug_assertions)]
fn what_comes_to_the_place_at_the_last_moment_stays() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    write_output(&out, false, "old").unwrap();
    // The old output has been looked at, and is about to be exchanged.
    let held = Held::at("checked", &mut child("replace", &out));
    std::fs::remove_dir_all(&out).unwrap();
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("thesis.tex"), "years of work").unwrap();
    let output = held.go_on();
    assert!(String::from_utf8_lossy(&output.stdout).contains("\nErr(7)\n"), "{output:?}");
    assert_eq!(names(&out), ["thesis.tex"]);
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn killed_at_any_moment_the_output_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    write_output(&out, false, "start").unwrap();
    for wait in 0..12 {
        let mut run = child("repeat", &out).spawn().unwrap();
        wait_for_line(&mut run, "repeating");
        std::thread::sleep(Duration::from_micros(wait * 3_700));
        run.kill().unwrap();
        run.wait().unwrap();
        assert!(is_our_output(&out));
        assert_eq!(names(&out), ["manifest.json", "summary.csv"]);
        assert!(!summary(&out).is_empty());
    }
    write_output(&out, true, "end").unwrap();
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn a_signal_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for wait in [0, 5, 20] {
        let mut run = child("signal", &folder.path().join("a/b/out")).spawn().unwrap();
        wait_for_line(&mut run, "writing");
        std::thread::sleep(Duration::from_millis(wait));
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", run.id())]).status().unwrap();
        assert!(sent.success());
        assert_eq!(run.wait().unwrap().code(), Some(143));
        assert!(names(folder.path()).is_empty());
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = |size: &str| {
        let program = std::env::current_exe().unwrap();
        let script = format!(
            "mount -t tmpfs -o size={size} none \"$1\" && echo mounted && exec \"$2\" --exact task_of_a_child --nocapture"
        );
        let output = Command::new("unshare")
            .args(["-rm", "sh", "-c", &script, "sh"])
            .args([folder.path(), &program])
            .env("CONDLORA_TEST_TASK", "fill")
            .env("CONDLORA_TEST_OUT", folder.path().join("out"))
            .output();
        let output = output.ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Where namespaces or mounts are not allowed there is no small disk to be had.
        text.contains("mounted").then(|| {
            assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
            text
        })
    };
    if let Some(text) = run("1m") {
        assert!(text.contains("refused later"));
    }
    if let Some(text) = run("8k") {
        assert!(text.contains("refused at once"));
    }
}

fn tables(adapters: usize, layers: u32) -> Tables {
    let mut tables = Tables::default();
    for adapter in (0..adapters).map(|n| format!("run/checkpoint-{n}")) {
        for module in ["query", "value"] {
            for matrix in [MatrixKind::A, MatrixKind::B, MatrixKind::BA] {
                let value = |n: u32| Some(f64::from(n).sqrt() / 97.3);
                tables.summary.push(SummaryRow {
                    adapter: adapter.clone(),
                    module: module.into(),
                    matrix,
                    side: Side::Left,
                    i: 8,
                    j: 8,
                    layers: layers as usize,
                    phi_mean: value(1),
                    phi_min: value(2),
                    phi_max: value(3),
                    gaussian_expected: value(4),
                    gaussian_mean: value(5),
                    gaussian_sd: value(6),
                    w0_mean: value(7),
                    w0_sd: value(8),
                    w0_expected: None,
                    w0_z: value(10),
                    w0_p: value(11),
                    init_mean: None,
                    status: Status::Ok,
                });
                for (layer_a, layer_b) in (0..layers).flat_map(|a| (0..layers).map(move |b| (a, b))) {
                    tables.similarity.push(SimilarityRow {
                        adapter: adapter.clone(),
                        module: module.into(),
                        matrix,
                        side: Side::Left,
                        i: 8,
                        j: 8,
                        layer_a: layer_a.into(),
                        layer_b: layer_b.into(),
                        phi: value(layer_a + 2),
                        phi_error_bound: value(layer_b + 2).map(|value| value * 1e-12),
                        gaussian_mean: value(layer_a * layer_b + 2),
                        gaussian_sd: value(layer_a + layer_b + 2),
                        w0_mean: value(layer_a + 7),
                        w0_sd: value(layer_b + 7),
                        w0_expected: None,
                        init: None,
                        status: Status::Ok,
                    });
                }
                tables.spectrum.extend((1..=8).map(|k| SpectrumRow {
                    adapter: adapter.clone(),
                    module: module.into(),
                    matrix: SpectrumMatrix::of_conversion(matrix).unwrap(),
                    layer: Some(0.into()),
                    k,
                    sigma: 1.0 / k as f64,
                }));
            }
            tables.conversion.push(ConversionRow {
                adapter: adapter.clone(),
                module: module.into(),
                layer: None,
                adapter_key: "base_model.model.x".into(),
                tensor: "x.weight".into(),
                out_features: 384,
                in_features: 384,
                rank: 8,
                scaling: 1.0,
                convention: Convention::Paper,
                method: Method::Lu,
                w0_dtype: "F32".into(),
                adapter_dtype: "BF16/F32".into(),
                w0_rank: 384,
                w0_condition: Some(1e5),
                residual_a: Some(1e-14),
                residual_b: Some(1e-14),
                backward_error_a: Some(1e-17),
                backward_error_b: Some(1e-17),
                norm_a: Some(1.5),
                norm_b: Some(0.5),
                norm_delta: Some(0.25),
                status: Status::Ok,
            });
        }
    }
    tables
}

fn same<R: Row + PartialEq + std::fmt::Debug>(out: &Path, rows: &[R]) {
    assert_eq!(read_rows::<R>(&out.join(format!("{}.csv", R::TABLE))).unwrap(), rows);
}

#[test]
fn a_study_is_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(3, 24);
    assert!(tables.similarity.len() > 10_000);
    // The second time what is there is replaced.
    for _ in 0..2 {
        let out = folder.path().join("out");
        let mut dir = OutputDir::begin(&out, true, &[]).unwrap();
        write_study(&mut dir, &tables, &[TableFormat::Csv]).unwrap();
        for figure in 0..40 {
            dir.write(&format!("figures/run/{figure}.png"), &[figure; 30_000]).unwrap();
        }
        dir.commit(&manifest()).unwrap();
        assert_eq!(names(&out.join("matrices/run/checkpoint-2")).len(), 6);
        same::<SummaryRow>(&out, &tables.summary);
        same::<SimilarityRow>(&out, &tables.similarity);
        same::<ConversionRow>(&out, &tables.conversion);
        same::<SpectrumRow>(&out, &tables.spectrum);
    }
}
