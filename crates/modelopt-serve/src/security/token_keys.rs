//! The keys that tokens are checked with.

use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use super::SecurityError;
use super::watched::Watched;

/// RFC 7518, section 3.2: a key for HS256 is at least as long as the hash.
const MIN_SECRET: usize = 32;

/// What tokens are signed by. The token itself has no say in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// A secret that both sides know: HMAC with SHA-256.
    Hs256,
    /// A pair of RSA keys: PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// A pair of keys on the curve P-256, with SHA-256.
    Es256,
}

impl TokenAlgorithm {
    /// As tokens write it.
    pub fn name(self) -> &'static str {
        match self {
            TokenAlgorithm::Hs256 => "HS256",
            TokenAlgorithm::Rs256 => "RS256",
            TokenAlgorithm::Es256 => "ES256",
        }
    }

    pub(super) fn known(self) -> Algorithm {
        match self {
            TokenAlgorithm::Hs256 => Algorithm::HS256,
            TokenAlgorithm::Rs256 => Algorithm::RS256,
            TokenAlgorithm::Es256 => Algorithm::ES256,
        }
    }

    fn in_sets(self) -> KeyAlgorithm {
        match self {
            TokenAlgorithm::Hs256 => KeyAlgorithm::HS256,
            TokenAlgorithm::Rs256 => KeyAlgorithm::RS256,
            TokenAlgorithm::Es256 => KeyAlgorithm::ES256,
        }
    }
}

/// Where the keys are that tokens are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// One key: the secret as it is, without a line break at its end, or a public key as PEM.
    File(PathBuf),
    /// A set of keys (RFC 7517), of which a token names one.
    JwkSet(PathBuf),
}

/// What a file of keys holds.
pub(super) enum Keys {
    One(DecodingKey),
    Set(Vec<(Option<String>, DecodingKey)>),
}

impl Keys {
    /// The keys in a file, watched.
    pub(super) fn open(
        algorithm: TokenAlgorithm,
        source: &KeySource,
    ) -> Result<Watched<Keys>, SecurityError> {
        match source {
            KeySource::File(path) => watch(path, move |bytes| single(algorithm, bytes)),
            KeySource::JwkSet(path) => watch(path, move |bytes| set(algorithm, bytes)),
        }
    }

    /// The key that a token names.
    pub(super) fn find(&self, kid: Option<&str>) -> Result<&DecodingKey, String> {
        let keys = match self {
            Keys::One(key) => return Ok(key),
            Keys::Set(keys) => keys,
        };
        match (kid, keys.as_slice()) {
            (None, [(_, only)]) => Ok(only),
            (None, _) => Err("the token does not say which key it is signed by (kid)".to_owned()),
            (Some(kid), keys) => keys
                .iter()
                .find(|(id, _)| id.as_deref() == Some(kid))
                .map(|(_, key)| key)
                .ok_or_else(|| "the key that the token names (kid) is not known here".to_owned()),
        }
    }
}

fn watch(
    path: &Path,
    read: impl Fn(&[u8]) -> Result<Keys, String> + Send + Sync + 'static,
) -> Result<Watched<Keys>, SecurityError> {
    Watched::open(path, read)
}

fn single(algorithm: TokenAlgorithm, bytes: &[u8]) -> Result<Keys, String> {
    let key = match algorithm {
        TokenAlgorithm::Hs256 => secret(bytes)?,
        TokenAlgorithm::Rs256 => DecodingKey::from_rsa_pem(bytes).map_err(|_| no_pem("RSA"))?,
        TokenAlgorithm::Es256 => DecodingKey::from_ec_pem(bytes).map_err(|_| no_pem("P-256"))?,
    };
    usable(algorithm, &key).map_err(|()| no_pem(algorithm.name()))?;
    Ok(Keys::One(key))
}

fn no_pem(kind: &str) -> String {
    format!("it is not a public {kind} key as PEM")
}

fn secret(bytes: &[u8]) -> Result<DecodingKey, String> {
    let secret = bytes.trim_ascii_end();
    // Whoever knows a public key could sign with it.
    if secret.starts_with(b"-----BEGIN") {
        return Err("a key as PEM is not a secret".to_owned());
    }
    long_enough(secret.len())?;
    Ok(DecodingKey::from_secret(secret))
}

fn long_enough(bytes: usize) -> Result<(), String> {
    (bytes >= MIN_SECRET)
        .then_some(())
        .ok_or_else(|| format!("a secret of {bytes} bytes is too short for HS256: {MIN_SECRET}"))
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

/// The keys of a set that sign by `algorithm`; others may stand beside them.
fn set(algorithm: TokenAlgorithm, bytes: &[u8]) -> Result<Keys, String> {
    let set: KeySet = serde_json::from_slice(bytes).map_err(|error| {
        format!("it is not a set of keys as JSON: line {}, column {}", error.line(), error.column())
    })?;
    let mut keys: Vec<(Option<String>, DecodingKey)> = Vec::new();
    // What does not even parse is of a kind that is not known here.
    for jwk in set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()) {
        if !signs(algorithm, &jwk) {
            continue;
        }
        let name = jwk.common.key_id.clone();
        let told = || name.clone().unwrap_or_else(|| "without a name".to_owned());
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| format!("key {} is broken", told()))?;
        usable(algorithm, &key).map_err(|()| format!("key {} is broken", told()))?;
        if algorithm == TokenAlgorithm::Hs256 {
            long_enough(key.try_get_as_bytes().map_or(0, <[u8]>::len))?;
        }
        if keys.iter().any(|(known, _)| *known == name) {
            return Err(format!("there are two keys {}", told()));
        }
        keys.push((name, key));
    }
    if keys.is_empty() {
        return Err(format!("there is no key for {} in it", algorithm.name()));
    }
    Ok(Keys::Set(keys))
}

fn signs(algorithm: TokenAlgorithm, jwk: &Jwk) -> bool {
    let kind = match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::OctetKey(_), TokenAlgorithm::Hs256)
        | (AlgorithmParameters::RSA(_), TokenAlgorithm::Rs256) => true,
        (AlgorithmParameters::EllipticCurve(key), TokenAlgorithm::Es256) => {
            key.curve == EllipticCurve::P256
        }
        _ => false,
    };
    let used = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let named = jwk.common.key_algorithm.is_none_or(|named| named == algorithm.in_sets());
    kind && used && named
}

/// Whether a signature can be checked with the key at all.
fn usable(algorithm: TokenAlgorithm, key: &DecodingKey) -> Result<(), ()> {
    jsonwebtoken::crypto::verify("", b"", key, algorithm.known()).map(|_| ()).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::EncodingKey;
    use serde_json::json;

    use super::super::testing::{SECRET, key_set, pem, rsa};
    use super::*;

    fn from_text(algorithm: TokenAlgorithm, text: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let source = KeySource::File(file.path().to_owned());
        Keys::open(algorithm, &source).err().unwrap().to_string()
    }

    #[test]
    fn keys_that_cannot_be_meant_are_refused_at_the_start() {
        use TokenAlgorithm::{Es256, Hs256, Rs256};
        let public = pem("rsa.pub.pem");
        let cases: [(TokenAlgorithm, &[u8], &str); 5] = [
            (Hs256, b"short", "a secret of 5 bytes is too short for HS256: 32"),
            (Hs256, &public, "a key as PEM is not a secret"),
            (Rs256, SECRET.as_bytes(), "it is not a public RSA key as PEM"),
            (Rs256, &pem("ec.pub.pem"), "it is not a public RSA key as PEM"),
            (Es256, &public, "it is not a public P-256 key as PEM"),
        ];
        for (algorithm, text, told) in cases {
            let error = from_text(algorithm, text);
            assert!(error.ends_with(told), "{error}");
        }
        let weak =
            key_set(&[("w", Algorithm::HS256, &EncodingKey::from_secret(b"weak"))]).to_string();
        let read = |algorithm, text: &str| set(algorithm, text.as_bytes()).err().unwrap();
        assert_eq!(read(Hs256, &weak), "a secret of 4 bytes is too short for HS256: 32");
        assert_eq!(read(Rs256, &weak), "there is no key for RS256 in it");
        let key = rsa("rsa.pem");
        let twice = key_set(&[("a", Algorithm::RS256, &key), ("a", Algorithm::RS256, &key)]);
        assert_eq!(read(Rs256, &twice.to_string()), "there are two keys a");
        let ec = EncodingKey::from_ec_pem(&pem("ec.pem")).unwrap();
        let mut off = key_set(&[("c", Algorithm::ES256, &ec)]);
        off["keys"][0]["x"] = json!("AAAA");
        assert_eq!(read(Es256, &off.to_string()), "key c is broken");
        assert!(read(Es256, "[]").starts_with("it is not a set of keys as JSON"));
    }
}
