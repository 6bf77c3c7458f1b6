//! Asks the shared library for its version.

use std::ffi::CStr;
use std::path::Path;

use super::NAME;
use crate::guard::guarded;
use crate::{RuntimeError, Stage};

/// The oldest version whose interface has all that is needed here.
const OLDEST_MINOR: u32 = ort::MINOR_VERSION;

/// The version of a library, such as `1.32.0`; an error where it is no ONNX Runtime or too old.
pub(super) fn version(library: &Path) -> Result<String, RuntimeError> {
    let version = guarded(NAME, Stage::Loading, library, || ask(library))?;
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) < (1, OLDEST_MINOR) {
        let message =
            format!("it is of version {version}; modelopt needs 1.{OLDEST_MINOR} or newer");
        return Err(RuntimeError::library(library, message));
    }
    Ok(version)
}

#[allow(unsafe_code)] // The only way to ask a shared library something.
fn ask(library: &Path) -> Result<String, RuntimeError> {
    let failed = |error: libloading::Error| RuntimeError::library(library, error);
    // SAFETY: loading runs the library's initialisers; the user named it as an ONNX Runtime or it
    // was found under that name, and running it is what is asked for.
    let loaded = unsafe { libloading::Library::new(library) }.map_err(failed)?;
    // SAFETY: `OrtGetApiBase` has had this signature since version 1.0 of ONNX Runtime's C
    // interface, and returns a pointer to a static structure or null.
    let base = unsafe {
        let get = loaded
            .get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0")
            .map_err(|_| RuntimeError::library(library, "it is no ONNX Runtime"))?;
        get().as_ref()
    };
    let base = base.ok_or_else(|| RuntimeError::library(library, "it has no interface"))?;
    // SAFETY: returns a static string that ends with a zero.
    let version = unsafe { CStr::from_ptr((base.GetVersionString)()) };
    let version = version.to_string_lossy().into_owned();
    // Never closed: ONNX Runtime has threads and statics that outlive their last use.
    std::mem::forget(loaded);
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        fs_err::write(&path, "not a library").unwrap();
        let error = version(&path).unwrap_err().to_string();
        assert!(error.contains("cannot load ONNX Runtime from"), "{error}");
    }
}
