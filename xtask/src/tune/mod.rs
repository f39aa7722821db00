//! `cargo xtask tune`: measures a table of choices on the GPU at hand, or makes one of recorded sweeps.
//!
//! For each shape every tile is timed; the steps over the load that lose least are found ([`fit`]). With those tiles it is
//! measured how far ahead blocks should ask for states, and, of decode, whether an early launch pays. The table goes into a
//! file that `Gdn::with_tuning` and `GDN_TUNING` take, and it is compared, shape by shape, with the embedded one.

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
    /// Leave out how far ahead and whether early: those columns stay the embedded table's
    #[arg(long)]
    tiles_only: bool,
    /// Make the table of a file that `bench --sweep --json` wrote, repeatable; needs no GPU
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// With --from: multiprocessors of the device
    #[arg(long, default_value_t = 132, requires = "from")]
    sms: u32,
    /// With --from: its compute capability, as 90
    #[arg(long, default_value_t = 90, requires = "from")]
    compute: u32,
    /// With --from: GB/s of its memory
    #[arg(long, requires = "from")]
    gbps: Option<u32>,
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

/// What was measured of each class, in the order of tables.
type Classes = BTreeMap<String, (Class, Measured)>;

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let (device, caps, classes) = match args.from.is_empty() {
        true => measure::measure(args)?,
        false => from_files(args)?,
    };
    let embedded = Tuning::nearest(&caps);
    let tuning = make(device, &caps, &classes, embedded);
    write(&args.out, &tuning)?;
    Comparison::of(&classes, &tuning, embedded).print(args.all);
    say!(
        "{}: {} classes, the others go by the table of {}",
        args.out.display(),
        classes.len(),
        embedded.device
    );
    say!("Use it: GDN_TUNING={}, or Gdn::with_tuning", args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// The table of what was measured.
fn make(device: String, caps: &Caps, classes: &Classes, embedded: &Tuning) -> Tuning {
    let mut tuning = Tuning::new(device, caps);
    for (class, measured) in classes.values() {
        let base = embedded.classes.iter().find(|(of, _)| of == class).map_or(&[][..], |(_, steps)| steps);
        tuning.classes.push((*class, table::steps(measured, base)));
    }
    tuning
}

fn write(path: &Path, tuning: &Tuning) -> Result<()> {
    let text = tuning.to_string();
    // What is written is what a host will read.
    Tuning::parse(&text).with_context(|| format!("{}: the table does not hold together", path.display()))?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Recorded sweeps of one device.
fn from_files(args: &Args) -> Result<(String, Caps, Classes)> {
    let gbps =
        args.gbps.context("--gbps: the bandwidth of the device's memory is not in a file of sweeps")?;
    let caps = Caps { sms: args.sms, compute: args.compute, memory_gbps: gbps };
    let (mut device, mut classes) = (None, Classes::new());
    for path in &args.from {
        let (of_file, more) = recorded::read(path, &caps)?;
        let of = device.get_or_insert_with(|| of_file.clone());
        ensure!(*of == of_file, "--from {}: its card is {of_file}, the first file's {of}", path.display());
        for (name, (class, measured)) in more {
            let (_, known) = classes.entry(name).or_insert_with(|| (class, Measured::default()));
            known.tiles.extend(measured.tiles);
        }
    }
    let device = device.context("--from: no file")?;
    ensure!(!classes.is_empty(), "--from: no sweep");
    Ok((device, caps, classes))
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
        tokens: 4,
    };
    specs.extend(shapes.specs()?);
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks").join(name)
    }

    /// The embedded tables are what `tune --from` makes of the committed sweeps; see [`crate::bench`]'s test of how near they
    /// are to the best tiles.
    #[test]
    fn embedded_tables_are_made_of_the_committed_sweeps() {
        let h200 = Caps { sms: 132, compute: 90, memory_gbps: 4814 };
        let (_, classes) = recorded::read(&committed("h200-sweep.json"), &h200).unwrap();
        let embedded = Tuning::nearest(&h200);
        let made = make(embedded.device.clone(), &h200, &classes, embedded);
        assert_eq!(made.to_string(), embedded.to_string());
    }

    #[test]
    fn a_table_is_read_again_and_a_bad_file_is_named() {
        let h100 = Caps { sms: 132, compute: 90, memory_gbps: 3352 };
        let (device, mut classes) = recorded::read(&committed("h100-sweep.json"), &h100).unwrap();
        classes.retain(|_, (class, _)| *class == Class::all().next().unwrap());
        let made = make(device, &h100, &classes, Tuning::nearest(&h100));
        assert_eq!(Tuning::parse(&made.to_string()).unwrap().classes, made.classes);
        assert_eq!(made.classes.len(), 1);
        let error = recorded::read(&committed("h100.json"), &h100).err().unwrap();
        assert!(error.to_string().contains("h100.json holds no sweeps"), "{error:#}");
    }
}
