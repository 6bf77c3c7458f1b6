//! Keeps panics of the runtimes inside this crate.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

use crate::error::said_of;
use crate::{RuntimeError, Stage};

thread_local! {
    /// How many guarded calls this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Calls into a runtime; a panic becomes [`RuntimeError::Panicked`].
pub(crate) fn guarded<T>(
    runtime: &'static str,
    stage: Stage,
    path: &Path,
    call: impl FnOnce() -> Result<T, RuntimeError>,
) -> Result<T, RuntimeError> {
    catch(call).unwrap_or_else(|payload| {
        Err(RuntimeError::Panicked {
            runtime,
            stage,
            path: path.to_owned(),
            message: said_of(path, panic_message(payload.as_ref())),
        })
    })
}

fn catch<T>(call: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    DEPTH.set(DEPTH.get() + 1);
    // What the call leaves half-done is only dropped afterwards, or rebuilt.
    let result = catch_unwind(AssertUnwindSafe(call));
    DEPTH.set(DEPTH.get().saturating_sub(1));
    result
}

/// What a panic said.
pub fn panic_message(payload: &(dyn Any + Send)) -> &str {
    if let Some(message) = payload.downcast_ref::<&str>() {
        message
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message
    } else {
        "no message"
    }
}

/// Something of a runtime whose drop may panic.
pub(crate) struct Shielded<T>(Option<T>);

impl<T> Shielded<T> {
    pub(crate) fn new(inner: T) -> Self {
        Shielded(Some(inner))
    }

    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }
}

impl<T> Drop for Shielded<T> {
    fn drop(&mut self) {
        let inner = self.0.take();
        if catch(|| drop(inner)).is_err() {
            tracing::warn!("a runtime panicked while it released a model");
        }
    }
}

/// Makes the process's panic hook silent about panics in guarded calls, and in threads of these
/// names.
pub(crate) fn silence(is_of_runtime: fn(&str) -> bool) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let of_runtime = std::thread::current().name().is_some_and(is_of_runtime);
            if DEPTH.get() == 0 && !of_runtime {
                previous(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors() {
        silence(|_| false);
        let path = Path::new("m.onnx");
        let result: Result<(), _> = guarded("tract", Stage::Running, path, || panic!("at {}", 3));
        let message = result.unwrap_err().to_string();
        assert_eq!(message, "tract panicked while running m.onnx: at 3");
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn panics_in_drop_stay_inside() {
        struct Broken;
        impl Drop for Broken {
            fn drop(&mut self) {
                panic!("broken");
            }
        }
        silence(|_| false);
        drop(Shielded::new(Broken));
    }
}
