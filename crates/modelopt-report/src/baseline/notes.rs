//! What else differs between two reports, so that their figures may not be comparable.

use crate::{Document, Run, wording};

pub(super) fn notes(
    new: &Document,
    old: &Document,
    new_run: Option<&Run>,
    old_run: Option<&Run>,
) -> Vec<String> {
    let mut notes = Notes(Vec::new());
    let original = |document: &Document| document.original.blake3.clone();
    if let (Some(new), Some(old)) = (original(new), original(old)) {
        notes.differs("original", &wording::short_digest(&old), &wording::short_digest(&new));
    }
    if let (Some(new), Some(old)) = (new_run, old_run) {
        let [old, new] = [old, new].map(|run| &run.runtime);
        notes.differs("runtime", &wording::runtime(old), &wording::runtime(new));
        notes.differs("threads", &old.threads.to_string(), &new.threads.to_string());
        notes.optional("provider", old.provider.as_deref(), new.provider.as_deref());
        notes.optional("optimization", old.optimization.as_deref(), new.optimization.as_deref());
    }
    if let (Some(new), Some(old)) = (&new.machine, &old.machine) {
        notes.differs("machine", &wording::machine(old), &wording::machine(new));
    }
    let samples = |document: &Document| document.samples.as_ref().map(wording::samples);
    notes.optional("samples", samples(old).as_deref(), samples(new).as_deref());
    notes.0
}

struct Notes(Vec<String>);

impl Notes {
    fn differs(&mut self, what: &str, old: &str, new: &str) {
        if old != new {
            self.0.push(format!("other {what}: {old} in the baseline, {new} now"));
        }
    }

    fn optional(&mut self, what: &str, old: Option<&str>, new: Option<&str>) {
        self.differs(what, old.unwrap_or("none"), new.unwrap_or("none"));
    }
}
