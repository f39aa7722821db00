//! The module `abi` as C sees it: names, and the layout of its structs.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::path::Path;
use syn::{Fields, Item, Type};

/// The file of the module's folder that declares the others.
pub(crate) const ROOT: &str = "mod.rs";

/// What the header has to know of the module.
#[derive(Debug)]
pub(crate) struct Abi {
    /// `#[repr(C)]` structs, in the order of the files.
    pub(crate) structs: Vec<Layout>,
    /// Names of the enums.
    enums: Vec<String>,
    /// Constants of the module `flags`.
    flags: Vec<String>,
    /// Names of the other constants.
    constants: Vec<String>,
    /// The lines of the module's documentation from "Conventions" on.
    pub(crate) conventions: Vec<String>,
}

/// How a struct lies in memory.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Name in Rust.
    pub(crate) name: String,
    pub(crate) size: usize,
    align: usize,
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) offset: usize,
}

impl Abi {
    /// The module whose files lie in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Abi> {
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).with_context(|| file.to_owned());
        Abi::parse(&read(ROOT)?, |name| read(&format!("{name}.rs")))
    }

    /// The module of this source; `file` reads the source of a module that it declares.
    fn parse(source: &str, file: impl Fn(&str) -> Result<String>) -> Result<Abi> {
        let root = syn::parse_file(source)?;
        let lines = root.attrs.iter().filter_map(doc_line);
        let mut abi = Abi {
            structs: Vec::new(),
            enums: Vec::new(),
            flags: Vec::new(),
            constants: Vec::new(),
            conventions: lines.skip_while(|line| !line.trim_start().starts_with("Conventions")).collect(),
        };
        if !abi.conventions.is_empty() {
            abi.conventions.insert(0, String::new());
        }
        for item in &root.items {
            match item {
                Item::Mod(module) if module.content.is_none() => {
                    let source = syn::parse_file(&file(&module.ident.to_string())?)?;
                    source.items.iter().try_for_each(|item| abi.add(item))?;
                }
                _ => abi.add(item)?,
            }
        }
        Ok(abi)
    }

    /// Takes an item in, if the header has to know of it.
    fn add(&mut self, item: &Item) -> Result<()> {
        match item {
            Item::Struct(item) if is_public(&item.vis) => {
                let layout = self.layout(item).with_context(|| item.ident.to_string())?;
                self.structs.push(layout);
            }
            Item::Enum(item) if is_public(&item.vis) => self.enums.push(item.ident.to_string()),
            Item::Const(item) if is_public(&item.vis) => self.constants.push(item.ident.to_string()),
            Item::Mod(item) if item.ident == "flags" => {
                let items = item.content.iter().flat_map(|(_, items)| items);
                self.flags.extend(items.filter_map(|item| match item {
                    Item::Const(item) => Some(item.ident.to_string()),
                    _ => None,
                }));
            }
            _ => {}
        }
        Ok(())
    }

    /// The layout that C gives a struct: each field at the next multiple of its alignment.
    fn layout(&self, item: &syn::ItemStruct) -> Result<Layout> {
        let Fields::Named(fields) = &item.fields else { bail!("fields without names") };
        let name = item.ident.to_string();
        let mut layout = Layout { name, size: 0, align: 1, fields: Vec::new() };
        for field in &fields.named {
            let name = field.ident.as_ref().context("a field without a name")?.to_string();
            let (size, align) = self.size_and_align(&field.ty).with_context(|| name.clone())?;
            let offset = layout.size.next_multiple_of(align);
            layout.size = offset + size;
            layout.align = layout.align.max(align);
            layout.fields.push(Field { name, offset });
        }
        layout.size = layout.size.next_multiple_of(layout.align);
        Ok(layout)
    }

    fn size_and_align(&self, ty: &Type) -> Result<(usize, usize)> {
        match ty {
            Type::Path(path) => {
                let name = path.path.require_ident()?.to_string();
                Ok(match name.as_str() {
                    "u8" | "i8" => (1, 1),
                    "u16" | "i16" => (2, 2),
                    "u32" | "i32" | "f32" => (4, 4),
                    "u64" | "i64" => (8, 8),
                    _ => {
                        let known = self.structs.iter().find(|known| known.name == name);
                        let known = known.with_context(|| format!("type {name} is not known"))?;
                        (known.size, known.align)
                    }
                })
            }
            Type::Array(array) => {
                let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(length), .. }) = &array.len else {
                    bail!("the length of an array is not a number");
                };
                let (size, align) = self.size_and_align(&array.elem)?;
                Ok((size * length.base10_parse::<usize>()?, align))
            }
            _ => bail!("a type that C does not have"),
        }
    }

    /// `DType` is `GdnDType` in C.
    pub(crate) fn type_in_c(name: &str) -> String {
        format!("Gdn{name}")
    }

    /// Names in Rust of the structs and enums.
    pub(crate) fn type_names(&self) -> Vec<String> {
        let structs = self.structs.iter().map(|known| &known.name);
        self.enums.iter().chain(structs).cloned().collect()
    }

    /// The name in C of every type and constant.
    pub(crate) fn c_names(&self) -> HashMap<String, String> {
        let types = self.type_names().into_iter().map(|name| (name.clone(), Self::type_in_c(&name)));
        let flags = self.flags.iter().map(|name| (name.clone(), format!("GDN_FLAG_{name}")));
        let constants = self.constants.iter().map(|name| (name.clone(), format!("GDN_{name}")));
        types.chain(flags).chain(constants).collect()
    }

    /// A line of documentation with the names of C: `[`Pool::slot`]` becomes `GdnPool.slot`.
    pub(crate) fn in_c(&self, line: &str) -> String {
        let line = line.replace("[`flags`]", "the `GDN_FLAG_*` bits").replace("[`", "`").replace("`]", "`");
        let names = self.c_names();
        let code = |code: &str| -> String {
            let (name, member) = code.split_once("::").map_or((code, None), |(name, m)| (name, Some(m)));
            match (name, member) {
                ("flags", Some(flag)) => names.get(flag).cloned(),
                _ => names.get(name).map(|name| match member {
                    Some(member) => format!("{name}.{member}"),
                    None => name.clone(),
                }),
            }
            .or_else(|| integer_in_c(code))
            .unwrap_or_else(|| code.to_owned())
        };
        // Every other part stands between backticks.
        let parts = line.split('`').enumerate();
        let parts = parts.map(|(i, part)| if i % 2 == 1 { code(part) } else { part.to_owned() });
        parts.collect::<Vec<_>>().join("`")
    }
}

/// `i32[N]` is `int32_t[N]` in C.
fn integer_in_c(code: &str) -> Option<String> {
    let (kind, rest) = code.split_at_checked(1)?;
    let bits = rest.split('[').next()?;
    let kind = match kind {
        "u" => "uint",
        "i" => "int",
        _ => return None,
    };
    let rest = &rest[bits.len()..];
    ["8", "16", "32", "64"].contains(&bits).then(|| format!("{kind}{bits}_t{rest}"))
}

fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

/// The text of a documentation attribute.
fn doc_line(attribute: &syn::Attribute) -> Option<String> {
    let value = attribute.meta.require_name_value().ok().filter(|value| value.path.is_ident("doc"))?;
    match &value.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "//! File.\n//!\n//! Conventions: none.\n\
        pub enum DType { F32 = 0 }\n\
        pub mod flags { pub const L2NORM: u32 = 1; }\n\
        mod parts;\n\
        #[repr(C)] pub struct Params { pub n: u32, pub pool: Pool, pub x: f32 }\n";

    const PARTS: &str = "#[repr(C)] pub struct Pool { pub a: u8, pub b: u64, pub c: [u16; 3] }\n";

    fn parsed() -> Abi {
        let file = |name: &str| match name {
            "parts" => Ok(PARTS.to_owned()),
            _ => bail!("no file {name}"),
        };
        Abi::parse(SOURCE, file).unwrap()
    }

    #[test]
    fn layout_is_that_of_c() {
        let abi = parsed();
        let layout = |i: usize| {
            let layout: &Layout = &abi.structs[i];
            let offsets: Vec<usize> = layout.fields.iter().map(|field| field.offset).collect();
            (layout.size, offsets)
        };
        assert_eq!(layout(0), (24, vec![0, 8, 16]));
        assert_eq!(layout(1), (40, vec![0, 8, 32]));
        assert_eq!(abi.conventions, ["", " Conventions: none."]);
    }

    #[test]
    fn unknown_type_is_an_error() {
        let no_file = |name: &str| bail!("no file {name}");
        assert!(Abi::parse("#[repr(C)] pub struct A { pub a: usize }", no_file).is_err());
    }

    #[test]
    fn names_in_documentation_become_those_of_c() {
        let abi = parsed();
        assert_eq!(abi.in_c("See [`flags`]."), "See the `GDN_FLAG_*` bits.");
        assert_eq!(abi.in_c("[`DType`] of `a`, `Pool::a`"), "`GdnDType` of `a`, `GdnPool.a`");
        assert_eq!(abi.in_c("`i32[N]`, `u64`"), "`int32_t[N]`, `uint64_t`");
        assert_eq!(abi.in_c("with `L2NORM`: `[N, H]`"), "with `GDN_FLAG_L2NORM`: `[N, H]`");
    }

    #[test]
    fn layout_is_that_of_the_real_structs() {
        use gdn_kernels::abi;
        let root = crate::tools::workspace_root().unwrap();
        let parsed = Abi::read(&root.join(super::super::SOURCE)).unwrap();
        let sizes = [
            ("Inputs", size_of::<abi::Inputs>()),
            ("Gate", size_of::<abi::Gate>()),
            ("Pool", size_of::<abi::Pool>()),
            ("Layer", size_of::<abi::Layer>()),
            ("DecodeParams", size_of::<abi::DecodeParams>()),
            ("RecurrentParams", size_of::<abi::RecurrentParams>()),
        ];
        for (name, size) in sizes {
            let layout = parsed.structs.iter().find(|layout| layout.name == name).unwrap();
            assert_eq!(layout.size, size, "{name}");
        }
        let params = parsed.structs.iter().find(|layout| layout.name == "DecodeParams").unwrap();
        let gate = params.fields.iter().find(|field| field.name == "gate").unwrap();
        assert_eq!(gate.offset, core::mem::offset_of!(abi::DecodeParams, gate));
    }
}
