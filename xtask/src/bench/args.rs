//! The command line of `bench`, and the shapes that it names.

use super::load::Loads;
use super::ops::{Op, Spec};
use super::row::{Shape, layout_name};
use crate::on_demand::Needs;
use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;
use gdn_host::{DType, HeadShape, Launch, Layout, Tile};
use std::path::PathBuf;

/// Time the kernels on the GPU
#[derive(ClapArgs)]
pub struct Args {
    /// Operations
    #[arg(long, value_delimiter = ',', default_value = "decode")]
    pub(super) ops: Vec<Op>,
    /// Heads, as H:HV, or with other dimensions than 128 x 128 as H:HV:KxV
    #[arg(long, value_delimiter = ',', default_value = "16:32")]
    pub(super) heads: Vec<String>,
    /// Types of the state
    #[arg(long, value_delimiter = ',', default_value = "f32,bf16")]
    pub(super) states: Vec<String>,
    /// Layouts of the state: vk, kv
    #[arg(long, value_delimiter = ',', default_value = "vk")]
    pub(super) layouts: Vec<String>,
    /// Tokens of a sequence, for operations with several
    #[arg(long, value_delimiter = ',', default_value = "4")]
    pub(super) tokens: Vec<u32>,
    /// Batch sizes
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128,256,512")]
    pub(super) batches: Vec<u32>,
    /// Launch early (programmatic dependent launch) where that is possible and pays
    #[arg(long)]
    pub(super) early: bool,
    /// Also time the states read and written back in place (rmw_gdn) and copied (copy_gdn); of replay_commit and materialise, as
    /// many bytes copied; steps with records have no roof
    #[arg(long, conflicts_with_all = ["sweep", "chained"])]
    pub(super) roofs: bool,
    /// Time every tile, and say how far the one that dispatch chose is from the best
    #[arg(long)]
    pub(super) sweep: bool,
    /// Time what a launch adds behind a kernel of 2 and of 5 us, launched plainly and early
    #[arg(long, conflicts_with = "sweep")]
    pub(super) chained: bool,
    /// Time a layer's step, conv1d_update, then decode or kda_decode, then gated_rmsnorm, launched plainly and early
    #[arg(long, conflicts_with_all = ["roofs", "sweep", "chained"])]
    pub(super) layer: bool,
    /// Time the modules of this folder, which `build-kernels --out` wrote, instead of the embedded ones
    #[arg(long, value_name = "DIR", conflicts_with_all = ["load", "load_only", "from", "report"])]
    pub(super) ptx: Option<PathBuf>,
    /// Also time what a launch costs the host
    #[arg(long)]
    pub(super) host: bool,
    /// Also time how long each module takes to load: machine code, and PTX with the driver's cache off and warm
    #[arg(long)]
    pub(super) load: bool,
    /// Load the modules, print the times as JSON and end: what --load runs in processes of their own
    #[arg(long, hide = true)]
    pub(super) load_only: Option<Loads>,
    /// Take rows from a file that --json wrote instead of measuring
    #[arg(long, value_name = "FILE", conflicts_with_all = ["roofs", "sweep", "chained", "layer", "host", "load", "json"])]
    pub(super) from: Option<PathBuf>,
    /// Make the measured parts of README, docs/BENCHMARKS.md and docs/HOSTS.md and their plots anew from docs/benchmarks; measures nothing
    #[arg(long, conflicts_with_all = ["from", "roofs", "sweep", "chained", "layer", "host", "load", "json", "plot"])]
    pub(super) report: bool,
    /// With --report: write nothing, and fail if a document or plot is not what the results give
    #[arg(long, requires = "report")]
    pub(super) check: bool,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Draw the rows as SVG plots into this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["sweep", "chained", "layer"])]
    pub(super) plot: Option<PathBuf>,
    /// Plot the ratio to the best peer too, from the rows of the peers' benchmark on the same card
    #[arg(long, value_name = "FILE", requires = "plot")]
    pub(super) peers: Option<PathBuf>,
}

impl Args {
    /// Optimised code, whose launches are measured.
    pub fn needs(&self) -> Needs {
        Needs { optimised: self.from.is_none() && !self.report, ..Needs::default() }
    }

    /// How rows are launched.
    pub(super) fn launch(&self) -> Launch {
        Launch { tile: Tile::Auto, early: self.early }
    }

    /// The option that cannot do without early launches, if one was given.
    pub(super) fn needs_early(&self) -> Option<&'static str> {
        let options = [(self.chained, "--chained"), (self.layer, "--layer")];
        options.into_iter().find_map(|(is_given, option)| is_given.then_some(option))
    }

    /// Every shape that was asked for.
    pub(super) fn specs(&self) -> Result<Vec<Spec>> {
        let Args { ops, heads, states, layouts, batches, tokens, .. } = self;
        let specs = Shapes { ops, heads, states, layouts, batches, tokens }.specs()?;
        self.ops.iter().try_for_each(|&op| self.check(op))?;
        Ok(specs)
    }

    /// Refuses an operation that the way of timing is not for.
    fn check(&self, op: Op) -> Result<()> {
        let (name, is_decode) = (op.name(), matches!(op, Op::Decode | Op::KdaDecode));
        ensure!(!self.layer || is_decode, "--ops {name}: --layer is for decode and kda_decode");
        ensure!(
            !self.roofs || op.is_recurrence() || op.is_for_all_layers(),
            "--ops {name}: --roofs is for recurrences, replay_commit and materialise"
        );
        ensure!(
            !self.chained || op.is_recurrence() && !op.has_records(),
            "--ops {name}: --chained is for decode, verify and update, of GDN and KDA"
        );
        ensure!(
            op != Op::ReplayCommit || self.tokens.iter().all(|&tokens| tokens > 1),
            "--ops {name}: --tokens 1 leaves no record to move"
        );
        Ok(())
    }
}

/// Shapes as a command line names them: every combination.
pub struct Shapes<'a> {
    /// Operations.
    pub ops: &'a [Op],
    /// `H:HV`.
    pub heads: &'a [String],
    /// Types of the state.
    pub states: &'a [String],
    /// Layouts of the state.
    pub layouts: &'a [String],
    /// Batch sizes.
    pub batches: &'a [u32],
    /// Tokens of a sequence, for operations with several.
    pub tokens: &'a [u32],
}

impl Shapes<'_> {
    /// Each of them.
    ///
    /// # Errors
    /// A word that names nothing; the option is named.
    pub fn specs(&self) -> Result<Vec<Spec>> {
        let shapes = self.heads.iter().map(|text| parse_heads(text)).collect::<Result<Vec<_>>>()?;
        let states = self.states.iter().map(|text| parse_type(text)).collect::<Result<Vec<_>>>()?;
        let layouts = self.layouts.iter().map(|text| parse_layout(text)).collect::<Result<Vec<_>>>()?;
        ensure!(!self.tokens.contains(&0), "--tokens 0: a sequence has at least one");
        let mut specs = Vec::new();
        for (&op, &layout) in self.ops.iter().flat_map(|op| layouts.iter().map(move |layout| (op, layout))) {
            for (&shape, &state) in
                shapes.iter().flat_map(|shape| states.iter().map(move |state| (shape, state)))
            {
                let tokens = if op.takes_tokens() { self.tokens } else { &[1] };
                let of = |&tokens| {
                    self.batches.iter().map(move |&n| Spec::new(op, shape, state, layout, n, tokens))
                };
                specs.extend(tokens.iter().flat_map(of));
            }
        }
        ensure!(!specs.is_empty(), "no shape to time");
        Ok(specs)
    }
}

/// What a row of a file timed.
///
/// # Errors
/// A field that names nothing.
pub fn parse_spec(shape: &Shape, tokens: u32) -> Result<Spec> {
    let op = <Op as clap::ValueEnum>::from_str(&shape.op, false);
    let op = op.map_err(|_| anyhow::anyhow!("op {}: there is no such operation", shape.op))?;
    let heads = parse_heads(&shape.heads())?;
    let (state, layout) = (parse_type(&shape.state)?, parse_layout(&shape.layout)?);
    Ok(Spec::new(op, heads, state, layout, shape.batch, tokens))
}

pub(super) fn parse_heads(text: &str) -> Result<HeadShape> {
    let (heads, dimensions) = match text.rsplit_once(':') {
        Some((heads, dimensions)) if dimensions.contains('x') => (heads, dimensions),
        _ => (text, "128x128"),
    };
    let pair = heads.split_once(':').zip(dimensions.split_once('x'));
    let how = || format!("--heads {text}: it is H:HV, as 16:32, or H:HV:KxV, as 30:30:96x192");
    let ((h, hv), (k, v)) = pair.with_context(how)?;
    let number = |x: &str| x.parse().with_context(|| format!("--heads {text}: {x} is no number"));
    Ok(HeadShape::new(number(h)?, number(hv)?, number(k)?, number(v)?)?)
}

pub(super) fn parse_type(text: &str) -> Result<DType> {
    let types = [DType::F32, DType::Bf16, DType::F16];
    let found = types.into_iter().find(|t| t.name() == text);
    found.with_context(|| format!("--states {text}: a state is f32, bf16 or f16"))
}

pub(super) fn parse_layout(text: &str) -> Result<Layout> {
    let found = [Layout::Vk, Layout::Kv].into_iter().find(|l| layout_name(*l) == text);
    found.with_context(|| format!("--layouts {text}: a layout is vk or kv"))
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

    fn parse(line: &str) -> Result<Args, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.args).map_err(|error| error.to_string())
    }

    #[test]
    fn shapes_are_every_combination() {
        let args = parse("--ops decode,verify --heads 16:32,4:8 --batches 1,2,4 --early").unwrap();
        let specs = args.specs().unwrap();
        assert_eq!(specs.len(), 2 * 2 * 2 * 3);
        assert_eq!((specs[0].tokens, specs[12].tokens), (1, 4));
        let specs =
            parse("--ops decode,verify --states f32 --batches 2 --tokens 4,8").unwrap().specs().unwrap();
        assert_eq!(specs.iter().map(|spec| spec.tokens).collect::<Vec<_>>(), [1, 4, 8]);
        assert!(args.launch().early && !parse("").unwrap().launch().early);
    }

    #[test]
    fn a_layer_has_every_shape_of_either_decode() {
        let args = parse("--layer --ops decode,kda_decode --layouts vk,kv --heads 16:32,4:8 --batches 1,2");
        assert_eq!(args.unwrap().specs().unwrap().len(), 2 * 2 * 2 * 2 * 2);
        let option = |line| parse(line).unwrap().needs_early();
        assert_eq!(
            ["--layer", "--chained", "--early"].map(option),
            [Some("--layer"), Some("--chained"), None]
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "--sweep --chained",
            "--sweep --roofs",
            "--roofs --chained",
            "--from a.json --roofs",
            "--peers b.json",
            "--chained --plot d",
            "--layer --roofs",
            "--layer --sweep",
            "--layer --chained",
            "--layer --plot d",
            "--from a.json --layer",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let refused = |line| parse(line).unwrap().specs().unwrap_err().to_string();
        let text = "--ops copy_state: --roofs is for recurrences, replay_commit and materialise";
        assert_eq!(refused("--roofs --ops copy_state"), text);
        let text = "--ops conv1d_update: --chained is for decode, verify and update, of GDN and KDA";
        assert_eq!(refused("--chained --ops conv1d_update"), text);
        let text = "--ops replay_decode: --chained is for decode, verify and update, of GDN and KDA";
        assert_eq!(refused("--chained --ops replay_decode"), text);
        let text = "--ops replay_commit: --tokens 1 leaves no record to move";
        assert_eq!(refused("--tokens 8,1 --ops replay_commit"), text);
        let text = "--ops verify: --layer is for decode and kda_decode";
        assert_eq!(refused("--layer --ops decode,verify"), text);
        assert!(refused("--heads 16").contains("--heads 16: it is H:HV"));
        assert_eq!(
            refused("--heads 30:30:96x200"),
            "v = 200 is not supported: it must be a multiple of 32 from 32 to 512"
        );
        let shape = parse_heads("30:30:96x192").unwrap();
        assert_eq!((shape.h, shape.hv, shape.k, shape.v), (30, 30, 96, 192));
        assert!(refused("--states f64").contains("--states f64"));
    }
}
