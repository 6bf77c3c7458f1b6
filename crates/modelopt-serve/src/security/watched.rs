//! What a file says, read again when the file changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use super::SecurityError;

/// How often a file is looked at, at most: asking for its time costs more than checking a token.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Read<T> = Box<dyn Fn(&[u8]) -> Result<T, String> + Send + Sync>;

/// The last good content of a file.
pub(super) struct Watched<T> {
    path: PathBuf,
    read: Read<T>,
    current: ArcSwap<T>,
    seen: Mutex<Seen>,
    every: Duration,
}

struct Seen {
    next_look: Instant,
    stamp: Option<Stamp>,
    trouble: Option<String>,
}

/// By what a changed file is known: when it was written, and how long it is.
type Stamp = (SystemTime, u64);

impl<T> Watched<T> {
    /// What `path` says by `read`, which tells what is wrong without telling secrets.
    pub(super) fn open(
        path: &Path,
        read: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, SecurityError> {
        // Before the content, so that a file that changes in between is read again.
        let stamp = stamp(path);
        let bytes = std::fs::read(path)
            .map_err(|source| SecurityError::Read { path: path.to_owned(), source })?;
        let content =
            read(&bytes).map_err(|reason| SecurityError::Keys { path: path.to_owned(), reason })?;
        Ok(Watched {
            path: path.to_owned(),
            read: Box::new(read),
            current: ArcSwap::from_pointee(content),
            seen: Mutex::new(Seen { next_look: Instant::now() + LOOK_EVERY, stamp, trouble: None }),
            every: LOOK_EVERY,
        })
    }

    /// What the file says now, or what it said when it last made sense.
    pub(super) fn get(&self) -> Arc<T> {
        // Whoever finds another looking takes what there is.
        if let Ok(mut seen) = self.seen.try_lock()
            && Instant::now() >= seen.next_look
        {
            seen.next_look = Instant::now() + self.every;
            self.look(&mut seen);
        }
        self.current.load_full()
    }

    /// What is wrong with the file, while the content before it is used.
    pub(super) fn trouble(&self) -> Option<String> {
        self.seen.lock().ok().and_then(|seen| seen.trouble.clone())
    }

    fn look(&self, seen: &mut Seen) {
        let stamp = stamp(&self.path);
        if stamp == seen.stamp {
            return;
        }
        let read = std::fs::read(&self.path).map_err(|error| error.to_string());
        match read.and_then(|bytes| (self.read)(&bytes)) {
            Ok(content) => {
                self.current.store(Arc::new(content));
                seen.trouble = None;
                tracing::info!(path = %self.path.display(), "keys were read again");
            }
            Err(reason) => {
                tracing::warn!(
                    path = %self.path.display(), reason,
                    "keys cannot be read again; those from before stay"
                );
                seen.trouble = Some(format!("{}: {reason}", self.path.display()));
            }
        }
        // Also of a broken file, so that it is told once and not every second.
        seen.stamp = stamp;
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
impl<T> Watched<T> {
    /// The same, looking whenever it is asked.
    pub(super) fn eager(mut self) -> Self {
        self.every = Duration::ZERO;
        self.seen.get_mut().unwrap().next_look = Instant::now();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> Result<i32, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "no text".to_owned())?;
        text.parse().map_err(|_| "no number".to_owned())
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_keeps_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let watched = Watched::open(&path, number).unwrap().eager();
        assert_eq!((*watched.get(), watched.trouble()), (1, None));
        std::fs::write(&path, "22").unwrap();
        assert_eq!(*watched.get(), 22);
        std::fs::write(&path, "three").unwrap();
        assert_eq!(*watched.get(), 22);
        assert!(watched.trouble().unwrap().ends_with("number: no number"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*watched.get(), 22);
        std::fs::write(&path, "4444").unwrap();
        assert_eq!((*watched.get(), watched.trouble()), (4444, None));
    }

    #[test]
    fn a_file_is_not_looked_at_for_every_request() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let watched = Watched::open(&path, number).unwrap();
        std::fs::write(&path, "22").unwrap();
        assert_eq!(*watched.get(), 1);
    }

    #[test]
    fn a_file_that_is_missing_or_broken_at_the_start_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        assert!(matches!(Watched::open(&path, number), Err(SecurityError::Read { .. })));
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(Watched::open(&path, number), Err(SecurityError::Keys { .. })));
    }
}
