//! Where the driver's library is looked for.

use super::DriverError;
use std::env;
use std::ffi::{OsStr, OsString};

/// The environment variable that names the library. While it is set, and not empty, nothing else is tried.
const VARIABLE: &str = "GDN_LIBCUDA";

/// What is tried in this order, names by the system's usual search. A development package may bring the second name alone. WSL
/// and NixOS keep the library where not every system's search looks.
#[cfg(not(windows))]
const NAMES: &[&str] =
    &["libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1", "/run/opengl-driver/lib/libcuda.so.1"];
/// What is tried, by the system's usual search.
#[cfg(windows)]
const NAMES: &[&str] = &["nvcuda.dll"];

/// `CUDA_ERROR_STUB_LIBRARY`: what toolkits bring to link against, under the driver's name.
const STUB: u32 = 34;

/// The libraries to try.
pub(super) fn names() -> Vec<OsString> {
    named_by(env::var_os(VARIABLE))
}

fn named_by(variable: Option<OsString>) -> Vec<OsString> {
    match variable.filter(|name| !name.is_empty()) {
        Some(name) => vec![name],
        None => NAMES.iter().map(OsString::from).collect(),
    }
}

/// The first of the libraries that can be loaded and is a driver. The error of one that is no driver, or too old a one, ends the
/// search; if none can be loaded, the error names them all.
pub(super) fn first<T>(
    names: &[OsString],
    load: impl Fn(&OsStr) -> Result<T, DriverError>,
) -> Result<T, DriverError> {
    let mut all = Vec::new();
    for name in names {
        match load(name) {
            Err(DriverError::Missing { tried }) => all.extend(tried),
            Err(DriverError::Init { code: STUB, description, .. }) => {
                all.push((name.to_string_lossy().into_owned(), description));
            }
            result => return result,
        }
    }
    Err(DriverError::Missing { tried: all })
}

/// Opens a library.
pub(super) fn open(name: &OsStr) -> Result<libloading::Library, DriverError> {
    // SAFETY: loading runs the library's initialisers. This is the system's CUDA driver, or what the user names as such, which
    // is made to be loaded so.
    unsafe { libloading::Library::new(name) }.map_err(|error| {
        let name = name.to_string_lossy().into_owned();
        // The system's own message is the source; the error itself only says that loading failed.
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        // glibc's starts with the name.
        let reason = reason.strip_prefix(&format!("{name}: ")).map_or(reason.clone(), ToOwned::to_owned);
        DriverError::Missing { tried: vec![(name, reason)] }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(name: &OsStr) -> DriverError {
        DriverError::Missing { tried: vec![(name.to_str().unwrap().into(), "no such file".into())] }
    }

    #[test]
    fn the_variable_names_the_only_library_that_is_tried() {
        assert_eq!(named_by(Some("/opt/driver/libcuda.so".into())), ["/opt/driver/libcuda.so"]);
        assert_eq!(named_by(Some("".into())), NAMES);
        assert_eq!(named_by(None), NAMES);
    }

    #[test]
    fn the_first_library_that_can_be_loaded_is_taken() {
        let names = ["a", "b", "c"].map(OsString::from);
        let found = first(&names, |name| if name == "a" { Err(missing(name)) } else { Ok(name.to_owned()) });
        assert_eq!(found.unwrap(), "b");
        // What is there and does not serve is not passed over in silence.
        let old = DriverError::MissingSymbol { name: "cuInit", since: "11.4" };
        assert_eq!(first(&names, |_| Err::<(), _>(old.clone())), Err(old));
    }

    #[test]
    fn a_toolkits_stub_is_passed_over() {
        let (name, description) = ("CUDA_ERROR_STUB_LIBRARY".into(), "a stub library".into());
        let stub = DriverError::Init { code: STUB, name, description };
        let names = ["a", "b"].map(OsString::from);
        let load = |name: &OsStr| if name == "a" { Err(stub.clone()) } else { Ok(()) };
        assert_eq!(first(&names, load), Ok(()));
        let error = first(&names[..1], load).unwrap_err();
        assert_eq!(error, DriverError::Missing { tried: vec![("a".into(), "a stub library".into())] });
    }

    #[test]
    fn all_that_was_tried_is_named() {
        let error = first(&named_by(None), |name| Err::<(), _>(missing(name))).unwrap_err().to_string();
        assert!(NAMES.iter().all(|name| error.contains(&format!("{name} (no such file)"))), "{error}");
        assert!(error.contains(VARIABLE), "{error}");
    }
}
