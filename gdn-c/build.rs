//! Gives the shared library the name that programs linked to it ask the system's loader for.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_elf = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if is_elf {
        // The number is `gdn_abi_version()`.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libgdn.so.1");
    }
}
