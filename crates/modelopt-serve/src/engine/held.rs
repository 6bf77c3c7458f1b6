//! A session that is made anew when it does not survive a request.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use modelopt_runtime::{
    End, Outputs, Runtime, RuntimeError, Session, SessionOptions, panic_message,
};

use super::rows::Tensors;
use crate::ServeError;

/// Makes sessions of a model.
pub(crate) struct Maker {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) path: PathBuf,
    pub(crate) options: SessionOptions,
}

impl Maker {
    /// A session.
    ///
    /// # Errors
    /// What the runtime says; a panic is an error, too.
    pub(crate) fn make(&self) -> Result<Box<dyn Session>, String> {
        let made = catch(|| self.runtime.prepare(&self.path, &self.options));
        made?.map_err(|error| error.without_path())
    }
}

/// Why a run gave nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The runtime failed on these inputs.
    Refused(ServeError),
    /// It did not end in time.
    Hung(ServeError),
    /// There is no session, and none can be made.
    Gone(String),
}

impl Failure {
    fn of(error: &RuntimeError) -> Self {
        let said = error.without_path();
        match error {
            RuntimeError::MissingInput { .. } | RuntimeError::Mismatch { .. } => {
                Failure::Refused(ServeError::Invalid(said))
            }
            RuntimeError::Died { end: End::Late(_), .. } => {
                Failure::Hung(ServeError::Runtime(said))
            }
            _ => Failure::Refused(ServeError::Runtime(said)),
        }
    }

    /// Why, for people.
    pub(crate) fn said(self) -> String {
        match self {
            Failure::Refused(error) | Failure::Hung(error) => error.to_string(),
            Failure::Gone(reason) => reason,
        }
    }
}

/// A session, or a place for one.
pub(crate) struct Held {
    maker: Arc<Maker>,
    /// What it is run on before it counts as ready.
    warm_up: Option<Tensors>,
    session: Option<Box<dyn Session>>,
}

impl Held {
    /// A place for a session.
    pub(crate) fn new(maker: Arc<Maker>) -> Self {
        Held { maker, warm_up: None, session: None }
    }

    /// Runs it on these inputs whenever it is made. They are known to run.
    pub(crate) fn warm_up_on(&mut self, inputs: Option<Tensors>) {
        self.warm_up = inputs;
    }

    /// Whether there is a session.
    pub(crate) fn is_there(&self) -> bool {
        self.session.is_some()
    }

    /// Makes the session if there is none.
    ///
    /// # Errors
    /// If it cannot be made, or does not survive its first run.
    pub(crate) fn restore(&mut self) -> Result<(), String> {
        if self.session.is_none() {
            let mut session = self.maker.make()?;
            if let Some(inputs) = &self.warm_up {
                let ran = catch(|| session.run(inputs).map(drop));
                ran?.map_err(|error| error.without_path())?;
            }
            self.session = Some(session);
        }
        Ok(())
    }

    /// Runs it, and lets go of it if it does not survive that.
    pub(crate) fn run(&mut self, inputs: &Tensors) -> Result<Outputs, Failure> {
        self.restore().map_err(Failure::Gone)?;
        let Some(session) = &mut self.session else {
            return Err(Failure::Gone("there is no session".to_owned()));
        };
        let (failure, survives) = match catch(|| session.run(inputs)) {
            Ok(Ok(outputs)) => return Ok(outputs),
            Ok(Err(error)) => (Failure::of(&error), is_survived(&error)),
            Err(panic) => (Failure::Refused(ServeError::Runtime(panic)), false),
        };
        if !survives {
            self.let_go();
        }
        Err(failure)
    }

    fn let_go(&mut self) {
        let session = self.session.take();
        if let Err(panic) = catch(|| drop(session)) {
            tracing::warn!(panic, "a session could not be released");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Whether a session is as it was before this happened.
fn is_survived(error: &RuntimeError) -> bool {
    !matches!(error, RuntimeError::Panicked { .. } | RuntimeError::Died { .. })
}

/// What a call gives; a panic is an error that says what was said.
fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    // What the call leaves half-done is only dropped afterwards.
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|payload| format!("the runtime panicked: {}", panic_message(payload.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::super::planted::{Planted, first, row};
    use super::*;

    fn held(planted: &Planted) -> Held {
        Held::new(Arc::new(planted.maker()))
    }

    #[test]
    fn a_panic_is_an_error_and_the_session_is_made_anew() {
        let planted = Planted::doubling().panicking_at(13.0);
        let mut held = held(&planted);
        assert!(held.run(&row(&[1.0])).is_ok());
        let failure = held.run(&row(&[13.0])).unwrap_err();
        let Failure::Refused(ServeError::Runtime(said)) = failure else { panic!("{failure:?}") };
        assert_eq!(said, "the runtime panicked: 13 is unlucky");
        assert!(!held.is_there());
        assert_eq!(first(&held.run(&row(&[2.0])).unwrap()), 4000);
        assert_eq!(planted.loads(), 2);
    }

    #[test]
    fn an_error_costs_no_session() {
        let planted = Planted::doubling().refusing(7.0);
        let mut held = held(&planted);
        let failure = held.run(&row(&[7.0])).unwrap_err();
        let Failure::Refused(error) = failure else { panic!("{failure:?}") };
        assert_eq!(error.to_string(), "planted cannot run it: 7 is refused");
        assert!(held.run(&row(&[2.0])).is_ok());
        assert_eq!(planted.loads(), 1);
    }

    #[test]
    fn a_session_that_cannot_be_made_is_gone_with_its_reason() {
        let planted = Planted::doubling().panicking_at(13.0);
        let mut held = held(&planted);
        held.restore().unwrap();
        planted.load_no_more("the file is gone");
        held.run(&row(&[13.0])).unwrap_err();
        let Failure::Gone(reason) = held.run(&row(&[1.0])).unwrap_err() else { panic!() };
        assert_eq!(reason, "planted cannot load it: the file is gone");
        assert_eq!(held.restore().unwrap_err(), reason);
    }

    #[test]
    fn it_is_ready_only_after_its_first_run() {
        let planted = Planted::doubling().refusing(7.0);
        let mut held = held(&planted);
        held.warm_up_on(Some(row(&[7.0])));
        assert!(held.restore().is_err() && !held.is_there());
        held.warm_up_on(Some(row(&[1.0])));
        held.restore().unwrap();
        assert_eq!(planted.runs(), [1, 1]);
    }
}
