//! Forms: how one layer can be represented.
//!
//! A form has three sides, which vary independently: how its *weights* are stored, how its
//! *activations* are taken, and what it *computes* in. Each form is one file with its before/after
//! picture on top, and stands in [`FORMS`]: plans, ladders, searches, the command line and reports
//! read from there what there is. A [`Scheme`] is the name of a form.

mod activations;
mod computed_16bit;
mod emission;
mod form;
mod int8;
mod int8_dynamic;
mod int8_static;
mod int8_weights;
mod keep;
mod weights_16bit;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::choices::Precision;
pub(crate) use emission::{Emission, SharedWeight, Use, take_over};
pub use form::{Activations, Ladder, Sides, Storage};
pub(crate) use form::{Considered, Form, Objection};

/// All forms, by name. Those of a ladder stand in its order: the fastest and smallest first, each
/// step down more exact, and larger or slower.
pub(crate) const FORMS: &[(&str, &dyn Form)] = &[
    ("int8-static", &int8_static::Int8Static),
    ("int8-dynamic", &int8_dynamic::Int8Dynamic),
    ("int8-weights", &int8_weights::Int8Weights),
    ("fp16", &computed_16bit::ComputedIn(Precision::Fp16)),
    ("bf16", &computed_16bit::ComputedIn(Precision::Bf16)),
    ("fp16-weights", &weights_16bit::StoredIn(Precision::Fp16)),
    ("bf16-weights", &weights_16bit::StoredIn(Precision::Bf16)),
    ("keep", &keep::Keep),
];

/// What tests call forms by; no other code names one.
impl Scheme {
    /// `int8-static`
    pub const INT8_STATIC: Scheme = Scheme::named("int8-static");
    /// `int8-dynamic`
    pub const INT8_DYNAMIC: Scheme = Scheme::named("int8-dynamic");
    /// `int8-weights`
    pub const INT8_WEIGHTS: Scheme = Scheme::named("int8-weights");
    /// `fp16`
    pub const FP16: Scheme = Scheme::named("fp16");
    /// `bf16`
    pub const BF16: Scheme = Scheme::named("bf16");
    /// `fp16-weights`
    pub const FP16_WEIGHTS: Scheme = Scheme::named("fp16-weights");
    /// `bf16-weights`
    pub const BF16_WEIGHTS: Scheme = Scheme::named("bf16-weights");
    /// `keep`
    pub const KEEP: Scheme = Scheme::named("keep");
}

/// The name of a form: its place in the registry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scheme(u8);

impl Scheme {
    /// All of them.
    pub fn all() -> impl DoubleEndedIterator<Item = Scheme> {
        (0..FORMS.len()).map(|place| Scheme(place as u8))
    }

    /// The ladder that default rules and searches go down from its top, without its end.
    pub fn default_ladder() -> Vec<Scheme> {
        Scheme::all().next().map(Scheme::rungs).unwrap_or_default()
    }

    /// The form that computes in a type; keeps the layer where there is none.
    pub fn computing_in(to: Precision) -> Self {
        Scheme::all().find(|scheme| scheme.computes_in() == Some(to)).unwrap_or_default()
    }

    /// The form that only stores weights in a type; keeps the layer where there is none.
    pub fn storing_in(to: Precision) -> Self {
        Scheme::all().find(|scheme| scheme.stores_in() == Some(to)).unwrap_or_default()
    }

    /// The form of a name; constants with a name that there is not do not compile.
    const fn named(name: &str) -> Self {
        let mut place = 0;
        while !is_same(FORMS[place].0.as_bytes(), name.as_bytes()) {
            place += 1;
        }
        Scheme(place as u8)
    }

    #[allow(clippy::indexing_slicing)] // Made by places only.
    pub(crate) fn form(self) -> &'static dyn Form {
        FORMS[usize::from(self.0)].1
    }

    /// Name, as on the command line and in plan files.
    pub fn name(self) -> &'static str {
        FORMS[usize::from(self.0)].0
    }

    /// What it is, in a few words.
    pub fn about(self) -> &'static str {
        self.form().about()
    }

    /// What it does to each side of a layer.
    pub fn sides(self) -> Sides {
        self.form().sides()
    }

    /// Whether layers are left as they are.
    pub fn is_keep(self) -> bool {
        self == Scheme::default()
    }

    /// The type that a layer computes in, where that is not float32.
    pub fn computes_in(self) -> Option<Precision> {
        self.sides().computes
    }

    /// The 16-bit type that weights are stored in and computed from.
    pub fn stores_in(self) -> Option<Precision> {
        self.sides().weights.precision.filter(|_| self.sides().computes.is_none())
    }

    /// Whether it computes or stores in 16 bits.
    pub fn is_sixteen(self) -> bool {
        self.sides().weights.precision.is_some()
    }

    /// Whether weights become integers of 8 bits.
    pub fn is_int8(self) -> bool {
        self.sides().weights.is_int8()
    }

    /// Whether activations are quantized, at run time or by ranges.
    pub fn quantizes_activations(self) -> bool {
        self.sides().activations != Activations::Unchanged
    }

    /// Whether activations are quantized at run time.
    pub fn is_dynamic(self) -> bool {
        self.sides().activations == Activations::Dynamic
    }

    /// Whether activations are quantized by ranges, which have to be known.
    pub fn needs_ranges(self) -> bool {
        self.sides().activations == Activations::Static
    }

    /// Bits of each stored weight.
    pub fn weight_bits(self) -> u32 {
        self.sides().weights.bits
    }

    /// Whether a layer with this operator can have all of its weights turned into float while the
    /// model loads rather than in every run.
    pub fn has_at_load(self, op: &str) -> bool {
        self.form().has_at_load(op)
    }

    /// One step down the ladder: more exact, and larger or slower. None at its end.
    pub fn down(self) -> Option<Scheme> {
        let ladder = self.form().ladders().first()?;
        let mut below = Scheme::all().skip_while(|scheme| *scheme != self).skip(1);
        below.find(|scheme| scheme.form().ladders().contains(ladder))
    }

    /// This form and those below it that store weights in as few bits: what is tried in its place
    /// where it is not possible.
    pub fn rungs(self) -> Vec<Scheme> {
        if self.is_keep() || self.computes_in().is_some() {
            return Vec::new();
        }
        let steps = std::iter::successors(Some(self), |scheme| scheme.down());
        steps.take_while(|scheme| scheme.weight_bits() == self.weight_bits()).collect()
    }
}

/// Whether two names are equal, while constants are computed.
const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut place = 0;
    while place < a.len() && place < b.len() && a[place] == b[place] {
        place += 1;
    }
    place == a.len() && place == b.len()
}

impl Default for Scheme {
    /// Layers are left as they are.
    fn default() -> Self {
        Scheme::KEEP
    }
}

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Scheme::all().find(|scheme| scheme.name() == text).ok_or_else(|| {
            let names = Scheme::all().map(Scheme::name).collect::<Vec<_>>().join(", ");
            format!("'{text}' is not a scheme; there are {names}")
        })
    }
}

impl Serialize for Scheme {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Scheme {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ladders_go_down_to_keep() {
        let down = |scheme: Scheme| -> Vec<Scheme> {
            std::iter::successors(scheme.down(), |scheme| scheme.down()).collect()
        };
        let steps = down(Scheme::INT8_DYNAMIC);
        assert_eq!(steps[0], Scheme::INT8_WEIGHTS);
        assert!(steps.ends_with(&[Scheme::FP16_WEIGHTS, Scheme::KEEP]), "{steps:?}");
        assert!(down(Scheme::FP16).ends_with(&[Scheme::FP16_WEIGHTS, Scheme::KEEP]));
        assert!(down(Scheme::BF16).ends_with(&[Scheme::BF16_WEIGHTS, Scheme::KEEP]));
        assert_eq!(down(Scheme::KEEP), []);
        for scheme in Scheme::all() {
            assert_eq!(down(scheme).is_empty(), scheme.is_keep());
            assert!(down(scheme).iter().all(|below| below.weight_bits() >= scheme.weight_bits()));
        }
    }

    #[test]
    fn names_are_what_files_and_people_write() {
        for scheme in Scheme::all() {
            assert_eq!(scheme.name().parse(), Ok(scheme));
            assert!(!scheme.about().is_empty());
        }
        let error = "int5".parse::<Scheme>().unwrap_err();
        assert!(error.contains("'int5' is not a scheme; there are int8-static, int8-dynamic"));
    }

    #[test]
    fn what_is_tried_in_a_forms_place_stores_as_few_bits() {
        let ladder = Scheme::default_ladder();
        let int8 = [Scheme::INT8_STATIC, Scheme::INT8_DYNAMIC, Scheme::INT8_WEIGHTS];
        assert_eq!(ladder[..3], int8);
        assert!(ladder.iter().all(|scheme| scheme.is_int8()));
        assert_eq!(Scheme::FP16_WEIGHTS.rungs(), [Scheme::FP16_WEIGHTS]);
        assert_eq!(Scheme::FP16.rungs(), []);
        assert_eq!(Scheme::KEEP.rungs(), []);
        assert_eq!(Scheme::storing_in(Precision::Bf16), Scheme::BF16_WEIGHTS);
        assert_eq!(Scheme::computing_in(Precision::Fp16), Scheme::FP16);
    }
}
