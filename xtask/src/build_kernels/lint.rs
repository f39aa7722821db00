//! What a kernel's PTX must and must not contain.
//!
//! The rules are those that a slow or broken kernel breaks first: a register array that landed in local
//! memory, a panic path that came back, a load whose state space the compiler does not know, a tile that is
//! no longer loaded in 16-byte vectors.

use super::kernel::Kernel;
use super::module::launch_bound;
use super::ptx::{self, Entry, Statement};
use anyhow::Result;
use gdn_kernels::abi::DType;
use std::fmt;

/// Cache hints that mark the state's vectors among the other loads: data that is touched once.
const STREAMING: [&str; 3] = ["cs", "L1::no_allocate", "L1::evict_first"];

/// State spaces that a kernel may access.
const SPACES: [&str; 3] = ["global", "shared", "param"];

/// A rule that a line of an entry breaks.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) entry: String,
    /// Line of the module, from 1.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.line, self.entry, self.what)
    }
}

/// Lints a module, which holds exactly `kernels`.
pub(crate) fn lint(module: &str, kernels: &[Kernel]) -> Result<Vec<Failure>> {
    let file = ptx::parse(module)?;
    let mut failures = Vec::new();
    for kernel in kernels {
        match file.entries.iter().find(|entry| entry.name == kernel.name) {
            Some(entry) => lint_entry(entry, kernel, &file.target, &mut failures),
            None => failures.push(Failure {
                entry: kernel.name.clone(),
                line: 1,
                what: "the entry is missing".to_owned(),
            }),
        }
    }
    Ok(failures)
}

fn lint_entry(entry: &Entry, kernel: &Kernel, target: &str, failures: &mut Vec<Failure>) {
    let mut fail = |line: usize, what: String| {
        failures.push(Failure { entry: entry.name.clone(), line: entry.body_line + line, what });
    };
    if let Some(bound) = launch_bound(kernel, target)
        && !entry.directives.contains(&bound)
    {
        fail(0, format!("the launch bound `{bound}` is missing"));
    }
    let (mut loads, mut stores) = (0, 0);
    for statement in ptx::statements(&entry.body) {
        if let Some(what) = forbidden(&statement) {
            fail(statement.line, format!("{what}: `{}`", one_line(statement.text)));
        }
        let words: Vec<&str> = statement.operation().split('.').collect();
        if words.contains(&"global") && words.contains(&"v4") {
            loads += usize::from(words[0] == "ld" && words.iter().any(|word| STREAMING.contains(word)));
            stores += usize::from(words[0] == "st");
        }
    }
    let wanted = state_vectors(kernel);
    if loads < wanted {
        fail(0, format!("{loads} streaming v4 loads of the state, at least {wanted} expected"));
    }
    if stores < wanted {
        fail(0, format!("{stores} v4 stores of the state, at least {wanted} expected"));
    }
}

/// 16-byte vectors that a lane holds of the state: eight elements of each of its rows, which are one vector's in layout
/// KV. None where there are no tiles.
fn state_vectors(kernel: &Kernel) -> usize {
    if kernel.module.is_kv() {
        return 8;
    }
    kernel.rows as usize * kernel.module.state.map_or(0, DType::size) / 2
}

/// What is wrong with a statement on its own.
fn forbidden(statement: &Statement) -> Option<&'static str> {
    let operation: Vec<&str> = statement.operation().split('.').collect();
    let in_known_space = || {
        let space = |word: &&str| word.split("::").next().is_some_and(|space| SPACES.contains(&space));
        operation.iter().any(space)
    };
    let has_word = |name: &str| statement.words().any(|word| word == name);
    match operation[0] {
        "call" => Some("a call"),
        "trap" => Some("a trap"),
        _ if has_word("local") => Some("local memory"),
        _ if has_word("f64") => Some("f64 arithmetic"),
        "ld" | "ldu" | "st" | "atom" | "red" if !in_known_space() => {
            Some("an access without a state space (.global, .shared or .param)")
        }
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gdn_host::{Family, Layout, ModuleKey};

    /// Lints a module whose one entry moves a row of f32 state, and has `lines` besides.
    fn lint_with(lines: &str) -> Vec<String> {
        lint_text(&format!(
            "\tld.global.cs.v4.u32 {{%r1, %r2, %r3, %r4}}, [%rd1];\n\
             \tld.global.cs.v4.u32 {{%r1, %r2, %r3, %r4}}, [%rd1+16];\n\
             {lines}\n\
             \tst.global.cs.v4.u32 [%rd1], {{%r1, %r2, %r3, %r4}};\n\
             \tst.global.cs.v4.u32 [%rd1+16], {{%r1, %r2, %r3, %r4}};\n"
        ))
    }

    fn lint_text(body: &str) -> Vec<String> {
        let module = format!(
            ".version 7.0\n.target sm_80\n.address_size 64\n\n.visible .entry k(\n\t.param .b64 p\n)\n\
             .maxntid 512, 1, 1\n{{\n{body}\tret;\n}}\n"
        );
        let failures = lint(&module, &[kernel()]).unwrap();
        failures.iter().map(Failure::to_string).collect()
    }

    fn kernel() -> Kernel {
        Kernel {
            name: "k".to_owned(),
            module: ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128),
            rows: 1,
            params: "DecodeParams",
            params_size: 200,
            max_threads: 512,
        }
    }

    #[track_caller]
    fn assert_fails(lines: &str, what: &str) {
        let failures = lint_with(lines);
        assert_eq!(failures.len(), 1, "{failures:?}");
        // Line 9 is the brace, 10 and 11 the loads, 12 the line in question.
        assert!(failures[0].starts_with(&format!("12: k: {what}")), "{failures:?}");
    }

    #[test]
    fn clean_entry_passes() {
        let shared = "\tld.shared::cta.u32 %r1, [%rd1];";
        let guarded = "{ .reg .pred p; setp.ne.u32 p, %r1, 0; @p ld.global.u32 %r2, [%rd1]; }";
        assert_eq!(lint_with(&format!("{shared}\n\tld.param.b64 %rd1, [p];\n{guarded}")), [""; 0]);
    }

    #[test]
    fn local_array_fails() {
        assert_fails("\t.local .align 4 .b8 __local_depot0[64];", "local memory");
        assert_fails("\tst.local.b32 [%rd2], %r1;", "local memory");
        assert_fails("\tcvta.local.u64 %SP, %SPL;", "local memory");
    }

    #[test]
    fn call_fails() {
        assert_fails("\tcall.uni panicking, (p);", "a call");
        assert_fails("\t{ call (retval0), other, (p); }", "a call");
    }

    #[test]
    fn trap_fails() {
        assert_fails("\t@%p1 trap;", "a trap");
    }

    #[test]
    fn double_precision_fails() {
        assert_fails("\tmul.rn.f64 %fd1, %fd2, %fd3;", "f64 arithmetic");
        assert_fails("\tcvt.f32.f64 %r1, %fd1;", "f64 arithmetic");
        assert_fails("\t.reg .f64 %fd<3>;", "f64 arithmetic");
    }

    #[test]
    fn generic_access_fails() {
        assert_fails("\tld.b32 %r1, [%rd1];", "an access without a state space");
        assert_fails("\t@!%p1 st.volatile.b32 [%rd1], %r1;", "an access without a state space");
        assert_fails("\tld.const.b32 %r1, [%rd1];", "an access without a state space");
        assert_fails("\tatom.add.u32 %r1, [%rd1], 1;", "an access without a state space");
    }

    #[test]
    fn scalar_state_access_fails() {
        let inputs = "\tld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];\n".repeat(4);
        let failures = lint_text(&inputs);
        assert_eq!(
            failures,
            [
                "9: k: 0 streaming v4 loads of the state, at least 2 expected",
                "9: k: 0 v4 stores of the state, at least 2 expected"
            ]
        );
    }

    #[test]
    fn missing_launch_bound_fails() {
        let module = ".version 7.0\n.visible .entry k(\n)\n{\n}\n";
        let failures = lint(module, &[kernel()]).unwrap();
        assert!(failures[0].what.contains(".maxntid 512, 1, 1"), "{failures:?}");
    }

    #[test]
    fn missing_entry_fails() {
        let failures = lint(".version 7.0\n", &[kernel()]).unwrap();
        assert_eq!(failures[0].to_string(), "1: k: the entry is missing");
    }
}
