//! Case files that cannot be run: each is an outcome with one clear sentence, and none ends the run of the others.

use gdn_tests::device::Sim;
use gdn_tests::{golden_dir, parity};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// A file of this test's own, gone when dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("gdn-{}-{name}.safetensors", std::process::id()));
        fs::write(&path, bytes).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn recorded() -> Vec<u8> {
    fs::read(golden_dir().join("decode_sigmoid_gating__f32_state.safetensors")).unwrap()
}

/// What is said of a file.
fn note(name: &str, bytes: &[u8]) -> String {
    let file = File::new(name, bytes);
    let outcome = parity::run_file(&file.0, &mut Sim::default());
    assert!(!outcome.pass, "{name} passed");
    assert!(
        !outcome.note.contains(&*file.0.to_string_lossy()),
        "the row names the file already: {}",
        outcome.note
    );
    outcome.note
}

/// What is said of the recorded case with another header.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let bytes = recorded();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    change(&mut header);
    let header = header.to_string();
    note(name, &[&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat())
}

#[test]
fn a_file_that_is_none_says_so() {
    assert!(note("text", b"hello").starts_with("it is no whole safetensors file"));
    assert!(note("empty", b"").starts_with("it is no whole safetensors file"));
    assert!(note("half", &recorded()[..5000]).starts_with("it is no whole safetensors file"));
    let nowhere = parity::run_file("nowhere.safetensors".as_ref(), &mut Sim::default());
    assert!(nowhere.note.starts_with("the file cannot be read: "), "{}", nowhere.note);
}

#[test]
fn a_case_that_lacks_something_names_it_once() {
    let metadata = |key: &'static str, value: &'static str| {
        changed(key, move |header| header["__metadata__"][key] = json!(value))
    };
    assert_eq!(
        metadata("op", "sorting"),
        "operation `sorting` is not one that can be run: tests/golden/README.md lists them"
    );
    assert_eq!(metadata("eps", "tiny"), "metadata `eps` is \"tiny\", which is no number of its kind");
    assert_eq!(metadata("l2norm", "yes"), "metadata `l2norm` is \"yes\": a flag is \"0\" or \"1\"");
    assert_eq!(
        metadata("layout", "KK"),
        "metadata `layout` is \"KK\", which is not supported for decode_sigmoid_gating"
    );
    let without = |part: fn(&mut Value) -> &mut Value, key: &'static str| {
        changed(key, move |header| drop(part(header).as_object_mut().unwrap().remove(key)))
    };
    let renamed =
        changed("a", |header| header["other"] = header.as_object_mut().unwrap().remove("a").unwrap());
    assert_eq!(renamed, "tensor `a` is missing");
    assert_eq!(without(|header| &mut header["__metadata__"], "B"), "metadata `B` is missing");
    assert!(without(|header| header, "__metadata__").starts_with("the file has no metadata"));
}

#[test]
fn sizes_that_make_no_sense_do_not_end_the_run() {
    let batch = |text: &'static str| changed(text, |header| header["__metadata__"]["B"] = json!(text));
    assert!(batch("4").starts_with("tensor `q` has shape [3, 1, 1, 128]"));
    assert!(!batch("18446744073709551615").is_empty());
}
