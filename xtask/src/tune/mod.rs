//! `cargo xtask tune`: measures a table of choices on the GPU at hand, or makes one of recorded sweeps.
//!
//! For each shape every tile is timed; the steps over the load that lose least are found ([`fit`]). With those tiles it is
//! measured how far ahead blocks should ask for states, and, of decode, whether an early launch pays. The table goes into a
//! file that `Gdn::with_tuning` and `GDN_TUNING` take, and it is compared, shape by shape, with the embedded one. Comments at
//! its head say which lines are measured.

mod fit;
mod measure;
mod recorded;
mod table;

use crate::bench::{self, Op};
use crate::on_demand::Needs;
use crate::report::say;
use anyhow::{Context as _, Result, ensure};
use gdn_host::Caps;
use gdn_host::plan::{Class, Tuning};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use table::{Comparison, Measured};

/// Measure this GPU's table of choices: which tile, how far ahead, early or not
#[derive(clap::Args)]
pub struct Args {
    /// Operations: decode, update, verify, kda_decode, kda_update, kda_verify
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "decode,update,verify,kda_decode,kda_update,kda_verify"
    )]
    ops: Vec<Op>,
    /// Heads, as H:HV; those of one model make a table for that model alone
    #[arg(long, value_delimiter = ',', default_value = "16:32")]
    heads: Vec<String>,
    /// Types of the state
    #[arg(long, value_delimiter = ',', default_value = "f32,bf16")]
    states: Vec<String>,
    /// Layouts of the state: vk, kv
    #[arg(long, value_delimiter = ',', default_value = "vk,kv")]
    layouts: Vec<String>,
    /// Batch sizes
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,2,3,4,5,6,7,8,9,10,12,13,16,17,20,24,32,48,64,96,128,160,256"
    )]
    batches: Vec<u32>,
    /// Leave out how far ahead and whether early
    #[arg(long)]
    tiles_only: bool,
    /// Take the shapes of --ops and --layouts from a file that `bench --sweep --json` wrote, repeatable; needs no GPU
    #[arg(long, value_name = "FILE", conflicts_with_all = ["heads", "states", "batches", "tiles_only"])]
    from: Vec<PathBuf>,
    /// A table that gives whatever is not measured, other classes too [default: the embedded one, and no other classes]
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "tuning.txt")]
    out: PathBuf,
    /// List every shape, not only those whose choice changes
    #[arg(long)]
    all: bool,
}

impl Args {
    /// Optimised code, whose launches are measured.
    pub fn needs(&self) -> Needs {
        Needs { optimised: self.from.is_empty(), ..Needs::default() }
    }
}

/// What was measured of each class.
type Classes = BTreeMap<Class, Measured>;

/// What a table is made of.
struct Measurement {
    device: String,
    caps: Caps,
    classes: Classes,
    /// What was timed, in words.
    source: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let measurement = args.measurement()?;
    let embedded = Tuning::nearest(&measurement.caps);
    let tuning = args.table(&measurement, embedded)?;
    let text = tuning.to_string();
    // What is written is what a host will read.
    Tuning::parse(&text).context("the table does not hold together")?;
    let out = args.out.display();
    std::fs::write(&args.out, text).with_context(|| format!("cannot write {out}"))?;
    Comparison::of(&measurement.classes, &tuning, embedded).print(args.all);
    tuning.notes.iter().for_each(|note| say!("{note}"));
    for class in Class::all().filter(|class| tuning.steps(*class).is_empty()) {
        say!("{class}: no line, so that it goes by the table of {}", embedded.device);
    }
    say!("Use it: GDN_TUNING={out}, or Gdn::with_tuning");
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Measures, or reads what was measured.
    fn measurement(&self) -> Result<Measurement> {
        if self.from.is_empty() {
            return measure::measure(self);
        }
        recorded::read(&self.from, |spec| {
            self.ops.contains(&spec.op) && self.layouts.iter().any(|name| name == spec.layout_name())
        })
    }

    /// The table of what was measured. `embedded` gives how far ahead and whether early where nothing else does.
    fn table(&self, measurement: &Measurement, embedded: &Tuning) -> Result<Tuning> {
        let Measurement { device, caps, classes, source } = measurement;
        let base = self.base.as_deref().map(read_table).transpose()?;
        let rest = base.as_ref().unwrap_or(embedded);
        let mut tuning = Tuning::new(device.clone(), caps);
        for class in Class::all() {
            let steps = match (classes.get(&class), &base) {
                (Some(measured), _) => table::steps(measured, rest.steps(class)),
                (None, Some(base)) => base.steps(class).to_vec(),
                (None, None) => continue,
            };
            if !steps.is_empty() {
                tuning.classes.push((class, steps));
            }
        }
        let has_every_class = classes.len() == Class::all().count();
        let which = match has_every_class {
            true => "every class".to_owned(),
            false => short(&classes.keys().map(Class::to_string).collect::<Vec<_>>()),
        };
        let has_every_column = self.from.is_empty() && !self.tiles_only;
        let columns = if has_every_column { "every column" } else { "tile and teams" };
        tuning.notes.push(format!("{which}: {columns} fitted to {source}"));
        let from_base = match (has_every_column, has_every_class || base.is_none()) {
            (false, true) => Some("ahead and early"),
            (false, false) => Some("ahead, early and every other class"),
            (true, false) => Some("every other class"),
            (true, true) => None,
        };
        if let Some(what) = from_base {
            let name = self.base.as_deref().and_then(Path::file_name);
            let of = name.map_or(format!("in the embedded table of {}", rest.device), |name| {
                format!("in {} before", name.display())
            });
            tuning.notes.push(format!("{what}: as {of}"));
        }
        Ok(tuning)
    }
}

/// Names of classes: where all of an operation are there, or all of its layout, that alone.
fn short(names: &[String]) -> String {
    let all: Vec<String> = Class::all().map(|class| class.to_string()).collect();
    let mut parts = Vec::new();
    shorten(&[], &all.iter().collect::<Vec<_>>(), names, &mut parts);
    parts.join(", ")
}

/// Adds what stands for the names among `all`, which begin with these words.
fn shorten(words: &[&str], all: &[&String], names: &[String], parts: &mut Vec<String>) {
    if !words.is_empty() && all.iter().all(|name| names.contains(name)) {
        parts.push(words.join(" "));
        return;
    }
    let next = |name: &str| name.split(' ').nth(words.len()).map(str::to_owned);
    let mut nexts: Vec<Option<String>> = all.iter().map(|name| next(name)).collect();
    nexts.dedup();
    for word in nexts.into_iter().flatten() {
        let of: Vec<&String> =
            all.iter().copied().filter(|name| next(name).as_ref() == Some(&word)).collect();
        shorten(&[words, &[&word]].concat(), &of, names, parts);
    }
}

fn read_table(path: &Path) -> Result<Tuning> {
    let what = || format!("--base {}", path.display());
    let text = std::fs::read_to_string(path).with_context(what)?;
    Tuning::parse(&text).with_context(what)
}

/// The specs that were asked for, in the order of classes.
fn specs(args: &Args) -> Result<Vec<bench::Spec>> {
    let mut specs = Vec::new();
    for &op in &args.ops {
        ensure!(op.is_recurrence(), "--ops {}: it has no tiles to choose from", op.name());
    }
    let shapes = bench::Shapes {
        ops: &args.ops,
        heads: &args.heads,
        states: &args.states,
        layouts: &args.layouts,
        batches: &args.batches,
        tokens: &[4],
    };
    specs.extend(shapes.specs()?);
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// As typed in the repository's root.
    fn parse(line: &str) -> Result<Args, String> {
        let words = std::iter::once("tune").chain(line.split_whitespace());
        let mut args = Cli::try_parse_from(words).map_err(|error| error.to_string())?.args;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let paths = args.from.iter_mut().chain(&mut args.base).chain([&mut args.out]);
        paths.for_each(|path| *path = root.join(&*path));
        Ok(args)
    }

    fn table(args: &Args) -> Result<Tuning> {
        let measurement = args.measurement()?;
        args.table(&measurement, Tuning::nearest(&measurement.caps))
    }

    #[test]
    fn whole_operations_are_named_by_their_names() {
        let classes = |keep: fn(&str) -> bool| {
            let names = Class::all().map(|class| class.to_string());
            short(&names.filter(|name| keep(name)).collect::<Vec<_>>())
        };
        assert_eq!(classes(|name| !name.starts_with("replay")), "decode, update, verify");
        assert_eq!(classes(|name| name.starts_with("decode vk")), "decode vk");
        let some = classes(|name| name.starts_with("replay_decode") || name == "verify kv kda f32");
        assert_eq!(some, "verify kv kda f32, replay_decode");
        assert_eq!(classes(|_| false), "");
    }

    /// How near they are to the best tiles is a test of [`crate::bench`].
    #[test]
    fn embedded_tables_are_what_the_documented_commands_make() {
        let page = crate::documents::commands("docs/KERNELS.md");
        let commands = page.iter().filter_map(|command| command.strip_prefix("tune "));
        let mut made = 0;
        for command in commands.filter(|command| command.contains("--out gdn-host/src/plan/tuning/")) {
            let args = parse(command).unwrap();
            let lies_there = std::fs::read_to_string(&args.out).unwrap();
            assert_eq!(table(&args).unwrap().to_string(), lies_there, "run: cargo xtask tune {command}");
            made += 1;
        }
        assert_eq!(made, Tuning::embedded().len());
    }

    #[test]
    fn classes_that_were_not_measured_come_from_the_base_alone() {
        let sweep = "--from docs/benchmarks/h100-sweep.json --ops decode --layouts vk";
        let alone = table(&parse(sweep).unwrap()).unwrap();
        let names: Vec<_> = alone.classes.iter().map(|(class, _)| class.to_string()).collect();
        assert_eq!(names, ["decode vk gdn f32", "decode vk gdn 16bit"]);
        let base = "gdn-host/src/plan/tuning/h200.txt";
        let whole = table(&parse(&format!("{sweep} --base {base}")).unwrap()).unwrap();
        let h200 = &Tuning::embedded()[0];
        for class in Class::all().skip(2) {
            assert_eq!(whole.steps(class), h200.steps(class), "{class}");
        }
        let tiles = |table: &Tuning| -> Vec<_> {
            let steps = table.classes.iter().take(2).flat_map(|(_, steps)| steps);
            let mut tiles: Vec<_> = steps.map(|step| (step.tile, step.teams)).collect();
            tiles.dedup();
            tiles
        };
        assert_eq!(tiles(&whole), tiles(&alone));
        assert_eq!(alone.notes[1], "ahead and early: as in the embedded table of NVIDIA H100 80GB HBM3");
        assert_eq!(whole.notes[1], "ahead, early and every other class: as in h200.txt before");
        assert_eq!(Tuning::parse(&whole.to_string()).unwrap().classes, whole.classes);
    }

    #[test]
    fn bad_files_are_named() {
        let error = |line: &str| format!("{:#}", table(&parse(line).unwrap()).unwrap_err());
        let text = error("--from docs/benchmarks/h100.json");
        assert!(text.contains("h100.json holds no sweeps"), "{text}");
        let text = error("--from docs/benchmarks/h200-sweep.json --from docs/benchmarks/h100-sweep.json");
        assert!(text.ends_with("its card is NVIDIA H100 80GB HBM3, the first file's NVIDIA H200"), "{text}");
        let text = error("--from docs/benchmarks/h100-sweep.json --base README.md");
        assert!(text.contains("README.md: line 3: columns: "), "{text}");
        let text = error("--from docs/benchmarks/h100-sweep.json --ops copy_state");
        assert_eq!(text, "--from: no sweep of --ops and --layouts");
        assert!(parse("--from docs/benchmarks/h100-sweep.json --heads 16:32").is_err());
    }
}
