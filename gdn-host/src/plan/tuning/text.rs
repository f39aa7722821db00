//! Tables as text.
//!
//! ```text
//! # tile, teams: measured on 2026-11-29
//! device NVIDIA H200
//! compute 90
//! gbps_per_sm 36.5
//!
//! # operation layout gate state  up to  tile  teams  ahead  early
//! decode      vk     gdn  f32    0.375  small 4      0      early
//! decode      vk     gdn  f32    *      large 4      96     plain
//! ```
//!
//! `#` begins a comment; those in front of the device are kept. A line of a class is a step: the lines of a class follow each other, with larger loads, and the last
//! one is for any (`*`).

use super::{Height, Step, Tuned, Tuning};
use crate::key::{Family, Layout};
use crate::plan::{Class, Load, MAX_WARPS, Work};
use std::fmt;
use thiserror::Error;

/// A table that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {field}: {problem}")]
pub struct TuningError {
    /// The line, counted from 1; the last one where something is missing.
    pub line: usize,
    /// Its field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// The most KiB of states a multiprocessor that a block may ask ahead for: no L2 holds more.
const MAX_AHEAD_KIB: u32 = 4096;

/// The names of columns, in their order.
const COLUMNS: [&str; 9] =
    ["operation", "layout", "gate", "state", "up to", "tile", "teams", "ahead", "early"];

const LAYOUTS: [(&str, Layout); 2] = [("vk", Layout::Vk), ("kv", Layout::Kv)];
const GATES: [(&str, Family); 2] = [("gdn", Family::Gdn), ("kda", Family::Kda)];
const STATES: [(&str, bool); 2] = [("f32", false), ("16bit", true)];
const EARLY: [(&str, bool); 2] = [("early", true), ("plain", false)];

/// A line of the file, for errors.
struct Line {
    number: usize,
}

impl Line {
    fn error<T>(&self, field: &'static str, problem: impl Into<String>) -> Result<T, TuningError> {
        Err(TuningError { line: self.number, field, problem: problem.into() })
    }

    /// One of some words.
    fn word<T: Copy>(&self, field: &'static str, text: &str, words: &[(&str, T)]) -> Result<T, TuningError> {
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                self.error(field, format!("`{text}` is not one of {}", all.join(", ")))
            }
        }
    }

    /// A whole number in a range.
    fn number(
        &self,
        field: &'static str,
        text: &str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, TuningError> {
        let value = text.parse().ok().filter(|value| range.contains(value));
        let (low, high) = (range.start(), range.end());
        value.map_or_else(
            || self.error(field, format!("`{text}` is not a whole number from {low} to {high}")),
            Ok,
        )
    }

    fn class(&self, words: &[&str]) -> Result<Class, TuningError> {
        Ok(Class {
            work: self.word(COLUMNS[0], words[0], &Work::ALL.map(|work| (work.name(), work)))?,
            layout: self.word(COLUMNS[1], words[1], &LAYOUTS)?,
            gate: self.word(COLUMNS[2], words[2], &GATES)?,
            is_narrow: self.word(COLUMNS[3], words[3], &STATES)?,
        })
    }

    fn step(&self, class: Class, words: &[&str]) -> Result<Step, TuningError> {
        let tile = self.word(COLUMNS[5], words[1], &Height::ALL.map(|height| (height.name(), height)))?;
        let teams = self.number(COLUMNS[6], words[2], 1..=MAX_WARPS)?;
        if !teams.is_power_of_two() {
            return self.error(COLUMNS[6], format!("{teams} is not a power of two"));
        }
        let early = self.word(COLUMNS[8], words[4], &EARLY)?;
        if early && !class.work.may_be_early() {
            return self.error(COLUMNS[8], format!("{} is never launched early", class.work.name()));
        }
        Ok(Step {
            up_to: self.load(words[0])?,
            tile,
            teams,
            ahead_kib: self.number(COLUMNS[7], words[3], 0..=MAX_AHEAD_KIB)?,
            early,
        })
    }

    /// States a multiprocessor, in eighths.
    fn load(&self, text: &str) -> Result<Option<Load>, TuningError> {
        if text == "*" {
            return Ok(None);
        }
        let eighths = text.parse::<f64>().ok().map(|states| 8.0 * states);
        let whole = eighths.filter(|eighths| eighths.fract() == 0.0 && (1.0..=1e9).contains(eighths));
        match whole {
            Some(eighths) => Ok(Some(Load(eighths as u64))),
            None => {
                let problem =
                    format!("`{text}` is neither * nor a positive number of eighths, such as 1.125");
                self.error(COLUMNS[4], problem)
            }
        }
    }

    /// Adds a step to its class.
    fn push(&self, table: &mut Tuning, class: Class, step: Step) -> Result<(), TuningError> {
        let is_same = table.classes.last().is_some_and(|(last, _)| *last == class);
        if !is_same {
            if table.classes.iter().any(|(of, _)| *of == class) {
                return self.error(COLUMNS[0], "the lines of a class do not follow each other");
            }
            self.check_end(table)?;
            table.classes.push((class, Vec::new()));
        }
        let Some((_, steps)) = table.classes.last_mut() else { return Ok(()) };
        let rises = match (steps.last().map(|last| last.up_to), step.up_to) {
            (None, _) => true,
            (Some(None), _) => return self.error(COLUMNS[4], "a step follows the one for any load"),
            (Some(Some(last)), Some(next)) => next > last,
            (Some(Some(_)), None) => true,
        };
        if !rises {
            return self.error(COLUMNS[4], "it is not above the step before");
        }
        steps.push(step);
        Ok(())
    }

    /// The last class goes on for any load.
    fn check_end(&self, table: &Tuning) -> Result<(), TuningError> {
        match table.classes.last().and_then(|(_, steps)| steps.last()) {
            Some(Step { up_to: Some(_), .. }) => {
                self.error(COLUMNS[4], "the class before ends without a step for any load (*)")
            }
            _ => Ok(()),
        }
    }
}

impl Tuning {
    /// Reads a table.
    ///
    /// # Errors
    /// [`TuningError`] names the first line and field that are wrong.
    pub fn parse(text: &str) -> Result<Tuning, TuningError> {
        let mut device = None;
        let (mut compute, mut gbps_per_sm) = (None, None);
        let mut table = Tuning {
            device: String::new(),
            compute: 0,
            gbps_per_sm: 0.0,
            classes: Vec::new(),
            notes: Vec::new(),
            tuned: Tuned::ByCaller,
        };
        let mut last = 0;
        for (i, raw) in text.lines().enumerate() {
            let line = Line { number: i + 1 };
            last = i + 1;
            let content = raw.split('#').next().unwrap_or("");
            let words: Vec<&str> = content.split_whitespace().collect();
            if let Some(note) = raw.strip_prefix('#').filter(|_| device.is_none()) {
                table.notes.push(note.trim().to_owned());
            }
            match words[..] {
                [] => {}
                ["device", ..] if words.len() > 1 => device = Some(words[1..].join(" ")),
                ["compute", value] => compute = Some(line.number("compute", value, 10..=999)?),
                ["gbps_per_sm", value] => {
                    let known = value.parse::<f64>().ok().filter(|x| (0.1..1e5).contains(x));
                    if known.is_none() {
                        return line.error("gbps_per_sm", format!("`{value}` is not a bandwidth in GB/s"));
                    }
                    gbps_per_sm = known;
                }
                _ if words.len() == COLUMNS.len() => {
                    let class = line.class(&words[..4])?;
                    let step = line.step(class, &words[4..])?;
                    line.push(&mut table, class, step)?;
                }
                _ => {
                    let problem =
                        format!("`{}` has {} columns, not {}", content.trim(), words.len(), COLUMNS.len());
                    return line.error("columns", problem);
                }
            }
        }
        let end = Line { number: last };
        end.check_end(&table)?;
        let missing = |field| end.error(field, "the line is missing");
        (table.device, table.compute, table.gbps_per_sm) = match (device, compute, gbps_per_sm) {
            (None, ..) => return missing("device"),
            (_, None, _) => return missing("compute"),
            (.., None) => return missing("gbps_per_sm"),
            (Some(device), Some(compute), Some(gbps_per_sm)) => (device, compute, gbps_per_sm),
        };
        Ok(table)
    }
}

/// The word for a value.
fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, of)| *of == value).map_or("", |(word, _)| word)
}

impl Class {
    /// Its columns.
    fn words(self) -> [&'static str; 4] {
        let Class { work, layout, gate, is_narrow } = self;
        [work.name(), word(&LAYOUTS, layout), word(&GATES, gate), word(&STATES, is_narrow)]
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.words().join(" "))
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.notes.iter().try_for_each(|note| writeln!(f, "# {note}"))?;
        writeln!(f, "device {}\ncompute {}\ngbps_per_sm {:.1}", self.device, self.compute, self.gbps_per_sm)?;
        let [a, b, c, d, e, g, h, i, j] = COLUMNS;
        writeln!(f, "\n# {a:<9} {b:<6} {c:<4} {d:<5}  {e:<7} {g:<5} {h:<5} {i:<5} {j}")?;
        for (class, steps) in &self.classes {
            let [work, layout, gate, state] = class.words();
            for step in steps {
                let up_to = step.up_to.map_or("*".into(), |load| (load.0 as f64 / 8.0).to_string());
                let (tile, early) = (step.tile.name(), word(&EARLY, step.early));
                let (teams, ahead) = (step.teams, step.ahead_kib);
                writeln!(
                    f,
                    "{work:<11} {layout:<6} {gate:<4} {state:<5}  {up_to:<7} {tile:<5} {teams:<5} {ahead:<5} {early}"
                )?;
            }
        }
        Ok(())
    }
}
