//! As much of PTX as the build has to read: the items of a file, and the statements of a body.

use anyhow::{Context, Result, bail};

/// A PTX file taken apart. All text is without comments.
#[derive(Debug)]
pub(crate) struct File {
    /// `.version`, the PTX ISA: `7.8`.
    pub(crate) isa: String,
    /// `.target`: `sm_90`.
    pub(crate) target: String,
    pub(crate) address_size: String,
    pub(crate) entries: Vec<Entry>,
    /// Names of the functions that are not entries.
    pub(crate) functions: Vec<String>,
    /// Variables at the level of the file: shared memory, constants.
    pub(crate) variables: Vec<Variable>,
}

/// An entry: a kernel.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// `.visible .entry name( parameters )`.
    pub(crate) head: String,
    /// Directives between the parameters and the body, such as `.maxntid`.
    pub(crate) directives: String,
    /// The body with its braces.
    pub(crate) body: String,
    /// Line of the file, from 1, on which the body starts.
    pub(crate) body_line: usize,
}

/// A variable at the level of the file.
#[derive(Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// The declaration with its semicolon.
    pub(crate) text: String,
}

/// Takes a file apart.
pub(crate) fn parse(text: &str) -> Result<File> {
    let text = &strip_comments(text);
    let mut file = File {
        isa: String::new(),
        target: String::new(),
        address_size: String::new(),
        entries: Vec::new(),
        functions: Vec::new(),
        variables: Vec::new(),
    };
    let (mut at, mut counted, mut lines) = (0, 0, 1);
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        let rest = &text[at..];
        if rest.is_empty() {
            return Ok(file);
        }
        let line = rest.lines().next().unwrap_or_default();
        let directive = |name: &str| line.strip_prefix(name).map(|value| value.trim().to_owned());
        if let Some(isa) = directive(".version") {
            (file.isa, at) = (isa, at + line.len());
        } else if let Some(target) = directive(".target") {
            (file.target, at) = (target, at + line.len());
        } else if let Some(size) = directive(".address_size") {
            (file.address_size, at) = (size, at + line.len());
        } else {
            lines += text[counted..at].matches('\n').count();
            counted = at;
            let line = lines;
            at += item(rest, line, &mut file).with_context(|| format!("PTX line {line}"))?;
        }
    }
}

/// Reads the item at the start of `text` into `file` and returns its length.
fn item(text: &str, line: usize, file: &mut File) -> Result<usize> {
    let mut depth = 0;
    let end = text.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0 && matches!(c, ';' | '{' | '=')
    });
    let end = end.context("an item does not end")?;
    let head = &text[..end];
    let body = text[end..].starts_with('{').then(|| block(&text[end..])).transpose()?;
    let length = match body {
        Some(body) => end + body.len(),
        None => end + text[end..].find(';').context("an item does not end")? + 1,
    };
    if let Some((_, after)) = head.split_once(".entry") {
        let body = body.context("an entry without a body")?;
        let open = after.find('(').context("an entry without parameters")?;
        let close = head.len() - after.len() + after.find(')').context("`(` without `)`")? + 1;
        file.entries.push(Entry {
            name: after[..open].trim().to_owned(),
            head: head[..close].to_owned(),
            directives: head[close..].trim().to_owned(),
            body: body.to_owned(),
            body_line: line + head.matches('\n').count(),
        });
    } else if let Some((_, after)) = head.split_once(".func") {
        // `.func (return value) name(parameters)`, the first parentheses being optional.
        let after = after.trim_start();
        let after = if after.starts_with('(') { after.split_once(')').map_or("", |x| x.1) } else { after };
        file.functions.push(after.split('(').next().unwrap_or_default().trim().to_owned());
    } else if body.is_none() {
        let name = head.split('[').next().unwrap_or_default().split_whitespace().next_back();
        let name = name.context("a variable without a name")?.to_owned();
        file.variables.push(Variable { name, text: text[..length].to_owned() });
    } else {
        bail!("unknown item `{}`", head.trim());
    }
    Ok(length)
}

/// The block in braces at the start of `text`.
fn block(text: &str) -> Result<&str> {
    let mut depth = 0;
    let end = text.find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    end.map(|end| &text[..=end]).context("`{` without `}`")
}

/// Replaces comments by nothing and trims the ends of lines; the number of lines stays.
fn strip_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(slash) = rest.find('/') {
        let comment = &rest[slash..];
        let length = if comment.starts_with("/*") {
            comment.find("*/").map_or(comment.len(), |end| end + 2)
        } else if comment.starts_with("//") {
            comment.find('\n').unwrap_or(comment.len())
        } else {
            // A slash of its own.
            kept.push_str(&rest[..=slash]);
            rest = &rest[slash + 1..];
            continue;
        };
        kept.push_str(&rest[..slash]);
        kept.extend(comment[..length].matches('\n'));
        rest = &comment[length..];
    }
    kept.push_str(rest);
    kept.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// A statement of a body: an instruction or a directive, without its semicolon and labels.
#[derive(Debug, PartialEq)]
pub(crate) struct Statement<'a> {
    /// Line, counted from 0 at the start of the body.
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

impl<'a> Statement<'a> {
    /// The operation with its modifiers, without a predicate: `ld.global.cs.v4.u32`.
    pub(crate) fn operation(&self) -> &'a str {
        let text = match self.text.starts_with('@') {
            true => self.text.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start()),
            false => self.text,
        };
        text.split(char::is_whitespace).next().unwrap_or_default()
    }

    /// The words of operations, directives and types: `ld`, `global`, `v4`. Operands are left out.
    pub(crate) fn words(&self) -> impl Iterator<Item = &'a str> {
        let part_of_name = |c: char| c.is_ascii_alphanumeric() || "._:$%".contains(c);
        let names = self.text.split(move |c| !part_of_name(c));
        names.filter(|name| !name.starts_with(['%', '$'])).flat_map(|name| name.split('.'))
    }
}

/// The statements of a body, those of nested blocks too.
pub(crate) fn statements(body: &str) -> Vec<Statement<'_>> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 0);
    while at < body.len() {
        let rest = &body[at..];
        let blank = rest.len() - rest.trim_start().len();
        let length = if blank > 0 {
            blank
        } else if rest.starts_with(['{', '}', ';']) {
            1
        } else if let Some(label) = label(rest) {
            label
        } else {
            let length = rest.find(';').unwrap_or(rest.len());
            found.push(Statement { line, text: rest[..length].trim_end() });
            length
        };
        line += rest[..length].matches('\n').count();
        at += length;
    }
    found
}

/// The length of the label that `text` starts with.
fn label(text: &str) -> Option<usize> {
    let name = text.find(|c: char| !(c.is_ascii_alphanumeric() || "_$%".contains(c)))?;
    let rest = &text[name..];
    (name > 0 && rest.starts_with(':') && !rest.starts_with("::")).then_some(name + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "//\n// Generated\n//\n.version 7.8\n.target sm_90\n.address_size 64\n\n\
        .shared .align 16 .b8 tile[4096];\n\
        .global .align 4 .b8 table[8] = {1, 2, 3, 4, 5, 6, 7, 8};\n\
        .extern .func (.param .b32 func_retval0) other\n(\n\t.param .b64 p\n)\n;\n\
        .visible .func panicking(\n\t.param .b64 p\n)\n.noreturn\n{\n\tbra.uni $L;\n}\n\
        \t// .globl one\n.visible .entry one(\n\t.param .align 8 .b8 one_param_0[200]\n)\n\
        .maxntid 512, 1, 1\n{\n\tret; // done\n}\n";

    #[test]
    fn file_is_taken_apart() {
        let file = parse(FILE).unwrap();
        assert_eq!((file.isa.as_str(), file.target.as_str()), ("7.8", "sm_90"));
        assert_eq!(file.address_size, "64");
        assert_eq!(file.functions, ["other", "panicking"]);
        let names: Vec<&str> = file.variables.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["tile", "table"]);
        assert_eq!(file.variables[0].text, ".shared .align 16 .b8 tile[4096];");
        assert!(file.variables[1].text.ends_with("8};"));
        let entry = &file.entries[0];
        assert_eq!(entry.name, "one");
        assert_eq!(entry.head, ".visible .entry one(\n\t.param .align 8 .b8 one_param_0[200]\n)");
        assert_eq!(entry.directives, ".maxntid 512, 1, 1");
        assert_eq!(entry.body, "{\n\tret;\n}");
        let line = FILE.lines().position(|line| line.contains("ret;")).unwrap();
        assert_eq!(entry.body_line, line);
    }

    #[test]
    fn unfinished_file_is_an_error() {
        assert!(parse(".visible .entry one()\n{ ret;").is_err());
        assert!(parse(".visible .entry one(").is_err());
    }

    #[test]
    fn statements_know_blocks_labels_and_operands_in_braces() {
        let body = "{\n\t.reg .b32 %r<4>;\n$L__BB0_1:\n\t@%p1 bra $L__BB0_1;\n\
            { .reg .pred p; @!p ld.global.u32 %r1, [%rd1]; }\n\
            \tst.shared::cta.v2.u32 [%rd1],\n\t\t{%r1, %r2};\n}";
        let found: Vec<(usize, &str)> = statements(body).iter().map(|s| (s.line, s.operation())).collect();
        let expected =
            [(1, ".reg"), (3, "bra"), (4, ".reg"), (4, "ld.global.u32"), (5, "st.shared::cta.v2.u32")];
        assert_eq!(found, expected);
    }

    #[test]
    fn words_leave_operands_out() {
        let statement = Statement { line: 0, text: "mov.u32 %r1, %tid.local" };
        assert!(!statement.words().any(|word| word == "local"));
        let statement = Statement { line: 0, text: ".local .align 4 .b8 __local_depot0[64]" };
        assert!(statement.words().any(|word| word == "local"));
    }
}
