//! What a case records, in words for people.

use super::Case;

/// Who recorded a case, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorder {
    /// Whose kernel: `sglang 0.5.23 triton`.
    pub software: String,
    /// On which card, beside what: `NVIDIA H100 80GB HBM3, torch 2.11.0`. Empty if the file does not say.
    pub place: String,
}

impl Case {
    /// A metadata value that has a meaning for the case.
    fn known(&self, key: &str) -> Option<&str> {
        self.meta.get(key).map(String::as_str).filter(|value| *value != "n/a")
    }

    /// The shape of what is recorded, only of what the file says: `GDN, 2 sequences of 3, heads 1:2, 128x64, KV`.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.known("gate_kind").map(str::to_uppercase));
        if let Some(batch) = self.known("B") {
            let tokens = match self.known("steps").or(self.known("T")) {
                Some("1") | None => String::new(),
                Some("varlen") => " varlen".into(),
                Some(tokens) => format!(" of {tokens}"),
            };
            let plural = if batch == "1" { "" } else { "s" };
            parts.push(format!("{batch} sequence{plural}{tokens}"));
        }
        match (self.known("H"), self.known("HV"), self.known("K"), self.known("V")) {
            (Some(h), Some(hv), Some(k), Some(v)) => {
                parts.push(format!("heads {h}:{hv}"));
                parts.push(format!("{k}x{v}"));
            }
            (None, Some(hv), None, Some(v)) => parts.push(format!("{hv} heads of {v}")),
            _ => parts.extend(self.known("dim").map(|dim| format!("{dim} channels"))),
        }
        parts.extend((self.known("layout") == Some("KV")).then(|| "KV".to_owned()));
        parts.join(", ")
    }

    /// Who recorded it.
    pub fn recorder(&self) -> Recorder {
        let (software, place) = self
            .known("source")
            .map_or(("unknown", ""), |source| source.split_once(", ").unwrap_or((source, "")));
        Recorder { software: software.into(), place: place.into() }
    }
}
