//! Keys for tests.

use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// A secret for HS256.
pub(super) const SECRET: &str = "a secret that is long enough for HS256";

/// A key that was made for tests.
pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/keys").join(name)
}

/// Its text.
pub(super) fn pem(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

/// It as one to sign with.
pub(super) fn rsa(name: &str) -> EncodingKey {
    EncodingKey::from_rsa_pem(&pem(name)).unwrap()
}

/// A set of those keys under those names.
pub(super) fn key_set(keys: &[(&str, Algorithm, &EncodingKey)]) -> Value {
    let keys = keys.iter().map(|(kid, algorithm, key)| {
        let mut jwk = Jwk::from_encoding_key(key, *algorithm).unwrap();
        jwk.common.key_id = Some((*kid).to_owned());
        serde_json::to_value(jwk).unwrap()
    });
    json!({ "keys": keys.collect::<Vec<_>>() })
}
