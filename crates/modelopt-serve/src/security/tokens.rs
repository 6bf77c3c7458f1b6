//! Bearer tokens: JSON Web Tokens (RFC 7519) signed by a key that is known here.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Validation;
use jsonwebtoken::errors::{Error, ErrorKind};
use serde::Deserialize;

use super::SecurityError;
use super::token_keys::{KeySource, Keys, TokenAlgorithm};
use super::verified::Verified;
use super::watched::Watched;
use crate::ServeError;

/// No honest token is longer, and each byte of one is decoded before it is believed.
const MAX_TOKEN: usize = 16 * 1024;
/// Subjects stand in logs.
const MAX_SUBJECT: usize = 256;

/// Which tokens are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// What they are signed by.
    pub algorithm: TokenAlgorithm,
    /// The keys.
    pub keys: KeySource,
    /// Who must have issued them, if that matters.
    pub issuer: Option<String>,
    /// For whom they must be, if that matters.
    pub audience: Option<String>,
    /// How far clocks may be apart.
    pub leeway: Duration,
}

/// Checks tokens.
pub(super) struct Tokens {
    algorithm: TokenAlgorithm,
    validation: Validation,
    keys: Watched<Keys>,
    verified: Verified<Keys>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    client_id: Option<String>,
    exp: Option<serde_json::Value>,
}

impl Tokens {
    /// What checks tokens by `settings`.
    pub(super) fn open(settings: &TokenSettings) -> Result<Self, SecurityError> {
        let algorithm = settings.algorithm;
        let keys = Keys::open(algorithm, &settings.keys)?;
        Ok(Tokens {
            algorithm,
            validation: validation(settings),
            keys,
            verified: Verified::default(),
        })
    }

    /// Whom `token` speaks for.
    pub(super) fn subject(&self, token: &str) -> Result<Arc<str>, ServeError> {
        self.check(token).map_err(ServeError::Unauthorized)
    }

    /// What is wrong with the file of keys now.
    pub(super) fn trouble(&self) -> Option<String> {
        self.keys.trouble()
    }

    fn check(&self, token: &str) -> Result<Arc<str>, String> {
        if token.len() > MAX_TOKEN {
            return Err(format!("the token is longer than {MAX_TOKEN} bytes"));
        }
        let keys = self.keys.get();
        if let Some(subject) = self.verified.subject(token, &keys) {
            return Ok(subject);
        }
        let claims = self.verify(token, &keys)?;
        let expires = claims.exp.as_ref().and_then(serde_json::Value::as_f64);
        let subject = claims.subject()?;
        if let Some(expires) = expires {
            let until = (expires as u64).saturating_add(self.validation.leeway);
            self.verified.remember(token, &keys, &subject, until);
        }
        Ok(subject)
    }

    fn verify(&self, token: &str, keys: &Keys) -> Result<Claims, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| self.header(&error))?;
        if header.alg != self.algorithm.known() {
            return Err(self.other_algorithm());
        }
        let key = keys.find(header.kid.as_deref())?;
        let data = jsonwebtoken::decode::<Claims>(token, key, &self.validation);
        data.map(|data| data.claims).map_err(|error| refusal(&error, &self.validation))
    }

    fn other_algorithm(&self) -> String {
        format!("the token is not signed by {}, which alone is taken", self.algorithm.name())
    }

    /// A header can be JSON and name an algorithm that nobody should know, such as `none`.
    fn header(&self, error: &Error) -> String {
        match error.kind() {
            ErrorKind::Json(json) if json.is_data() => self.other_algorithm(),
            _ => NO_TOKEN.to_owned(),
        }
    }
}

impl Claims {
    fn subject(self) -> Result<Arc<str>, String> {
        let subject = self.sub.or(self.client_id).filter(|subject| !subject.is_empty());
        match subject {
            None => Err("the token does not say whom it speaks for (sub)".to_owned()),
            Some(long) if long.len() > MAX_SUBJECT => {
                Err(format!("the subject of the token is longer than {MAX_SUBJECT} bytes"))
            }
            Some(subject) => Ok(subject.into()),
        }
    }
}

const NO_TOKEN: &str = "that is not a JSON Web Token";

fn validation(settings: &TokenSettings) -> Validation {
    let mut validation = Validation::new(settings.algorithm.known());
    let mut required = vec!["exp"];
    validation.leeway = settings.leeway.as_secs();
    validation.validate_nbf = true;
    if let Some(issuer) = &settings.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    // A token for somebody else is none of ours only where we know who we are.
    validation.validate_aud = settings.audience.is_some();
    if let Some(audience) = &settings.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// What the client is told. Nothing of the token is repeated.
fn refusal(error: &Error, validation: &Validation) -> String {
    match error.kind() {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => {
            "the signature of the token is wrong".to_owned()
        }
        ErrorKind::ExpiredSignature => "the token has expired".to_owned(),
        ErrorKind::ImmatureSignature => "the token is not valid yet".to_owned(),
        ErrorKind::InvalidIssuer => "the token is from another issuer (iss)".to_owned(),
        ErrorKind::InvalidAudience => "the token is for another audience (aud)".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            // Names of claims that are asked for, which are ours and not the token's.
            let names = validation.required_spec_claims.iter().map(String::as_str);
            let name = names.chain(["nbf"]).find(|name| name == claim).unwrap_or("claim");
            format!("the token lacks a valid '{name}'")
        }
        _ => NO_TOKEN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
    use serde_json::{Value, json};

    use super::super::testing::{SECRET, fixture, key_set, pem, rsa};
    use super::*;

    fn settings(algorithm: TokenAlgorithm, keys: KeySource) -> TokenSettings {
        TokenSettings {
            algorithm,
            keys,
            issuer: Some("https://issuer".to_owned()),
            audience: Some("modelopt".to_owned()),
            leeway: Duration::from_secs(5),
        }
    }

    fn tokens(algorithm: TokenAlgorithm, keys: KeySource) -> Result<Tokens, SecurityError> {
        Tokens::open(&settings(algorithm, keys))
    }

    fn from_text(algorithm: TokenAlgorithm, text: &[u8]) -> Result<Tokens, SecurityError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        tokens(algorithm, KeySource::File(file.path().to_owned()))
    }

    /// Good claims, with `changes` made to them.
    fn claims(changes: &Value) -> Value {
        let now = get_current_timestamp();
        let mut claims = json!({
            "sub": "alice", "iss": "https://issuer", "aud": ["other", "modelopt"],
            "exp": now + 60, "nbf": now - 60,
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    fn signed(algorithm: Algorithm, key: &EncodingKey, changes: &Value) -> String {
        encode(&Header::new(algorithm), &claims(changes), key).unwrap()
    }

    #[track_caller]
    fn refused(tokens: &Tokens, token: &str, told: &str) {
        let error = tokens.subject(token).unwrap_err();
        assert_eq!(error, ServeError::Unauthorized(told.to_owned()));
        assert!(token.len() < 8 || !error.to_string().contains(token));
    }

    #[test]
    fn each_wrong_token_is_refused_with_its_reason() {
        let tokens =
            tokens(TokenAlgorithm::Rs256, KeySource::File(fixture("rsa.pub.pem"))).unwrap();
        let now = get_current_timestamp();
        let key = rsa("rsa.pem");
        let of = |changes: Value| signed(Algorithm::RS256, &key, &changes);
        let good = of(json!({}));
        assert_eq!(&*tokens.subject(&good).unwrap(), "alice");

        let other = "the token is not signed by RS256, which alone is taken";
        let wrong = "the signature of the token is wrong";
        // {"alg":"none"} and {"alg":"NONE","typ":"JWT"}.
        let (_, rest) = good.split_once('.').unwrap();
        let (body, signature) = rest.split_once('.').unwrap();
        refused(&tokens, &format!("eyJhbGciOiJub25lIn0.{body}."), other);
        refused(&tokens, &format!("eyJhbGciOiJOT05FIiwidHlwIjoiSldUIn0.{body}.{signature}"), other);
        // The public key is public: whoever takes it as a secret can be told anything.
        let confused = EncodingKey::from_secret(&pem("rsa.pub.pem"));
        refused(&tokens, &signed(Algorithm::HS256, &confused, &json!({})), other);
        refused(&tokens, &signed(Algorithm::RS512, &key, &json!({})), other);
        refused(&tokens, &signed(Algorithm::RS256, &rsa("rsa_other.pem"), &json!({})), wrong);
        let (head, _) = good.rsplit_once('.').unwrap();
        refused(&tokens, &format!("{head}."), wrong);
        let (header, _) = good.split_once('.').unwrap();
        let forged = of(json!({ "sub": "root" }));
        let forged = forged.split('.').nth(1).unwrap();
        refused(&tokens, &format!("{header}.{forged}.{signature}"), wrong);

        refused(&tokens, &of(json!({ "exp": now - 10 })), "the token has expired");
        refused(&tokens, &of(json!({ "nbf": now + 60 })), "the token is not valid yet");
        refused(&tokens, &of(json!({ "exp": null })), "the token lacks a valid 'exp'");
        refused(&tokens, &of(json!({ "exp": "soon" })), "the token lacks a valid 'exp'");
        let issuer = "the token is from another issuer (iss)";
        refused(&tokens, &of(json!({ "iss": "https://evil" })), issuer);
        refused(&tokens, &of(json!({ "iss": null })), "the token lacks a valid 'iss'");
        let audience = "the token is for another audience (aud)";
        refused(&tokens, &of(json!({ "aud": "else" })), audience);
        refused(&tokens, &of(json!({ "aud": null })), "the token lacks a valid 'aud'");
        let nobody = "the token does not say whom it speaks for (sub)";
        refused(&tokens, &of(json!({ "sub": null })), nobody);
        refused(&tokens, &of(json!({ "sub": "" })), nobody);
        let long = "the subject of the token is longer than 256 bytes";
        refused(&tokens, &of(json!({ "sub": "a".repeat(257) })), long);
        for garbled in ["", ".", "..", "a.b.c", "....", "Bearer", &good[1..], "eyJ.eyJ.eyJ"] {
            refused(&tokens, garbled, NO_TOKEN);
        }
        refused(&tokens, &"a".repeat(MAX_TOKEN + 1), "the token is longer than 16384 bytes");
    }

    #[test]
    fn clocks_may_differ_by_the_leeway_and_a_client_id_is_a_subject() {
        let tokens = from_text(TokenAlgorithm::Hs256, format!("{SECRET}\n").as_bytes()).unwrap();
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let now = get_current_timestamp();
        let changes = json!({ "exp": now - 2, "nbf": now + 2, "sub": null, "client_id": "batch" });
        let token = signed(Algorithm::HS256, &key, &changes);
        assert_eq!(&*tokens.subject(&token).unwrap(), "batch");
    }

    #[test]
    fn without_an_issuer_and_an_audience_any_will_do() {
        let keys = KeySource::File(fixture("ec.pub.pem"));
        let strict = settings(TokenAlgorithm::Es256, keys);
        let open = TokenSettings { issuer: None, audience: None, ..strict.clone() };
        let key = EncodingKey::from_ec_pem(&pem("ec.pem")).unwrap();
        let token = signed(Algorithm::ES256, &key, &json!({ "iss": "who", "aud": "whoever" }));
        assert_eq!(&*Tokens::open(&open).unwrap().subject(&token).unwrap(), "alice");
        assert!(Tokens::open(&strict).unwrap().subject(&token).is_err());
    }

    #[test]
    fn a_key_is_looked_up_in_a_set_by_its_name() {
        let (rsa, other) = (rsa("rsa.pem"), rsa("rsa_other.pem"));
        let ec = EncodingKey::from_ec_pem(&pem("ec.pem")).unwrap();
        let mut keys = key_set(&[
            ("one", Algorithm::RS256, &rsa),
            ("two", Algorithm::RS256, &other),
            ("curve", Algorithm::ES256, &ec),
        ]);
        keys["keys"].as_array_mut().unwrap().push(json!({ "kty": "new", "kid": "unheard-of" }));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), keys.to_string()).unwrap();
        let tokens =
            tokens(TokenAlgorithm::Rs256, KeySource::JwkSet(file.path().to_owned())).unwrap();
        let named = |kid: Option<&str>, key: &EncodingKey| {
            let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::RS256) };
            encode(&header, &claims(&json!({})), key).unwrap()
        };
        assert!(tokens.subject(&named(Some("one"), &rsa)).is_ok());
        assert!(tokens.subject(&named(Some("two"), &other)).is_ok());
        refused(&tokens, &named(Some("two"), &rsa), "the signature of the token is wrong");
        let unknown = "the key that the token names (kid) is not known here";
        refused(&tokens, &named(Some("three"), &rsa), unknown);
        // A key for another algorithm is none for this one.
        refused(&tokens, &named(Some("curve"), &rsa), unknown);
        let none = "the token does not say which key it is signed by (kid)";
        refused(&tokens, &named(None, &rsa), none);
    }

    #[test]
    fn a_set_that_changes_is_read_again_and_a_broken_one_keeps_the_keys() {
        let (old, new) = (rsa("rsa.pem"), rsa("rsa_other.pem"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: String| std::fs::write(file.path(), text).unwrap();
        write(key_set(&[("old", Algorithm::RS256, &old)]).to_string());
        let keys = KeySource::JwkSet(file.path().to_owned());
        let tokens = tokens(TokenAlgorithm::Rs256, keys).unwrap();
        let tokens = Tokens { keys: tokens.keys.eager(), ..tokens };
        let by = |key| signed(Algorithm::RS256, key, &json!({}));
        assert!(tokens.subject(&by(&old)).is_ok());
        write("{\"keys\":".to_owned());
        assert!(tokens.subject(&by(&old)).is_ok());
        assert!(tokens.trouble().unwrap().contains("not a set of keys as JSON"));
        write(key_set(&[("rotated", Algorithm::RS256, &new)]).to_string());
        assert!(tokens.subject(&by(&new)).is_ok());
        assert!(tokens.subject(&by(&old)).is_err());
        assert_eq!(tokens.trouble(), None);
    }

    #[test]
    fn a_token_that_was_verified_still_expires() {
        let tokens =
            tokens(TokenAlgorithm::Rs256, KeySource::File(fixture("rsa.pub.pem"))).unwrap();
        // Within the leeway of five seconds, which ends while the test runs.
        let changes = json!({ "exp": get_current_timestamp() - 3 });
        let token = signed(Algorithm::RS256, &rsa("rsa.pem"), &changes);
        assert!(tokens.subject(&token).is_ok());
        assert!(tokens.subject(&token).is_ok());
        std::thread::sleep(Duration::from_millis(3_100));
        refused(&tokens, &token, "the token has expired");
    }
}
