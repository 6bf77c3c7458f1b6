//! Who is let in.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use super::SecurityError;
use super::api_keys::ApiKeys;
use super::rate::{Rate, RateSettings};
use super::tokens::{TokenSettings, Tokens};
use crate::ServeError;

/// Who may ask, and how often. Whoever sets nothing lets everybody in.
#[derive(Clone, Debug, Default)]
pub struct GuardSettings {
    /// Which tokens are believed.
    pub tokens: Option<TokenSettings>,
    /// A file of keys that clients send as they are.
    pub api_keys: Option<PathBuf>,
    /// How often each client may ask.
    pub rate: Option<RateSettings>,
}

/// What a request says about who sends it.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The header or metadata `authorization`.
    pub authorization: Option<&'a str>,
    /// The header or metadata `x-api-key`.
    pub api_key: Option<&'a str>,
    /// Where it comes from.
    pub address: Option<IpAddr>,
}

/// Who sends a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
#[non_exhaustive]
pub enum Client {
    /// Whom a token speaks for.
    Subject(Arc<str>),
    /// The name of a key.
    Key(Arc<str>),
    /// Somebody at that address: of IPv6 the first 64 bits, which one host can have all to itself.
    Address(IpAddr),
    /// Somebody.
    Unknown,
}

impl Client {
    /// The name by which it has proven itself.
    pub fn name(&self) -> Option<&str> {
        match self {
            Client::Subject(name) | Client::Key(name) => Some(name),
            Client::Address(_) | Client::Unknown => None,
        }
    }

    fn at(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            None => Client::Unknown,
            Some(IpAddr::V6(address)) => {
                let network = Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
                Client::Address(IpAddr::V6(network))
            }
            Some(address) => Client::Address(address),
        }
    }
}

/// Lets requests in or refuses them.
#[derive(Default)]
pub struct Guard {
    tokens: Option<Tokens>,
    api_keys: Option<ApiKeys>,
    rate: Option<Rate>,
}

impl Guard {
    /// A guard by `settings`, whose files are read now and again when they change.
    pub fn new(settings: &GuardSettings) -> Result<Self, SecurityError> {
        Ok(Guard {
            tokens: settings.tokens.as_ref().map(Tokens::open).transpose()?,
            api_keys: settings.api_keys.as_deref().map(ApiKeys::open).transpose()?,
            rate: settings.rate.as_ref().map(Rate::new).transpose()?,
        })
    }

    /// Who asks, if they may.
    ///
    /// A refusal is charged to the address, so that guessing is as slow as asking.
    pub fn admit(&self, credentials: &Credentials<'_>) -> Result<Client, ServeError> {
        let client = match self.client(credentials) {
            Ok(client) => client,
            Err(refusal) => {
                self.charge(&Client::at(credentials.address))?;
                return Err(refusal);
            }
        };
        self.charge(&client)?;
        Ok(client)
    }

    /// Files that changed into something that cannot be used, for who looks after the server.
    pub fn troubles(&self) -> Vec<String> {
        let tokens = self.tokens.as_ref().and_then(Tokens::trouble);
        let api_keys = self.api_keys.as_ref().and_then(ApiKeys::trouble);
        tokens.into_iter().chain(api_keys).collect()
    }

    fn charge(&self, client: &Client) -> Result<(), ServeError> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.take(client))
    }

    fn client(&self, credentials: &Credentials<'_>) -> Result<Client, ServeError> {
        if self.tokens.is_none() && self.api_keys.is_none() {
            return Ok(Client::at(credentials.address));
        }
        let bearer = credentials.authorization.map(bearer).transpose()?;
        // Keys come as bearer tokens too: most clients know no other header.
        let mut sent = [credentials.api_key, bearer].into_iter().flatten();
        if let Some(api_keys) = &self.api_keys
            && let Some(name) = sent.find_map(|key| api_keys.name(key))
        {
            return Ok(Client::Key(name));
        }
        match (&self.tokens, bearer) {
            (Some(tokens), Some(token)) => tokens.subject(token).map(Client::Subject),
            _ => Err(self.unproven(credentials)),
        }
    }

    fn unproven(&self, credentials: &Credentials<'_>) -> ServeError {
        let sent = credentials.authorization.or(credentials.api_key).is_some();
        let told = match (&self.tokens, &self.api_keys) {
            (_, Some(_)) if sent => "the API key is not known here",
            (Some(_), Some(_)) => "a bearer token or an API key is needed",
            (_, Some(_)) => "an API key is needed, as a bearer token or in x-api-key",
            _ => "a bearer token is needed",
        };
        ServeError::Unauthorized(told.to_owned())
    }
}

/// The credentials of the scheme `Bearer` (RFC 6750), whose name has no case.
fn bearer(authorization: &str) -> Result<&str, ServeError> {
    let (scheme, token) = authorization.trim().split_once(' ').unwrap_or((authorization, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        let told = "the authorization is of another scheme than Bearer".to_owned();
        return Err(ServeError::Unauthorized(told));
    }
    Ok(token.trim_start())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
    use serde_json::json;
    use tempfile::TempDir;

    use super::super::testing::SECRET;
    use super::super::token_keys::{KeySource, TokenAlgorithm};
    use super::*;

    const KEY: &str = "correct-horse-battery";

    fn settings(folder: &TempDir) -> GuardSettings {
        let (secret, keys) = (folder.path().join("secret"), folder.path().join("keys"));
        std::fs::write(&secret, SECRET).unwrap();
        std::fs::write(&keys, format!("batch:{KEY}")).unwrap();
        let tokens = TokenSettings {
            algorithm: TokenAlgorithm::Hs256,
            keys: KeySource::File(secret),
            issuer: None,
            audience: None,
            leeway: Duration::ZERO,
        };
        GuardSettings { tokens: Some(tokens), api_keys: Some(keys), rate: None }
    }

    fn token() -> String {
        let claims = json!({ "sub": "alice", "exp": get_current_timestamp() + 60 });
        encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    }

    fn bearing(authorization: &str) -> Credentials<'_> {
        Credentials { authorization: Some(authorization), ..Credentials::default() }
    }

    #[track_caller]
    fn refused(guard: &Guard, credentials: &Credentials<'_>, told: &str) {
        let error = guard.admit(credentials).unwrap_err();
        assert_eq!(error, ServeError::Unauthorized(told.to_owned()));
    }

    #[test]
    fn where_nothing_is_set_everybody_comes_in() {
        let guard = Guard::default();
        assert_eq!(guard.admit(&Credentials::default()), Ok(Client::Unknown));
        assert_eq!(guard.admit(&bearing("Basic nonsense")), Ok(Client::Unknown));
        let at = |address: &str| {
            let address = Some(address.parse().unwrap());
            guard.admit(&Credentials { address, ..Credentials::default() }).unwrap()
        };
        assert_eq!(at("2001:db8:1:2:3::4"), at("2001:db8:1:2:ffff::1"));
        assert_ne!(at("2001:db8:1:2::4"), at("2001:db8:1:3::4"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_eq!(at("10.0.0.1").name(), None);
    }

    #[test]
    fn tokens_and_keys_are_taken_from_either_header() {
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard::new(&settings(&folder)).unwrap();
        let subject = Client::Subject("alice".into());
        assert_eq!(guard.admit(&bearing(&format!("Bearer {}", token()))), Ok(subject.clone()));
        assert_eq!(guard.admit(&bearing(&format!("bearer  {}", token()))), Ok(subject));
        let key = guard.admit(&bearing(&format!("Bearer {KEY}"))).unwrap();
        assert_eq!((key.name(), &key), (Some("batch"), &Client::Key("batch".into())));
        let own = Credentials { api_key: Some(KEY), ..Credentials::default() };
        assert_eq!(guard.admit(&own), Ok(key));
        // A wrong key beside a good token does no harm.
        let token = format!("Bearer {}", token());
        assert!(guard.admit(&Credentials { api_key: Some("wrong"), ..bearing(&token) }).is_ok());
    }

    #[test]
    fn whoever_proves_nothing_is_told_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let both = settings(&folder);
        let guard = |settings| Guard::new(&settings).unwrap();
        let nothing = Credentials::default();
        let wrong = Credentials { api_key: Some("wrong"), ..nothing };
        refused(&guard(both.clone()), &nothing, "a bearer token or an API key is needed");
        refused(&guard(both.clone()), &wrong, "the API key is not known here");
        refused(&guard(both.clone()), &bearing("Bearer x"), "that is not a JSON Web Token");
        refused(&guard(both.clone()), &bearing("Bearer"), "that is not a JSON Web Token");
        let scheme = "the authorization is of another scheme than Bearer";
        refused(&guard(both.clone()), &bearing("Basic YTpi"), scheme);
        let tokens = guard(GuardSettings { api_keys: None, ..both.clone() });
        refused(&tokens, &nothing, "a bearer token is needed");
        refused(&tokens, &wrong, "a bearer token is needed");
        let keys = guard(GuardSettings { tokens: None, ..both });
        refused(&keys, &nothing, "an API key is needed, as a bearer token or in x-api-key");
        refused(&keys, &bearing(&format!("Bearer {}", token())), "the API key is not known here");
    }

    #[test]
    fn clients_are_limited_by_name_and_guesses_by_address() {
        let folder = tempfile::tempdir().unwrap();
        let burst = NonZeroU32::new(2).unwrap();
        let rate = Some(RateSettings { per_second: 0.01, burst, clients: 100 });
        let guard = Guard::new(&GuardSettings { rate, ..settings(&folder) }).unwrap();
        let address = Some("10.0.0.1".parse().unwrap());
        let guess = Credentials { api_key: Some("guess"), address, ..Credentials::default() };
        let limited = |result| matches!(result, Err(ServeError::RateLimited { .. }));
        for _ in 0..2 {
            assert!(matches!(guard.admit(&guess), Err(ServeError::Unauthorized(_))));
        }
        assert!(limited(guard.admit(&guess)));
        // Behind the same address, those who are known go on, each with their own rate.
        let good = Credentials { api_key: Some(KEY), ..guess };
        assert!(guard.admit(&good).is_ok());
        assert!(guard.admit(&good).is_ok());
        assert!(limited(guard.admit(&good)));
        let alice = format!("Bearer {}", token());
        assert!(guard.admit(&Credentials { address, ..bearing(&alice) }).is_ok());
    }
}
