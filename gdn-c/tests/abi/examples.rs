//! The programs of `examples/c` and `examples/cpp`, linked with the library of this build. Without a driver they say so in a
//! sentence; on a GPU they are right.

use super::header::root;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder where cargo put the libraries of this build.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folders = test.ancestors().skip(1).take(2);
    let mut with =
        folders.filter(|folder| folder.join("libgdn.so").is_file() && folder.join("libgdn.a").is_file());
    with.next().expect("cargo builds libgdn with the tests").to_owned()
}

/// A compiled example in a folder of its own, which goes at the end.
struct Program {
    folder: PathBuf,
    path: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Compiles an example, by the static or the shared library; `None` without a compiler.
fn compile(compiler: &str, standard: &str, source: &str, is_static: bool) -> Option<Program> {
    let name = Path::new(source).file_stem().unwrap().to_str().unwrap();
    let folder = std::env::temp_dir().join(format!("gdn-c-{name}-{is_static}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let program = Program { path: folder.join(name), folder };
    let libraries = libraries();
    let mut command = Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-I"]);
    command.arg(root().join("gdn-c/include")).arg("-I").arg(root().join("examples/c"));
    command.arg(root().join(source)).arg("-o").arg(&program.path);
    if is_static {
        command.arg(libraries.join("libgdn.a")).args(["-lgcc_s", "-lpthread"]);
    } else {
        // The library is asked for by its soname, which has its number.
        let shared = program.folder.join(format!("libgdn.so.{}", gdn::GDN_ABI_VERSION));
        std::fs::copy(libraries.join("libgdn.so"), &shared).unwrap();
        command.arg(&shared).arg(format!("-Wl,-rpath,{}", program.folder.display()));
    }
    match command.args(["-ldl", "-lm"]).status() {
        Ok(status) => assert!(status.success(), "{compiler} refuses {source}"),
        Err(_) => {
            eprintln!("not tested: {compiler} is not here");
            return None;
        }
    }
    Some(program)
}

/// Runs an example without a driver, and on a GPU if there is one.
fn run(compiler: &str, standard: &str, source: &str, is_static: bool) {
    let Some(program) = compile(compiler, standard, source, is_static) else { return };
    let output = Command::new(&program.path).env("GDN_LIBCUDA", "/nowhere/libcuda.so").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    let text = "this example needs a GPU and its driver: no CUDA driver: cannot load /nowhere/libcuda.so (";
    assert!(error.starts_with(text), "{error}");
    if gdn_host::driver::Driver::open().is_ok() {
        let output = Command::new(&program.path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("right"), "{text}{output:?}");
    }
}

#[test]
fn c_program_runs_with_the_shared_library() {
    run("cc", "-std=c99", "examples/c/decode.c", false);
}

#[test]
fn c_program_runs_with_the_static_library() {
    run("cc", "-std=c99", "examples/c/decode.c", true);
}

#[test]
fn cpp_program_runs_with_the_shared_library() {
    run("c++", "-std=c++17", "examples/cpp/draft.cpp", false);
}
