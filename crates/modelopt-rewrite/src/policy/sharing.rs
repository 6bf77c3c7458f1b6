//! Layers that share a weight agree on what becomes of it.

use indexmap::IndexMap;
use modelopt_graph::{Model, ValueId};

use super::decision::Decision;
use crate::eligibility::Candidate;
use crate::forms::Scheme;
use crate::layers::{Role, WeightUse};

/// Makes layers that share a weight agree: a weight that one of them needs in float32 stays
/// float32 for all (anything else would store it twice), and a weight that a dynamic layer reads
/// in another layout than another layer does is stored once, for float computation.
pub(super) fn harmonise(model: &Model, candidates: &[Candidate], decisions: &mut [Decision]) {
    let mut users: IndexMap<ValueId, Vec<(usize, &WeightUse)>> = IndexMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        for weight in &candidate.layer.weights {
            users.entry(weight.value).or_default().push((index, weight));
        }
    }
    users.retain(|_, users| users.len() > 1);
    // To a fixed point: a layer with two weights may pass a change on. Each change moves a layer
    // down, so this ends.
    let mut changed = true;
    while changed {
        changed = false;
        for (&weight, users) in &users {
            let name = model.value(weight).name();
            changed |= Shared { candidates, weight, name, users }.agree(decisions);
        }
    }
}

/// A weight that several layers read.
struct Shared<'a> {
    candidates: &'a [Candidate],
    weight: ValueId,
    /// Name of the weight.
    name: &'a str,
    /// Places of the layers, and how they read it.
    users: &'a [(usize, &'a WeightUse)],
}

impl Shared<'_> {
    /// Makes the layers agree. Returns whether any decision changed.
    fn agree(&self, decisions: &mut [Decision]) -> bool {
        let stores = |index: &usize| self.stores(*index, decisions[*index].scheme);
        let storing: Vec<usize> =
            self.users.iter().map(|&(index, _)| index).filter(stores).collect();
        if storing.is_empty() {
            return false;
        }
        if let Some(holder) = self.in_float(&storing, decisions) {
            let with = &self.candidates[holder].layer.id;
            let reason = format!("shares '{}' with '{with}', which needs it in float", self.name);
            for index in storing {
                decisions[index] = Decision { scheme: Scheme::default(), reason: reason.clone() };
            }
            return true;
        }
        self.store_alike(&storing, decisions).unwrap_or_else(|| self.read_alike(decisions))
    }

    /// Whether a layer stores it in a scheme.
    fn stores(&self, index: usize, scheme: Scheme) -> bool {
        self.candidates[index].weights(scheme).any(|stored| stored.value == self.weight)
    }

    /// A layer that needs it in float. Who computes in 16 bits rounds it, however it is stored.
    fn in_float(&self, storing: &[usize], decisions: &[Decision]) -> Option<usize> {
        let mut places = self.users.iter().map(|&(index, _)| index);
        places.find(|index| {
            storing.binary_search(index).is_err()
                && decisions[*index].scheme.computes_in().is_none()
        })
    }

    /// What is stored in more bits for some is stored so for all: it is the more precise. None where
    /// all store it alike.
    fn store_alike(&self, storing: &[usize], decisions: &mut [Decision]) -> Option<bool> {
        let scheme = |index: usize| decisions[index].scheme;
        let storage = |index: usize| scheme(index).sides().weights;
        let by_precision = |&index: &usize| (storage(index).bits, scheme(index));
        let precise = storing.iter().copied().max_by_key(by_precision)?;
        if storing.iter().all(|&index| storage(index) == storage(precise)) {
            return None;
        }
        let scheme = scheme(precise);
        let mut changed = false;
        for &index in storing {
            if decisions[index].scheme != scheme {
                let with = &self.candidates[precise].layer.id;
                let reason = format!("shares its weight with '{with}'");
                decisions[index] = Decision { scheme, reason };
                changed = true;
            }
        }
        Some(changed)
    }

    /// What has a layout of its own goes down where another layer reads the weight otherwise.
    fn read_alike(&self, decisions: &mut [Decision]) -> bool {
        let Some(&(first, reference)) = self.users.first() else { return false };
        let other = self.users.iter().find(|(_, user)| !same_layout(reference, user));
        let Some(&(other, _)) = other else { return false };
        let mut changed = false;
        for &(index, _) in self.users {
            let scheme = decisions[index].scheme;
            if let Some(below) = scheme.down().filter(|_| scheme.form().has_own_layout())
                && self.stores(index, scheme)
            {
                let with = &self.candidates[if index == first { other } else { first }].layer.id;
                let reason =
                    format!("shares its weight with '{with}', which reads it in another way");
                decisions[index] = Decision { scheme: below, reason };
                changed = true;
            }
        }
        changed
    }
}

/// Whether two uses of a weight can share one int8 tensor and its scales.
fn same_layout(a: &WeightUse, b: &WeightUse) -> bool {
    let shape = a.tensor.shape();
    let transposed = |role| matches!(role, Role::GemmB { transposed: true });
    transposed(a.role) == transposed(b.role)
        && match (a.role.channels(shape), b.role.channels(shape)) {
            (Some(a), Some(b)) => a == b,
            // A role without channels of its own takes the other's.
            _ => true,
        }
}
