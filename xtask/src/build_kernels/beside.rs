//! A build over another seam beside the embedded one: what each entry takes of a GPU.

use super::arch::Arch;
use super::assemble::Resources;
use super::manifest::Manifest;
use std::cmp::Ordering;
use std::fmt::Write;

/// An entry on a GPU, in both builds.
struct Pair<'a> {
    name: &'a str,
    target: Arch,
    gpu: Arch,
    built: Resources,
    embedded: Resources,
}

/// Registers, stack and machine instructions of every entry on the GPU that its PTX is for, each beside the embedded one's; then
/// how they differ on all GPUs.
pub(crate) fn table(built: &Manifest, embedded: Option<&Manifest>) -> String {
    let pairs = embedded.map_or(Vec::new(), |embedded| pairs(built, embedded));
    if pairs.is_empty() {
        return "nothing to compare: one of the two builds was not assembled".to_owned();
    }
    let width = pairs.iter().map(|pair| pair.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut target = None;
    // Writing to a String cannot fail.
    for pair in pairs.iter().filter(|pair| pair.gpu == pair.target) {
        if target.replace(pair.target) != Some(pair.target) {
            let _ = writeln!(
                text,
                "{:width$} {:>15} {:>15} {:>15}\n{:width$} {:>15} {:>15} {:>15}",
                pair.target,
                "registers",
                "stack",
                "instructions",
                "",
                "now embedded",
                "now embedded",
                "now embedded"
            );
        }
        let columns = fields(pair).map(|(built, embedded)| format!("{built:>6} {embedded:>8}"));
        let _ = writeln!(text, "{:width$} {}", pair.name, columns.join(" "));
    }
    text + &summary(&pairs)
}

/// Entries that both builds have, on every GPU that both were assembled for.
fn pairs<'a>(built: &'a Manifest, embedded: &Manifest) -> Vec<Pair<'a>> {
    let mut pairs = Vec::new();
    for module in &built.modules {
        let same = embedded.modules.iter().find(|other| other.file == module.file);
        for entry in &module.entries {
            let other = same.and_then(|other| other.entries.iter().find(|other| other.name == entry.name));
            let other = other.and_then(|other| other.resources.as_ref());
            for (&gpu, &built) in entry.resources.iter().flatten() {
                let Some(&embedded) = other.and_then(|other| other.get(&gpu)) else { continue };
                pairs.push(Pair { name: &entry.name, target: module.arch, gpu, built, embedded });
            }
        }
    }
    pairs.sort_by_key(|pair| pair.target);
    pairs
}

/// Registers, bytes of stack and instructions: of this build, of the embedded one.
fn fields(pair: &Pair) -> [(u32, u32); 3] {
    let of = |r: &Resources| [r.registers, r.stack_bytes, r.instructions];
    let (built, embedded) = (of(&pair.built), of(&pair.embedded));
    std::array::from_fn(|i| (built[i], embedded[i]))
}

fn summary(pairs: &[Pair]) -> String {
    let names = ["registers", "stack", "instructions"];
    let mut text = format!("{} entries on all GPUs, this build against the embedded one:\n", pairs.len());
    for (i, name) in names.into_iter().enumerate() {
        let both = || pairs.iter().map(|pair| fields(pair)[i]);
        let count = |order| both().filter(|(built, embedded)| built.cmp(embedded) == order).count();
        let [fewer, equal, more] = [Ordering::Less, Ordering::Equal, Ordering::Greater].map(count);
        let (built, embedded) = both().fold((0, 0), |(a, b), (x, y)| (a + u64::from(x), b + u64::from(y)));
        let _ = write!(text, "{name}: equal in {equal}, fewer in {fewer}, more in {more}");
        if built != embedded && embedded > 0 {
            let _ = write!(text, "; {:+.2} % in sum", 100.0 * (built as f64 / embedded as f64 - 1.0));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::assemble::Resources;
    use super::super::manifest::EntryRecord;
    use super::super::manifest::tests::of_one_module;
    use super::*;

    fn of_one_entry(registers: u32, instructions: u32) -> Manifest {
        let mut manifest = of_one_module("ptx");
        let resources = Resources { registers, instructions, ..Resources::default() };
        let resources = ["sm_90", "sm_100"].map(|gpu| (gpu.parse().unwrap(), resources));
        manifest.modules[0].entries.push(EntryRecord {
            name: "gdn_m".to_owned(),
            rows: 0,
            params: "P".to_owned(),
            params_size: 8,
            max_threads: 256,
            resources: Some(resources.into()),
        });
        manifest
    }

    #[test]
    fn every_entry_stands_beside_the_embedded_one_and_differences_are_counted() {
        let text = table(&of_one_entry(64, 990), Some(&of_one_entry(72, 1000)));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["sm_90", "registers", "stack", "instructions"]);
        assert_eq!(lines[2], ["gdn_m", "64", "72", "0", "0", "990", "1000"]);
        assert!(text.contains("2 entries on all GPUs"), "{text}");
        assert!(text.contains("registers: equal in 0, fewer in 2, more in 0; -11.11 % in sum"), "{text}");
        assert!(text.contains("stack: equal in 2, fewer in 0, more in 0\n"), "{text}");
        assert!(text.contains("instructions: equal in 0, fewer in 2, more in 0; -1.00 % in sum"), "{text}");
    }

    #[test]
    fn without_an_assembled_build_there_is_nothing_to_compare() {
        let none = "nothing to compare";
        assert!(table(&of_one_entry(1, 1), None).starts_with(none));
        assert!(table(&of_one_module("ptx"), Some(&of_one_entry(1, 1))).starts_with(none));
    }
}
