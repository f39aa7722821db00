//! The implementations of `gdn-kernels/src/arch` export the same functions. No compiler sees all of them at once: two are
//! for the GPU, where features choose, and one is for the host.
//!
//! Names are read from the sources with syn. What kernels can call is what is `pub(crate)`: functions, functions of other
//! crates by `use`, and functions that a macro makes, which has the name first among its arguments.

use proc_macro2::TokenTree;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::{Item, UseTree, Visibility};

/// Functions by module of the seam.
type Interface = BTreeMap<String, BTreeSet<String>>;

/// Modules that feature `cuda_std` replaces.
const REPLACED: [&str; 2] = ["thread", "warp"];

fn parse(file: &Path) -> Vec<Item> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())).items
}

fn is_exported(visibility: &Visibility) -> bool {
    !matches!(visibility, Visibility::Inherited)
}

/// The names that a `use` exports.
fn used(tree: &UseTree, names: &mut BTreeSet<String>) {
    match tree {
        UseTree::Path(path) => used(&path.tree, names),
        UseTree::Name(name) => names.extend([name.ident.to_string()]),
        UseTree::Rename(rename) => names.extend([rename.rename.to_string()]),
        UseTree::Group(group) => group.items.iter().for_each(|tree| used(tree, names)),
        UseTree::Glob(_) => panic!("a glob hides what is exported"),
    }
}

/// The functions that the items of a module export.
fn functions(items: &[Item]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for item in items {
        match item {
            Item::Fn(function) if is_exported(&function.vis) => {
                names.extend([function.sig.ident.to_string()])
            }
            Item::Use(import) if is_exported(&import.vis) => used(&import.tree, &mut names),
            // The call of a macro, not its definition.
            Item::Macro(call) if call.ident.is_none() => {
                let mut tokens = call.mac.tokens.clone().into_iter();
                let name = tokens.find_map(|token| match token {
                    TokenTree::Ident(name) => Some(name.to_string()),
                    _ => None,
                });
                names.extend(name);
            }
            _ => {}
        }
    }
    names
}

/// The exported modules below a file, inline ones and those in files beside it. Of a module that is only there without a
/// feature, as of any other.
fn modules(folder: &Path, file: &str) -> Interface {
    let mut found = Interface::new();
    for item in parse(&folder.join(file)) {
        let Item::Mod(module) = item else { continue };
        if !is_exported(&module.vis) {
            continue;
        }
        let name = module.ident.to_string();
        let functions = match &module.content {
            Some((_, items)) => functions(items),
            None => functions(&parse(&folder.join(format!("{name}.rs")))),
        };
        found.insert(name, functions);
    }
    found
}

/// Where two interfaces differ, a line a function.
fn differences(name: &str, found: &Interface, expected_of: &str, expected: &Interface) -> Vec<String> {
    let pairs = |interface: &Interface| -> BTreeSet<String> {
        let modules = interface.iter();
        modules
            .flat_map(|(module, names)| names.iter().map(move |name| format!("{module}::{name}")))
            .collect()
    };
    let (found, expected) = (pairs(found), pairs(expected));
    let lacks = |name: &str, function: &String| format!("arch/{name} lacks {function}");
    let missing = expected.difference(&found).map(|function| lacks(name, function));
    missing.chain(found.difference(&expected).map(|function| lacks(expected_of, function))).collect()
}

#[test]
fn every_implementation_of_the_seam_exports_the_same_functions() {
    let arch = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gdn-kernels/src/arch");
    let nvptx = modules(&arch.join("nvptx"), "mod.rs");
    assert!(nvptx.len() == 8 && nvptx.values().all(|functions| !functions.is_empty()), "{nvptx:?}");

    let mut sim = modules(&arch.join("sim"), "interface.rs");
    sim.insert("float".to_owned(), functions(&parse(&arch.join("sim/float.rs"))));
    let mut found = differences("sim", &sim, "nvptx", &nvptx);

    let cuda_std = modules(&arch.join("cuda_std"), "mod.rs");
    let replaced = nvptx.into_iter().filter(|(module, _)| REPLACED.contains(&module.as_str())).collect();
    found.extend(differences("cuda_std", &cuda_std, "nvptx", &replaced));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn lacking_function_is_named_with_the_implementation_that_lacks_it() {
    let interface =
        |text: &str| Interface::from([("warp".to_owned(), functions(&syn::parse_file(text).unwrap().items))]);
    let one = interface(
        "use core::arch::asm; fn own() {} pub(crate) fn a() {} pub(crate) use other::{b, c as d};
         macro_rules! unary { () => {} } unary!(/// Documented.
         e, \"ptx\");",
    );
    assert_eq!(one["warp"], ["a", "b", "d", "e"].map(str::to_owned).into());
    let other = interface("pub(crate) fn a() {} pub(crate) fn b() {} pub(crate) fn d() {} pub fn f() {}");
    let expected = ["arch/x lacks warp::f", "arch/y lacks warp::e"];
    assert_eq!(differences("x", &one, "y", &other), expected);
}
