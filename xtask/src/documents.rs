//! Holds the documents against the repository: links, paths, names of tests and commands in them are true.
//! (Rust blocks are compiled by the documentation tests of `gdn-tests`.)

use crate::Cli;
use clap::Parser as _;
use clap::error::ErrorKind;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use std::path::{Path, PathBuf};

/// Folders without documents of ours, beside hidden ones and Python's environments.
const SKIPPED: [&str; 4] = ["target", "dist", "ptx", "golden"];
/// Documents that name tests and other functions of this repository. (Others name functions of peers.)
const NAMING: [&str; 2] = ["docs/ARCHITECTURE.md", "docs/NUMERICS.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Files below a folder with an extension, but for the skipped folders.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let is_ours = !name.starts_with('.') && !path.join("pyvenv.cfg").exists();
            if is_ours && !SKIPPED.contains(&&*name) {
                files(&path, extension, found);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

/// What the tests look at in a document.
#[derive(Default)]
struct Document {
    /// Path from the root.
    name: String,
    folder: PathBuf,
    /// Targets of links and images.
    links: Vec<String>,
    /// Inline code, and the lines of code blocks that are no program of a named language.
    code: Vec<String>,
    /// What Rust blocks are marked with.
    rust: Vec<String>,
    /// Headings, as fragments of links name them.
    anchors: Vec<String>,
}

impl Document {
    fn read(root: &Path, path: &Path) -> Document {
        let text = std::fs::read_to_string(path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let mut document = Document { name, folder: path.parent().unwrap().into(), ..Document::default() };
        let (mut heading, mut is_shell) = (None, false);
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.to_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let text = heading.take().unwrap_or_default();
                    document.anchors.push(anchor(&text));
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    is_shell = match kind {
                        CodeBlockKind::Indented => true,
                        CodeBlockKind::Fenced(language) => {
                            if language.starts_with("rust") {
                                document.rust.push(language.to_string());
                            }
                            ["", "sh"].contains(&&*language)
                        }
                    };
                }
                Event::End(TagEnd::CodeBlock) => is_shell = false,
                Event::Text(text) => {
                    if let Some(heading) = &mut heading {
                        *heading += &text;
                    } else if is_shell {
                        document.code.extend(text.lines().map(str::to_owned));
                    }
                }
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        *heading += &code;
                    }
                    document.code.push(code.to_string());
                }
                _ => {}
            }
        }
        document
    }

    /// Its commands of xtask without the two words in front; `\` at the end of a line joins the next one.
    fn commands(&self) -> Vec<String> {
        let joined = self.code.join("\n").replace("\\\n", " ");
        let commands = joined.lines().filter_map(|line| line.trim().strip_prefix("cargo xtask "));
        commands.map(|line| line.split(" #").next().unwrap_or(line).trim().to_owned()).collect()
    }

    fn all() -> Vec<Document> {
        let (root, mut paths) = (root(), Vec::new());
        files(&root, "md", &mut paths);
        paths.iter().map(|path| Document::read(&root, path)).collect()
    }
}

/// The commands of xtask in a document, as typed behind `cargo xtask`.
pub fn commands(name: &str) -> Vec<String> {
    Document::read(&root(), &root().join(name)).commands()
}

/// The fragment by which forges link to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn relative_links_of_documents_resolve() {
    let documents = Document::all();
    let mut broken = Vec::new();
    for document in &documents {
        for link in document.links.iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { root().join(&document.name) } else { document.folder.join(file) };
            let Ok(target) = target.canonicalize() else {
                broken.push(format!("{}: {link}: no such file", document.name));
                continue;
            };
            let in_it = documents.iter().find(|other| root().join(&other.name) == target);
            if !fragment.is_empty() && !in_it.is_some_and(|d| d.anchors.iter().any(|a| a == fragment)) {
                broken.push(format!("{}: {link}: no such heading", document.name));
            }
        }
    }
    assert!(documents.len() > 10 && broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn rust_blocks_of_documents_are_compiled() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    // What is on candle's tensors only gdn-candle can compile.
    let own = read("gdn-candle/src/lib.rs").replace("\"../README.md\"", "\"../../gdn-candle/README.md\"");
    let included = read("tests/src/lib.rs") + &own;
    let mut unknown = Vec::new();
    for document in Document::all().iter().filter(|document| !document.rust.is_empty()) {
        if !included.contains(&format!("include_str!(\"../../{}\")", document.name)) {
            unknown.push(format!("{}: tests/src/lib.rs does not include it", document.name));
        }
        let skipped =
            document.rust.iter().filter(|words| words.contains("ignore") || words.contains("compile_fail"));
        unknown.extend(skipped.map(|words| format!("{}: a block is marked {words}", document.name)));
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn commands_of_documents_are_understood() {
    let (mut seen, mut refused) = (0, Vec::new());
    for document in Document::all() {
        for line in document.commands() {
            seen += 1;
            let words = ["xtask"].into_iter().chain(line.split_whitespace());
            let help = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
            match Cli::try_parse_from(words) {
                Err(error) if !help.contains(&error.kind()) => {
                    refused.push(format!("{}: cargo xtask {line}: {error}", document.name));
                }
                _ => {}
            }
        }
    }
    assert!(seen > 10 && refused.is_empty(), "{}", refused.join("\n"));
}

/// Files that are there at times: CONTRIBUTING.md says when.
const AT_TIMES: [&str; 1] = [crate::test::proof::FILE];

#[test]
fn paths_in_documents_exist() {
    let extensions = [".rs", ".md", ".json", ".toml", ".h", ".py", ".c", ".svg", "/"];
    let is_path = |code: &str| {
        let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
        plain && code.trim_end_matches('/').contains('/') && extensions.iter().any(|e| code.ends_with(e))
    };
    let mut known = Vec::new();
    for extension in extensions {
        files(&root(), extension.trim_matches(['.', '/']), &mut known);
    }
    // A path is given from the root, from the document, or short where its end says enough: `arch/nvptx/`.
    let is_short = |code: &str| known.iter().any(|path| path.to_string_lossy().contains(&format!("/{code}")));
    let mut missing = Vec::new();
    for document in Document::all() {
        let is_known = |code: &str| code.starts_with("dist/") || AT_TIMES.contains(&code);
        for code in document.code.iter().filter(|code| is_path(code) && !is_known(code)) {
            if !root().join(code).exists() && !document.folder.join(code).exists() && !is_short(code) {
                missing.push(format!("{}: {code}", document.name));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn tests_that_documents_name_exist() {
    let mut sources = Vec::new();
    files(&root(), "rs", &mut sources);
    let source: String = sources.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let is_name = |code: &str| {
        let words: Vec<&str> = code.split('_').collect();
        let plain = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric());
        words.len() >= 4 && words.iter().all(plain) && code.to_lowercase() == code
    };
    let mut missing = Vec::new();
    for document in Document::all().iter().filter(|document| NAMING.contains(&&*document.name)) {
        for name in document.code.iter().filter(|code| is_name(code)) {
            if !source.contains(name) && !root().join(format!("tests/golden/{name}.safetensors")).exists() {
                missing.push(format!("{}: {name}", document.name));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
