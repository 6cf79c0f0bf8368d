//! What is asked of a sidecar about tokens, and what it answers.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, call::or_fresh, v1};

/// 10,000 years: the longest `google.protobuf.Duration`.
const LONGEST: prost_types::Duration = prost_types::Duration {
    seconds: 315_576_000_000,
    nanos: 0,
};

/// Texts of a list, from whatever holds them.
pub(crate) fn texts<T: Into<String>>(list: impl IntoIterator<Item = T>) -> Vec<String> {
    list.into_iter().map(Into::into).collect()
}

/// A time that the contract always fills.
pub(crate) fn required(time: Option<prost_types::Timestamp>, name: &str) -> Result<SystemTime, Error> {
    optional(time)?.ok_or_else(|| Error::broken(&format!("the answer has no {name}")))
}

pub(crate) fn optional(time: Option<prost_types::Timestamp>) -> Result<Option<SystemTime>, Error> {
    let known = time.map(SystemTime::try_from).transpose();
    known.map_err(|_| Error::broken("the answer has a time that this machine cannot express"))
}

/// What a token shall say.
#[derive(Clone, PartialEq)]
#[must_use]
pub struct IssueRequest(v1::IssueRequest);

impl IssueRequest {
    /// A token of the profile "default" for a subject (`sub`), accepted by the audiences (`aud`).
    pub fn new<T: Into<String>>(subject: impl Into<String>, audiences: impl IntoIterator<Item = T>) -> Self {
        Self(v1::IssueRequest {
            subject: subject.into(),
            audiences: texts(audiences),
            ..v1::IssueRequest::default()
        })
    }

    /// The kind of token.
    pub fn profile(mut self, profile: impl Into<String>) -> Self {
        self.0.profile = profile.into();
        self
    }

    /// The lifetime, where it shall not be the profile's. Above the profile's maximum the request is refused.
    pub fn ttl(mut self, lifetime: Duration) -> Self {
        // What the contract cannot express is refused like what it can: as too long.
        self.0.ttl = Some(lifetime.try_into().unwrap_or(LONGEST));
        self
    }

    /// `client_id`, where it shall not be the caller's name as the sidecar sees it.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.0.client_id = client_id.into();
        self
    }

    /// `scope`, one word each.
    pub fn scopes<T: Into<String>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.0.scopes = texts(scopes);
        self
    }

    /// Further claims: what `serde_json` writes as an object. Integers are exact; a float that is not finite becomes
    /// `null`. A `serde_json::value::RawValue` is carried over byte for byte.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for what has no JSON form.
    pub fn claims<T: Serialize + ?Sized>(mut self, claims: &T) -> Result<Self, Error> {
        let text = serde_json::to_string(claims).map_err(|error| Error::refused("claims_json", error.to_string()))?;
        self.0.claims_source = Some(v1::issue_request::ClaimsSource::ClaimsJson(text));
        Ok(self)
    }

    /// Also makes a refresh token that carries this grant.
    pub fn with_refresh_token(mut self) -> Self {
        self.0.with_refresh_token = true;
        self
    }

    pub(crate) fn message(self) -> v1::IssueRequest {
        self.0
    }
}

impl fmt::Debug for IssueRequest {
    /// Leaves out the subject and the claims.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssueRequest")
            .field("profile", &self.0.profile)
            .field("audiences", &self.0.audiences)
            .finish_non_exhaustive()
    }
}

/// A token, and what was granted.
#[derive(Clone)]
#[non_exhaustive]
pub struct IssuedToken {
    /// The encrypted JWT. Whoever has it may use it.
    pub token: String,
    /// `jti`.
    pub token_id: String,
    /// `kid` of the outermost layer.
    pub key_id: String,
    /// `iat`.
    pub issue_time: SystemTime,
    /// `exp`.
    pub expire_time: SystemTime,
    /// As granted.
    pub audiences: Vec<String>,
    /// As granted.
    pub scopes: Vec<String>,
    /// Only where it was asked for.
    pub refresh_token: Option<String>,
    /// `exp` of the refresh token.
    pub refresh_expire_time: Option<SystemTime>,
}

impl IssuedToken {
    pub(crate) fn of(answer: v1::IssueResponse) -> Result<Self, Error> {
        Ok(Self {
            token: answer.token,
            token_id: answer.token_id,
            key_id: answer.key_id,
            issue_time: required(answer.issue_time, "issue_time")?,
            expire_time: required(answer.expire_time, "expire_time")?,
            audiences: answer.audiences,
            scopes: answer.scopes,
            refresh_token: Some(answer.refresh_token).filter(|token| !token.is_empty()),
            refresh_expire_time: optional(answer.refresh_expire_time)?,
        })
    }
}

impl fmt::Debug for IssuedToken {
    /// Leaves out the tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken")
            .field("token_id", &self.token_id)
            .field("key_id", &self.key_id)
            .field("expire_time", &self.expire_time)
            .finish_non_exhaustive()
    }
}

/// A token, and what is demanded of it.
#[derive(Clone, PartialEq)]
#[must_use]
pub struct ValidateRequest(v1::ValidateRequest);

impl ValidateRequest {
    /// A token of the profile "default" that must be for one of the audiences: the names of the service that asks.
    pub fn new<T: Into<String>>(token: impl Into<String>, audiences: impl IntoIterator<Item = T>) -> Self {
        Self(v1::ValidateRequest {
            token: token.into(),
            audiences: texts(audiences),
            ..v1::ValidateRequest::default()
        })
    }

    /// The kinds of token that are accepted.
    pub fn profiles<T: Into<String>>(mut self, profiles: impl IntoIterator<Item = T>) -> Self {
        self.0.profiles = texts(profiles);
        self
    }

    /// All of these must be in the token.
    pub fn required_scopes<T: Into<String>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.0.required_scopes = texts(scopes);
        self
    }

    /// Makes repeats of this call the same call, for one-time tokens. Without it each call has a fresh one, kept over
    /// the client's own repeats.
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.0.request_id = request_id.into();
        self
    }

    /// Demands that the sidecar knows of revocations up to this revision.
    pub fn min_revocation_revision(mut self, revision: u64) -> Self {
        self.0.min_revocation_revision = revision;
        self
    }

    pub(crate) fn message(self) -> Result<v1::ValidateRequest, Error> {
        let mut message = self.0;
        message.request_id = or_fresh(message.request_id)?;
        Ok(message)
    }
}

impl fmt::Debug for ValidateRequest {
    /// Leaves out the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateRequest")
            .field("profiles", &self.0.profiles)
            .field("audiences", &self.0.audiences)
            .field("request_id", &self.0.request_id)
            .finish_non_exhaustive()
    }
}

/// What a good token says.
#[derive(Clone)]
#[non_exhaustive]
pub struct ValidatedToken {
    /// The kind of token that it is.
    pub profile: String,
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `client_id`.
    pub client_id: String,
    /// `scope`.
    pub scopes: Vec<String>,
    /// `jti`.
    pub token_id: String,
    /// `iat`.
    pub issue_time: SystemTime,
    /// `exp`.
    pub expire_time: SystemTime,
    /// `kid` of the outermost layer.
    pub key_id: String,
    /// Every claim: the very bytes that were signed or sealed.
    pub claims_json: String,
    /// That of the keys that the answer rests on.
    pub ring_revision: u64,
    /// That of the revocations that the answer rests on; 0 while the sidecar holds none.
    pub revocation_revision: u64,
}

impl ValidatedToken {
    /// Reads all claims into a type of the caller's, from the signed bytes: integers are exact in an `i64`, a `u64` and
    /// a `serde_json::Value`; a `Box<serde_json::value::RawValue>` keeps a number as it was written.
    ///
    /// # Errors
    /// What `serde_json` says where the claims are not of that form. It may quote a claim.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.claims_json)
    }

    pub(crate) fn of(answer: v1::ValidateResponse) -> Result<Self, Error> {
        Ok(Self {
            profile: answer.profile,
            issuer: answer.issuer,
            subject: answer.subject,
            audiences: answer.audiences,
            client_id: answer.client_id,
            scopes: answer.scopes,
            token_id: answer.token_id,
            issue_time: required(answer.issue_time, "issue_time")?,
            expire_time: required(answer.expire_time, "expire_time")?,
            key_id: answer.key_id,
            claims_json: answer.claims_json,
            ring_revision: answer.ring_revision,
            revocation_revision: answer.revocation_revision,
        })
    }
}

impl fmt::Debug for ValidatedToken {
    /// Leaves out the subject and the claims.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidatedToken")
            .field("profile", &self.profile)
            .field("token_id", &self.token_id)
            .field("key_id", &self.key_id)
            .field("expire_time", &self.expire_time)
            .finish_non_exhaustive()
    }
}

/// A refresh token, and how to narrow what it grants.
#[derive(Clone, PartialEq)]
#[must_use]
pub struct RefreshRequest(v1::RefreshRequest);

impl RefreshRequest {
    /// All that was granted.
    pub fn new(refresh_token: impl Into<String>) -> Self {
        Self(v1::RefreshRequest {
            refresh_token: refresh_token.into(),
            ..v1::RefreshRequest::default()
        })
    }

    /// Only these of the audiences.
    pub fn audiences<T: Into<String>>(mut self, audiences: impl IntoIterator<Item = T>) -> Self {
        self.0.audiences = texts(audiences);
        self
    }

    /// Only these of the scopes.
    pub fn scopes<T: Into<String>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.0.scopes = texts(scopes);
        self
    }

    pub(crate) fn message(self) -> v1::RefreshRequest {
        self.0
    }
}

impl fmt::Debug for RefreshRequest {
    /// Leaves out the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshRequest")
            .field("audiences", &self.0.audiences)
            .field("scopes", &self.0.scopes)
            .finish_non_exhaustive()
    }
}

/// The token to end.
#[derive(Clone, PartialEq)]
#[must_use]
pub struct RevokeRequest(v1::RevokeRequest);

impl RevokeRequest {
    /// An access token, or a refresh token with its family.
    pub fn new(token: impl Into<String>) -> Self {
        Self(v1::RevokeRequest {
            token: token.into(),
            ..v1::RevokeRequest::default()
        })
    }

    /// For the audit log.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.0.reason = reason.into();
        self
    }

    pub(crate) fn message(self) -> v1::RevokeRequest {
        self.0
    }
}

impl fmt::Debug for RevokeRequest {
    /// Leaves out the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevokeRequest")
            .field("reason", &self.0.reason)
            .finish_non_exhaustive()
    }
}

/// When a revocation holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Revocation {
    /// For [`ValidateRequest::min_revocation_revision`].
    pub revocation_revision: u64,
    /// By then every sidecar obeys or answers `STATE_STALE`.
    pub effective_time: SystemTime,
}

impl Revocation {
    pub(crate) fn of(answer: v1::RevokeResponse) -> Result<Self, Error> {
        Ok(Self {
            revocation_revision: answer.revocation_revision,
            effective_time: required(answer.effective_time, "effective_time")?,
        })
    }
}
