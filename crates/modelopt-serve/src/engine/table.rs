//! What models there are, and which of their versions answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::folder::number;
use super::model::ServedModel;
use crate::ServeError;
use crate::protocol::ModelState;

/// One version in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Name of the model.
    pub name: String,
    /// The version; none where the model has none.
    pub version: Option<String>,
    /// Whether it answers.
    pub state: ModelState,
    /// Why it does not, or why a newer file is not what answers.
    pub reason: Option<String>,
}

/// A version: what answers, and what went wrong last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) model: Option<Arc<ServedModel>>,
    pub(crate) is_loading: bool,
    pub(crate) problem: Option<String>,
}

impl Slot {
    fn state(&self) -> (ModelState, Option<String>) {
        match &self.model {
            Some(model) => match model.not_ready() {
                Some(reason) => (ModelState::Unavailable, Some(reason)),
                None => (ModelState::Ready, self.problem.clone()),
            },
            None if self.is_loading => (ModelState::Loading, None),
            None => (ModelState::Unavailable, self.problem.clone()),
        }
    }

    /// Why it does not answer, or not with what is there now.
    fn problem(&self) -> Option<String> {
        match self.state() {
            (ModelState::Loading, _) => Some("it is being loaded".to_owned()),
            (_, reason) => reason,
        }
    }
}

/// A model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions {
    pub(crate) slots: BTreeMap<u64, Slot>,
    /// Why it has no versions.
    pub(crate) problem: Option<String>,
    /// Whether it was taken away on purpose.
    pub(crate) is_unloaded: bool,
}

impl Versions {
    /// The newest version that there is something of.
    fn newest(&self) -> Option<&Arc<ServedModel>> {
        self.slots.values().rev().find_map(|slot| slot.model.as_ref())
    }

    /// Why it does not answer.
    fn problem(&self) -> String {
        let of_slots = self.slots.values().rev().filter_map(Slot::problem);
        let own = self.problem.clone().into_iter();
        own.chain(of_slots).next().unwrap_or_else(|| "it has no version".to_owned())
    }
}

/// All models by name. It is copied for every change, and read without a lock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(pub(crate) BTreeMap<String, Versions>);

impl Table {
    /// The model that answers for a name: the newest version, or the one that is asked for.
    pub(crate) fn find(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<&Arc<ServedModel>, ServeError> {
        let unknown = || ServeError::NotFound(format!("there is no model '{name}'"));
        let versions = self.0.get(name).ok_or_else(unknown)?;
        let (found, problem) = match version {
            None => (versions.newest(), None),
            Some(version) => {
                let slot = number(version).and_then(|number| versions.slots.get(&number));
                let slot = slot.ok_or_else(|| {
                    ServeError::NotFound(format!("model '{name}' has no version '{version}'"))
                })?;
                (slot.model.as_ref(), slot.problem())
            }
        };
        found.ok_or_else(|| {
            let reason = problem.unwrap_or_else(|| versions.problem());
            let said = format!("model '{name}' is not ready: {reason}");
            if versions.is_unloaded {
                ServeError::NotFound(said)
            } else {
                ServeError::NotReady(said)
            }
        })
    }

    /// Why a model does not answer, if it does not.
    pub(crate) fn refusal(&self, name: &str, version: Option<&str>) -> Option<ServeError> {
        match self.find(name, version) {
            Ok(model) => model.not_ready().map(|reason| {
                ServeError::NotReady(format!("model '{name}' is not ready: {reason}"))
            }),
            Err(error) => Some(error),
        }
    }

    /// Why not all models answer that should.
    pub(crate) fn not_ready(&self) -> Option<ServeError> {
        let mut wanted = self.0.iter().filter(|(_, versions)| !versions.is_unloaded);
        wanted.find_map(|(name, _)| self.refusal(name, None))
    }

    /// Every version of every model.
    pub(crate) fn index(&self) -> Vec<IndexEntry> {
        let mut entries = Vec::new();
        for (name, versions) in &self.0 {
            for (version, slot) in &versions.slots {
                let (state, reason) = slot.state();
                let (name, version) = (name.clone(), Some(version.to_string()));
                entries.push(IndexEntry { name, version, state, reason });
            }
            if versions.slots.is_empty() {
                let (name, reason) = (name.clone(), Some(versions.problem()));
                let state = ModelState::Unavailable;
                entries.push(IndexEntry { name, version: None, state, reason });
            }
        }
        entries
    }

    /// All models that are there.
    pub(crate) fn models(&self) -> Vec<Arc<ServedModel>> {
        let slots = self.0.values().flat_map(|versions| versions.slots.values());
        slots.filter_map(|slot| slot.model.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(why: &str) -> Slot {
        Slot { problem: Some(why.to_owned()), ..Slot::default() }
    }

    fn table(slots: &[(u64, Slot)]) -> Table {
        let slots = slots.iter().cloned().collect();
        Table([("m".to_owned(), Versions { slots, ..Versions::default() })].into())
    }

    fn said(table: &Table, version: Option<&str>) -> String {
        table.find("m", version).unwrap_err().to_string()
    }

    #[test]
    fn each_version_says_what_is_wrong_with_it() {
        let loading = Slot { is_loading: true, ..failed("an older failure") };
        let table = table(&[(1, loading), (2, failed("no memory"))]);
        assert_eq!(said(&table, Some("1")), "model 'm' is not ready: it is being loaded");
        assert_eq!(said(&table, Some("2")), "model 'm' is not ready: no memory");
        // Whoever asks for none is told of the newest.
        assert_eq!(said(&table, None), said(&table, Some("2")));
        assert_eq!(said(&table, Some("02")), "model 'm' has no version '02'");
        let states: Vec<&str> = table.index().iter().map(|entry| entry.state.name()).collect();
        assert_eq!(states, ["LOADING", "UNAVAILABLE"]);
    }

    #[test]
    fn what_was_taken_away_is_missed_by_nobody() {
        let mut table = table(&[(1, failed("it was unloaded"))]);
        assert_eq!(table.not_ready().map(|error| error.status()), Some(503));
        table.0.entry("m".to_owned()).or_default().is_unloaded = true;
        assert_eq!(table.not_ready(), None);
        assert_eq!(table.find("m", None).unwrap_err().status(), 404);
    }

    #[test]
    fn a_model_without_versions_is_in_the_index_and_not_ready() {
        let table = table(&[]);
        let [entry] = &table.index()[..] else { panic!() };
        assert_eq!((entry.version.as_ref(), entry.state), (None, ModelState::Unavailable));
        assert_eq!(entry.reason.as_deref(), Some("it has no version"));
        assert_eq!(said(&table, None), "model 'm' is not ready: it has no version");
        assert!(table.not_ready().is_some());
    }
}
