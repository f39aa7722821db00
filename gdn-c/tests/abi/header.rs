//! `gdn.h` is C99 and C++17, also beside the kernels' own header, and has the sizes that the library has.

use gdn::*;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compiles a program of this text as every language that the header is for.
fn compiles(text: &str) {
    compile("cc", "c", "-std=c99", text);
    compile("cc", "c", "-std=c11", text);
    compile("c++", "c++", "-std=c++17", text);
}

/// Compiles a program of this text without linking it.
fn compile(compiler: &str, language: &str, standard: &str, text: &str) {
    let mut command = Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-fsyntax-only"]);
    command.args(["-x", language, "-I"]).arg(root().join("gdn-c/include"));
    command.arg("-I").arg(root().join("gdn-host/ptx")).arg("-");
    let Ok(mut child) = command.stdin(Stdio::piped()).spawn() else {
        eprintln!("not tested: {compiler} is not here");
        return;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{compiler} {standard} refuses\n{text}");
}

#[test]
fn header_is_c_and_cpp_and_goes_with_the_kernels_header() {
    let main = "int main(void) { return gdn_abi_version() != GDN_ABI_VERSION; }\n";
    compiles(&format!("#include \"gdn.h\"\n#include \"gdn.h\"\n{main}"));
    // The kernels' header asserts layouts, for which C99 has no word.
    let since = "#if defined(__cplusplus) || __STDC_VERSION__ >= 201112L";
    compiles(&format!("#include \"gdn.h\"\n{since}\n#include \"gdn_kernels.h\"\n#endif\n{main}"));
}

#[test]
fn structs_have_the_same_size_in_c() {
    let mut text = String::from("#include \"gdn.h\"\n");
    let mut same = |name: &str, size: usize| {
        text += &format!("typedef char assert_{name}[sizeof({name}) == {size} ? 1 : -1];\n");
    };
    same("gdn_tensor", size_of::<gdn_tensor>());
    same("gdn_rows", size_of::<gdn_rows>());
    same("gdn_table", size_of::<gdn_table>());
    same("gdn_pool", size_of::<gdn_pool>());
    same("gdn_inputs", size_of::<gdn_inputs>());
    same("gdn_intermediate", size_of::<gdn_intermediate>());
    same("gdn_key", size_of::<gdn_key>());
    same("gdn_model", size_of::<gdn_model>());
    same("gdn_caps", size_of::<gdn_caps>());
    same("gdn_launch", size_of::<gdn_launch>());
    same("gdn_context_options", size_of::<gdn_context_options>());
    same("gdn_decode_call", size_of::<gdn_decode_call>());
    same("gdn_recurrent_call", size_of::<gdn_recurrent_call>());
    same("gdn_conv1d_update_call", size_of::<gdn_conv1d_update_call>());
    same("gdn_gated_rmsnorm_call", size_of::<gdn_gated_rmsnorm_call>());
    same("gdn_copy_state_call", size_of::<gdn_copy_state_call>());
    same("gdn_commit_state_call", size_of::<gdn_commit_state_call>());
    same("gdn_convert_layout_call", size_of::<gdn_convert_layout_call>());
    same("gdn_unpack_qkvz_call", size_of::<gdn_unpack_qkvz_call>());
    same("gdn_replay_layer", size_of::<gdn_replay_layer>());
    same("gdn_replay_decode_call", size_of::<gdn_replay_decode_call>());
    same("gdn_replay_verify_call", size_of::<gdn_replay_verify_call>());
    same("gdn_replay_fold_call", size_of::<gdn_replay_fold_call>());
    same("gdn_materialise_call", size_of::<gdn_materialise_call>());
    same("gdn_replay_commit_call", size_of::<gdn_replay_commit_call>());
    same("gdn_replay_advance_call", size_of::<gdn_replay_advance_call>());
    compiles(&(text + "int main(void) { return 0; }\n"));
}

#[test]
fn blocks_of_documents_compile() {
    let mut blocks = 0;
    for document in ["README.md", "docs/HOSTS.md"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for block in text.split("```cpp\n").skip(1) {
            let block = block.split_once("```").expect("the block ends").0;
            compile("c++", "c++", "-std=c++17", &format!("{block}\nint main() {{}}\n"));
            blocks += 1;
        }
    }
    assert!(blocks > 0, "no document has a block of C++");
}
