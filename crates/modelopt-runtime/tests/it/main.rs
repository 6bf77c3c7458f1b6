//! Both runtimes on the models in `testdata`.
#![cfg(all(feature = "tract", feature = "rten"))]

mod attacks;
mod common;
mod digits;
mod graphs;
