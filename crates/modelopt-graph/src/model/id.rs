//! Places in the arenas of a model.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub(crate) u32);

        impl $name {
            /// Place in the model's arena.
            pub fn index(self) -> usize {
                self.0 as usize
            }

            pub(crate) fn at(index: usize) -> Self {
                // An arena of 2^32 entries would take hundreds of gigabytes.
                $name(u32::try_from(index).unwrap_or(u32::MAX))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id!(
    /// A graph of a [`Model`](crate::Model): the main graph, a body of a control-flow node, or a function's body.
    GraphId
);
id!(
    /// A node of a [`Model`](crate::Model).
    NodeId
);
id!(
    /// A value of a [`Model`](crate::Model).
    ValueId
);
