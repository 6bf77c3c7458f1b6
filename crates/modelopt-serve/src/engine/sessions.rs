//! The sessions of a model, each on a thread of its own.
//!
//! A runtime blocks for as long as a model computes, so it never runs where requests are taken in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::batcher::Batcher;
use super::held::Held;

/// How long a session that cannot be made anew waits before it tries again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// The threads of a model's sessions. They end when its queue is closed and empty.
#[derive(Debug)]
pub(crate) struct Sessions {
    batcher: Arc<Batcher>,
    /// How many threads are there.
    running: watch::Receiver<usize>,
}

impl Sessions {
    /// Starts a thread for each session.
    ///
    /// # Errors
    /// If the system gives no more threads; those that are there end.
    pub(crate) fn start(batcher: &Arc<Batcher>, sessions: Vec<Held>) -> std::io::Result<Self> {
        let (running, watched) = watch::channel(sessions.len());
        let running = Arc::new(running);
        for (number, held) in sessions.into_iter().enumerate() {
            let leaving = Leaving { batcher: Arc::clone(batcher), running: Arc::clone(&running) };
            let name = format!("{}-{number}", batcher.model);
            let thread = std::thread::Builder::new().name(name);
            let started = thread.spawn(move || work(&leaving.batcher, held));
            if let Err(error) = started {
                batcher.queue.drain();
                return Err(error);
            }
        }
        Ok(Sessions { batcher: Arc::clone(batcher), running: watched })
    }

    /// Takes no more requests, and answers what waits within a time; what is left then is refused.
    /// Whether all was answered.
    pub(crate) async fn stop(&self, within: Duration) -> bool {
        self.batcher.queue.drain();
        let mut running = self.running.clone();
        let ended = running.wait_for(|&count| count == 0);
        if tokio::time::timeout(within, ended).await.is_ok() {
            return true;
        }
        let (left, error) = self.batcher.queue.end();
        self.batcher.refuse(left, &error);
        false
    }
}

/// What a thread leaves behind when it ends, in whatever way.
struct Leaving {
    batcher: Arc<Batcher>,
    running: Arc<watch::Sender<usize>>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        // Nobody may wait for a session that is not there.
        if std::thread::panicking() {
            let reason = "a session ended unexpectedly";
            let left = self.batcher.queue.lose_session(reason);
            self.batcher.refuse(left, &self.batcher.queue.is_broken(reason));
        }
        self.running.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.batcher.queue.drain();
    }
}

fn work(batcher: &Batcher, mut held: Held) {
    while is_restored(batcher, &mut held) {
        let Some(entries) = batcher.queue.next() else { break };
        batcher.answer(&mut held, entries);
    }
}

/// Makes the session anew if it is gone, as often as need be; whether it goes on.
fn is_restored(batcher: &Batcher, held: &mut Held) -> bool {
    if held.is_there() {
        return true;
    }
    let Err(reason) = held.restore() else {
        tracing::warn!(model = batcher.model, "a session was made anew");
        return true;
    };
    tracing::error!(model = batcher.model, reason, "a session cannot be made anew");
    let left = batcher.queue.lose_session(&reason);
    batcher.refuse(left, &batcher.queue.is_broken(&reason));
    let (mut pause, longest) = PAUSES;
    while batcher.queue.pause(pause) {
        let started = Instant::now();
        if held.restore().is_ok() {
            tracing::info!(model = batcher.model, "a session is there again");
            batcher.queue.regain_session();
            return true;
        }
        // Trying takes no more of a processor than waiting does.
        pause = longest.min((pause * 2).max(started.elapsed()));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Entry, Reply};
    use super::super::planted::{Planted, first, row};
    use super::super::queue::Queue;
    use super::super::settings::ModelSettings;
    use super::*;
    use crate::ServeError;

    fn started(planted: &Planted, settings: &ModelSettings) -> Sessions {
        let queue = Arc::new(Queue::new("m", settings));
        let (model, outputs) = ("m".to_owned(), vec!["y".to_owned()]);
        let batcher = Batcher { model, outputs, queue, counters: Arc::default() };
        let maker = Arc::new(planted.maker());
        let held = (0..settings.sessions).map(|_| Held::new(Arc::clone(&maker)));
        Sessions::start(&Arc::new(batcher), held.collect()).unwrap()
    }

    fn ask(sessions: &Sessions, value: f32) -> Result<Reply, ServeError> {
        let (entry, reply) = Entry::new(row(&[value]), Vec::new(), Instant::now(), None);
        sessions.batcher.queue.push(entry, 0).map(|()| reply)
    }

    async fn answer(sessions: &Sessions, value: f32) -> Result<i64, ServeError> {
        let answer = ask(sessions, value)?.await.unwrap()?;
        Ok(first(&answer.outputs))
    }

    #[tokio::test]
    async fn a_thread_that_ends_in_a_panic_leaves_nobody_waiting() {
        let settings = ModelSettings::default();
        let queue = Arc::new(Queue::new("m", &settings));
        let (model, outputs) = ("m".to_owned(), vec!["y".to_owned()]);
        let batcher = Arc::new(Batcher { model, outputs, queue, counters: Arc::default() });
        let (entry, reply) = Entry::new(row(&[1.0]), Vec::new(), Instant::now(), None);
        batcher.queue.push(entry, 0).unwrap();
        let (running, watched) = watch::channel(1);
        let leaving = Leaving { batcher: Arc::clone(&batcher), running: Arc::new(running) };
        let thread = std::thread::spawn(move || {
            let _leaving = leaving;
            panic!("this is a test");
        });
        assert!(thread.join().is_err());
        let error = reply.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "model 'm' is not ready: a session ended unexpectedly");
        assert_eq!((batcher.queue.closed().is_some(), *watched.borrow()), (true, 0));
    }

    #[tokio::test]
    async fn sessions_run_at_the_same_time() {
        let planted = Planted::doubling().taking(Duration::from_millis(250));
        let settings = ModelSettings { sessions: 4, max_batch_size: 0, ..ModelSettings::default() };
        let sessions = started(&planted, &settings);
        let begun = Instant::now();
        let replies: Vec<Reply> =
            (0..4).map(|value| ask(&sessions, value as f32).unwrap()).collect();
        for reply in replies {
            reply.await.unwrap().unwrap();
        }
        assert!(begun.elapsed() < Duration::from_millis(800), "{:?}", begun.elapsed());
        assert!(sessions.stop(Duration::from_secs(5)).await);
        assert_eq!(planted.loads(), 4);
    }

    #[tokio::test]
    async fn what_waits_is_answered_before_the_end_and_nothing_more_is_taken() {
        let planted = Planted::doubling().taking(Duration::from_millis(20));
        let settings = ModelSettings { max_batch_size: 0, ..ModelSettings::default() };
        let sessions = started(&planted, &settings);
        let replies: Vec<Reply> =
            (0..5).map(|value| ask(&sessions, value as f32).unwrap()).collect();
        assert!(sessions.stop(Duration::from_secs(5)).await);
        for reply in replies {
            reply.await.unwrap().unwrap();
        }
        let error = answer(&sessions, 1.0).await.unwrap_err();
        assert_eq!(error, ServeError::NotReady("model 'm' is being stopped".to_owned()));
    }

    #[tokio::test]
    async fn what_cannot_be_answered_in_time_is_refused() {
        let planted = Planted::doubling().taking(Duration::from_millis(800));
        let settings = ModelSettings { max_batch_size: 0, ..ModelSettings::default() };
        let sessions = started(&planted, &settings);
        let replies: Vec<Reply> =
            (0..3).map(|value| ask(&sessions, value as f32).unwrap()).collect();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!sessions.stop(Duration::from_millis(20)).await);
        let mut answers = Vec::new();
        for reply in replies {
            answers.push(reply.await.unwrap().is_ok());
        }
        // The one that runs is not cut off.
        assert_eq!(answers, [true, false, false]);
    }

    #[tokio::test]
    async fn a_model_that_cannot_be_loaded_again_is_not_ready_until_it_can() {
        let planted = Planted::doubling().panicking_at(13.0);
        let sessions = started(&planted, &ModelSettings::default());
        assert_eq!(answer(&sessions, 2.0).await.unwrap(), 4000);
        planted.load_no_more("no memory");
        assert!(answer(&sessions, 13.0).await.is_err());
        let deadline = Instant::now() + Duration::from_secs(5);
        while sessions.batcher.queue.closed().is_none() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let error = answer(&sessions, 2.0).await.unwrap_err();
        assert_eq!(error.to_string(), "model 'm' is not ready: planted cannot load it: no memory");
        planted.load_again();
        while sessions.batcher.queue.closed().is_some() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(answer(&sessions, 3.0).await.unwrap(), 6000);
        assert!(sessions.stop(Duration::from_secs(5)).await);
    }
}
