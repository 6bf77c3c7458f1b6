//! Keys that clients send as they are.

use std::path::Path;
use std::sync::Arc;

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::SecurityError;
use super::watched::Watched;

/// Shorter keys can be guessed.
const MIN_KEY: usize = 16;
/// Each request is compared with all of them.
const MAX_KEYS: usize = 10_000;
/// Names stand in logs.
const MAX_NAME: usize = 64;
const HASHED: &str = "blake3:";

/// The keys of a file with a line `NAME:KEY` or `NAME:blake3:HASH` for each, where the hash is that of the key
/// in hexadecimal. Empty lines and those that start with `#` say nothing. A name can have several keys.
pub(super) struct ApiKeys {
    keys: Watched<Vec<ApiKey>>,
}

struct ApiKey {
    name: Arc<str>,
    hash: [u8; 32],
}

impl ApiKeys {
    /// The keys in `path`.
    pub(super) fn open(path: &Path) -> Result<Self, SecurityError> {
        Ok(ApiKeys { keys: Watched::open(path, parse)? })
    }

    /// Whose key that is.
    ///
    /// Keys are compared as hashes, each with all of them and all bytes of each, so that the time says
    /// nothing about how much of a key is right, nor which.
    pub(super) fn name(&self, key: &str) -> Option<Arc<str>> {
        let hash = *blake3::hash(key.as_bytes()).as_bytes();
        let keys = self.keys.get();
        let (mut found, mut place) = (Choice::from(0), 0u32);
        for (index, known) in (0u32..).zip(keys.iter()) {
            let same = known.hash.ct_eq(&hash);
            place.conditional_assign(&index, same);
            found |= same;
        }
        bool::from(found).then(|| keys.get(place as usize).map(|known| Arc::clone(&known.name)))?
    }

    /// What is wrong with the file now.
    pub(super) fn trouble(&self) -> Option<String> {
        self.keys.trouble()
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<ApiKey>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the file is not text".to_owned())?;
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let keys = lines
        .map(|(number, line)| key(line).map_err(|reason| format!("line {number}: {reason}")))
        .collect::<Result<Vec<_>, _>>()?;
    match keys.len() {
        0 => Err("there is no key in it".to_owned()),
        1..=MAX_KEYS => Ok(keys),
        more => Err(format!("there are {more} keys in it, but at most {MAX_KEYS} are taken")),
    }
}

fn key(line: &str) -> Result<ApiKey, String> {
    let (name, key) = line.split_once(':').ok_or("there is no colon after a name")?;
    let (name, key) = (name.trim_end(), key.trim_start());
    if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
        return Err(format!("a name is 1 to {MAX_NAME} bytes of plain text"));
    }
    let hash = match key.strip_prefix(HASHED) {
        Some(hex) => blake3::Hash::from_hex(hex)
            .map_err(|_| format!("the hash of '{name}' is not 64 hexadecimal digits"))?,
        None if key.len() < MIN_KEY => {
            return Err(format!("the key of '{name}' has fewer than {MIN_KEY} bytes"));
        }
        None => blake3::hash(key.as_bytes()),
    };
    Ok(ApiKey { name: name.into(), hash: *hash.as_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "correct-horse-battery";

    fn keys(text: &str) -> Result<ApiKeys, SecurityError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        ApiKeys::open(file.path())
    }

    #[test]
    fn keys_are_found_plain_and_hashed_and_nothing_else_is() {
        let hash = blake3::hash(b"another long secret").to_hex();
        let text =
            format!("# clients\n\nalice:{KEY}\nbob: blake3:{hash}\nalice:rotated-key-0002\n");
        let keys = keys(&text).unwrap();
        let name = |key| keys.name(key).as_deref().map(str::to_owned);
        assert_eq!(name(KEY).unwrap(), "alice");
        assert_eq!(name("rotated-key-0002").unwrap(), "alice");
        assert_eq!(name("another long secret").unwrap(), "bob");
        let near = format!("{KEY}x");
        for wrong in ["", &KEY[1..], &near, &hash, "alice", "blake3:"] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_meant_is_refused_without_telling_keys() {
        let broken = [
            ("", "there is no key in it"),
            ("# only a comment\n", "there is no key in it"),
            ("\njust-a-secret-without-name", "line 2: there is no colon after a name"),
            (":secret-of-nobody-at-all", "line 1: a name is 1 to 64 bytes of plain text"),
            ("a:short-secret", "line 1: the key of 'a' has fewer than 16 bytes"),
            ("a:blake3:secret12", "line 1: the hash of 'a' is not 64 hexadecimal digits"),
        ];
        for (text, told) in broken {
            let error = keys(text).err().unwrap().to_string();
            assert!(error.ends_with(told), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_key_that_is_taken_out_of_the_file_is_no_longer_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("alice:{KEY}\nbob:another-long-key")).unwrap();
        let ApiKeys { keys } = ApiKeys::open(file.path()).unwrap();
        let keys = ApiKeys { keys: keys.eager() };
        assert!(keys.name(KEY).is_some());
        std::fs::write(file.path(), "bob:another-long-key").unwrap();
        assert!(keys.name(KEY).is_none());
        assert!(keys.name("another-long-key").is_some());
        std::fs::write(file.path(), "").unwrap();
        assert!(keys.name("another-long-key").is_some());
        assert!(keys.trouble().unwrap().ends_with("there is no key in it"));
    }
}
