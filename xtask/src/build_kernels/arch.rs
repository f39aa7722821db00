//! PTX targets and the GPUs that run them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A target or GPU, `sm_80`; ordered by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Arch(u32);

impl Arch {
    /// What the kernels are built for: the first target with bf16 and `cp.async`, and the first with
    /// programmatic dependent launch.
    pub(crate) const BUILT: [Arch; 2] = [Arch(80), Arch(90)];
    /// GPUs that the PTX is assembled for.
    const GPUS: [Arch; 6] = [Arch(80), Arch(86), Arch(89), Arch(90), Arch(100), Arch(120)];
    /// GPUs whose machine code is kept, for loading without a compiler: those that `docs/evidence` has a record of.
    const BINARIES: [Arch; 1] = [Arch(90)];

    /// `10 * major + minor`.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The GPUs that run PTX for this target: PTX is compatible upwards.
    pub(crate) fn runs_on(self) -> impl Iterator<Item = Arch> {
        Self::GPUS.into_iter().filter(move |gpu| *gpu >= self)
    }

    /// Whether the machine code that is kept for `gpu` is made from PTX for this target: of those built it is the
    /// highest that the GPU runs.
    pub(crate) fn gives_binary(self, gpu: Arch, built: &[Arch]) -> bool {
        let highest = built.iter().filter(|target| **target <= gpu).max();
        Self::BINARIES.contains(&gpu) && highest == Some(&self)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("sm_{}", self.0))
    }
}

impl FromStr for Arch {
    type Err = String;

    fn from_str(text: &str) -> Result<Arch, String> {
        let number = text.strip_prefix("sm_").and_then(|n| n.parse().ok());
        Self::GPUS
            .into_iter()
            .find(|known| Some(known.0) == number)
            .ok_or_else(|| format!("`{text}` is none of {}", Self::GPUS.map(|a| a.to_string()).join(", ")))
    }
}

impl From<Arch> for String {
    fn from(arch: Arch) -> String {
        arch.to_string()
    }
}

impl TryFrom<String> for Arch {
    type Error = String;

    fn try_from(text: String) -> Result<Arch, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::Arch;

    #[test]
    fn ptx_runs_on_its_target_and_every_later_gpu() {
        let names = |arch: &str| -> Vec<String> {
            let arch: Arch = arch.parse().unwrap();
            arch.runs_on().map(|gpu| gpu.to_string()).collect()
        };
        assert_eq!(names("sm_80"), ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]);
        assert_eq!(names("sm_90"), ["sm_90", "sm_100", "sm_120"]);
    }

    #[test]
    fn binaries_are_made_from_the_highest_target_that_the_gpu_runs() {
        let [sm_80, sm_90, sm_100] = [80, 90, 100].map(Arch);
        assert!(sm_90.gives_binary(sm_90, &[sm_80, sm_90, sm_100]));
        assert!(!sm_80.gives_binary(sm_90, &[sm_80, sm_90, sm_100]));
        assert!(sm_80.gives_binary(sm_90, &[sm_80, sm_100]));
        // A GPU on which nothing was proven.
        assert!(!sm_90.gives_binary(sm_100, &[sm_80, sm_90]) && !sm_80.gives_binary(sm_80, &[sm_80]));
    }

    #[test]
    fn unknown_target_is_refused() {
        assert!("sm_81".parse::<Arch>().unwrap_err().contains("sm_86"));
        assert!("90".parse::<Arch>().is_err());
    }
}
