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

    /// The GPUs that load PTX for this target, where PTX for `built` can be had: PTX is compatible upwards, and a GPU loads that
    /// of the highest target.
    pub(crate) fn loaded_by(self, built: &[Arch]) -> impl Iterator<Item = Arch> {
        Self::GPUS
            .into_iter()
            .filter(move |gpu| built.iter().filter(|target| *target <= gpu).max() == Some(&self))
    }

    /// Whether the machine code for this GPU is kept.
    pub(crate) fn keeps_binary(self) -> bool {
        Self::BINARIES.contains(&self)
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
    fn gpu_loads_the_highest_target_that_it_runs() {
        let loaded =
            |arch: Arch, built: &[Arch]| -> Vec<u32> { arch.loaded_by(built).map(Arch::number).collect() };
        let [sm_80, sm_90, sm_100] = [80, 90, 100].map(Arch);
        assert_eq!(loaded(sm_80, &[sm_80, sm_90]), [80, 86, 89]);
        assert_eq!(loaded(sm_90, &[sm_80, sm_90]), [90, 100, 120]);
        assert_eq!(loaded(sm_80, &[sm_80, sm_100]), [80, 86, 89, 90]);
        assert_eq!(loaded(sm_90, &[sm_90]), [90, 100, 120]);
    }

    #[test]
    fn machine_code_is_kept_of_what_was_proven() {
        assert!(Arch(90).keeps_binary() && !Arch(100).keeps_binary());
    }

    #[test]
    fn unknown_target_is_refused() {
        assert!("sm_81".parse::<Arch>().unwrap_err().contains("sm_86"));
        assert!("90".parse::<Arch>().is_err());
    }
}
