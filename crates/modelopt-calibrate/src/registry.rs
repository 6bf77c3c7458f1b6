//! The kinds of observers that files are read with.

use std::fmt;

use crate::observer::{AnyObserver, Observer};
use crate::observers::{Histogram, MinMax, Moments, Moving, Ranges, SixteenBit};

/// A kind of observer.
#[derive(Clone, Copy)]
pub struct Kind {
    name: &'static str,
    read: fn(toml::Value) -> Result<Box<dyn AnyObserver>, Unreadable>,
}

/// All kinds that come with this crate. A file may have others, if who reads it knows them.
pub const OBSERVERS: &[Kind] = &[
    Kind::of::<Histogram>(),
    Kind::of::<MinMax>(),
    Kind::of::<Moments>(),
    Kind::of::<Moving>(),
    Kind::of::<Ranges>(),
    Kind::of::<SixteenBit>(),
];

/// Why what was saved of an observer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It has another form.
    #[error(transparent)]
    Form(#[from] toml::de::Error),
    /// No tensor leads to what it says.
    #[error("what it says contradicts itself")]
    Unsound,
}

impl Kind {
    /// The kind of an observer.
    pub const fn of<O: Observer>() -> Self {
        Kind { name: O::KIND, read: read::<O> }
    }

    /// Its name in files.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// An observer of this kind, from what [`AnyObserver::save`] gave.
    pub fn read(&self, saved: toml::Value) -> Result<Box<dyn AnyObserver>, Unreadable> {
        (self.read)(saved)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.name).finish()
    }
}

fn read<O: Observer>(saved: toml::Value) -> Result<Box<dyn AnyObserver>, Unreadable> {
    let observer: O = saved.try_into()?;
    if observer.is_sound() { Ok(Box::new(observer)) } else { Err(Unreadable::Unsound) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_into_keys() {
        for (place, kind) in OBSERVERS.iter().enumerate() {
            assert!(!kind.name().contains(':'), "{kind:?}");
            assert!(OBSERVERS[..place].iter().all(|other| other.name() < kind.name()));
        }
    }
}
