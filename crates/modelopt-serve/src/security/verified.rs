//! Tokens that were verified, so that a client's next request need not be checked by arithmetic on large
//! numbers: that takes longer than a small model.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tokens that are remembered. Only those who have a valid token can fill it.
const MOST: usize = 10_000;

/// Subjects by the digest of their tokens, while the keys `K` stay and the tokens have not expired.
pub(super) struct Verified<K>(Mutex<Memo<K>>);

struct Memo<K> {
    keys: Weak<K>,
    tokens: HashMap<[u8; 32], Entry>,
}

struct Entry {
    subject: Arc<str>,
    /// Seconds since 1970.
    until: u64,
}

impl<K> Default for Verified<K> {
    fn default() -> Self {
        Verified(Mutex::new(Memo { keys: Weak::new(), tokens: HashMap::new() }))
    }
}

impl<K> Verified<K> {
    /// Whom `token` speaks for, if it was verified with those keys and is still valid.
    pub(super) fn subject(&self, token: &str, keys: &Arc<K>) -> Option<Arc<str>> {
        self.subject_at(now(), token, keys)
    }

    /// Remembers a token that is valid until a time, in seconds since 1970.
    pub(super) fn remember(&self, token: &str, keys: &Arc<K>, subject: &Arc<str>, until: u64) {
        self.remember_at(now(), token, keys, Entry { subject: Arc::clone(subject), until });
    }

    fn subject_at(&self, now: u64, token: &str, keys: &Arc<K>) -> Option<Arc<str>> {
        let digest = blake3::hash(token.as_bytes());
        let memo = self.lock();
        let entry = memo.tokens.get(digest.as_bytes())?;
        (memo.is_of(keys) && now < entry.until).then(|| Arc::clone(&entry.subject))
    }

    fn remember_at(&self, now: u64, token: &str, keys: &Arc<K>, entry: Entry) {
        let digest = blake3::hash(token.as_bytes());
        let mut memo = self.lock();
        if !memo.is_of(keys) {
            memo.keys = Arc::downgrade(keys);
            memo.tokens.clear();
        }
        if memo.tokens.len() >= MOST {
            memo.tokens.retain(|_, entry| now < entry.until);
        }
        // Where all are valid, they are verified once more.
        if memo.tokens.len() >= MOST {
            memo.tokens.clear();
        }
        memo.tokens.insert(*digest.as_bytes(), entry);
    }

    fn lock(&self) -> MutexGuard<'_, Memo<K>> {
        // Whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Memo<K> {
    fn is_of(&self, keys: &Arc<K>) -> bool {
        std::ptr::eq(self.keys.as_ptr(), Arc::as_ptr(keys))
    }
}

fn now() -> u64 {
    // Before 1970 no token can be remembered to be valid: the clock was never set.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(until: u64) -> Entry {
        Entry { subject: "alice".into(), until }
    }

    #[test]
    fn a_token_is_remembered_until_it_expires() {
        let (verified, keys) = (Verified::default(), Arc::new(1));
        verified.remember_at(100, "token", &keys, entry(200));
        assert_eq!(verified.subject_at(199, "token", &keys).as_deref(), Some("alice"));
        assert_eq!(verified.subject_at(200, "token", &keys), None);
        assert_eq!(verified.subject_at(100, "tokem", &keys), None);
    }

    #[test]
    fn other_keys_verify_again() {
        let (verified, old, new) = (Verified::default(), Arc::new(1), Arc::new(1));
        verified.remember_at(100, "token", &old, entry(200));
        assert_eq!(verified.subject_at(100, "token", &new), None);
        verified.remember_at(100, "other", &new, entry(200));
        assert!(verified.subject_at(100, "other", &new).is_some());
        assert_eq!(verified.subject_at(100, "token", &old), None);
    }

    #[test]
    fn so_many_are_remembered_and_those_that_expired_go_first() {
        let (verified, keys) = (Verified::default(), Arc::new(1));
        for token in 0..MOST {
            let until = if token < 10 { 1_000 } else { 200 };
            verified.remember_at(100, &token.to_string(), &keys, entry(until));
        }
        assert!(verified.subject_at(100, "5000", &keys).is_some());
        verified.remember_at(300, "new", &keys, entry(1_000));
        assert_eq!(verified.lock().tokens.len(), 11);
        for token in 0..3 * MOST {
            verified.remember_at(300, &format!("more {token}"), &keys, entry(1_000));
            assert!(verified.lock().tokens.len() <= MOST);
        }
    }
}
