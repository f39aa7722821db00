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

    /// `10 * major + minor`.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The GPUs that run PTX for this target: PTX is compatible upwards.
    pub(crate) fn runs_on(self) -> impl Iterator<Item = Arch> {
        Self::GPUS.into_iter().filter(move |gpu| *gpu >= self)
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
    fn unknown_target_is_refused() {
        assert!("sm_81".parse::<Arch>().unwrap_err().contains("sm_86"));
        assert!("90".parse::<Arch>().is_err());
    }
}
