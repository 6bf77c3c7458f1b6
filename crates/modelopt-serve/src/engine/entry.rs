//! A request that waits.

use std::time::Instant;

use tokio::sync::oneshot;

use super::rows::{Tensors, alike, rows_of};
use crate::{Answer, ServeError};

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) inputs: Tensors,
    /// The outputs that are wanted; all where there are none.
    pub(crate) outputs: Vec<String>,
    /// None where it cannot share a batch.
    pub(crate) rows: Option<usize>,
    pub(crate) since: Instant,
    pub(crate) deadline: Option<Instant>,
    reply: oneshot::Sender<Result<Answer, ServeError>>,
}

/// Where the answer to an [`Entry`] comes.
pub(crate) type Reply = oneshot::Receiver<Result<Answer, ServeError>>;

impl Entry {
    /// A request, and where its answer comes.
    pub(crate) fn new(
        inputs: Tensors,
        outputs: Vec<String>,
        since: Instant,
        deadline: Option<Instant>,
    ) -> (Self, Reply) {
        let (reply, answer) = oneshot::channel();
        let rows = rows_of(&inputs);
        (Entry { inputs, outputs, rows, since, deadline, reply }, answer)
    }

    /// Answers it; whether somebody was there to hear it.
    pub(crate) fn answer(self, result: Result<Answer, ServeError>) -> bool {
        self.reply.send(result).is_ok()
    }

    /// Whether somebody still waits for it, and may get an answer in time.
    pub(crate) fn is_wanted(&self, now: Instant) -> bool {
        !self.reply.is_closed() && self.deadline.is_none_or(|deadline| now < deadline)
    }

    /// Whether it can share a run with another.
    pub(crate) fn fits(&self, other: &Entry) -> bool {
        self.outputs == other.outputs && alike(&self.inputs, &other.inputs)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::planted::{row, rows};
    use super::*;

    #[test]
    fn a_request_is_wanted_until_its_client_goes_or_its_deadline_passes() {
        let now = Instant::now();
        let deadline = now + Duration::from_millis(5);
        let (entry, reply) = Entry::new(row(&[1.0]), Vec::new(), now, Some(deadline));
        assert!(entry.is_wanted(now));
        assert!(!entry.is_wanted(deadline));
        drop(reply);
        assert!(!entry.is_wanted(now));
        assert!(!entry.answer(Err(ServeError::NotReady(String::new()))));
    }

    #[test]
    fn requests_share_a_run_where_shapes_and_wanted_outputs_are_the_same() {
        let now = Instant::now();
        let entry = |inputs, outputs: &[&str]| {
            let outputs = outputs.iter().map(|&name| name.to_owned()).collect();
            Entry::new(inputs, outputs, now, None).0
        };
        let one = entry(row(&[1.0, 2.0]), &[]);
        assert!(one.fits(&entry(rows(2, &[1.0, 2.0, 3.0, 4.0]), &[])));
        assert!(!one.fits(&entry(row(&[1.0]), &[])));
        assert!(!one.fits(&entry(row(&[1.0, 2.0]), &["y"])));
        assert_eq!((one.rows, entry(rows(2, &[1.0, 2.0]), &[]).rows), (Some(1), Some(2)));
    }
}
