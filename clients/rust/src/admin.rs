//! The admin plane: keys.

use std::time::SystemTime;

use tonic::transport::Channel;

use crate::{
    Error, KeyState, KeyUse, Options, address,
    call::{Repeat, call, or_fresh},
    connect::connect,
    token::{optional, required, texts},
    v1::{self, admin_service_client::AdminServiceClient, token_service_client::TokenServiceClient},
};

const PAGE: i32 = 1000;

/// Looks after keys. A clone is the same client.
#[derive(Clone, Debug)]
pub struct Admin {
    tokens: TokenServiceClient<Channel>,
    keys: AdminServiceClient<Channel>,
    options: Options,
}

/// What is public about a key.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Key {
    /// `kid`.
    pub key_id: String,
    /// The one whose ring holds the key.
    pub profile: String,
    /// What the key is for.
    pub key_use: KeyUse,
    /// The key's one algorithm by its JWA name, such as `A256KW`.
    pub algorithm: String,
    /// The JWA name of the content encryption; empty for signature keys.
    pub content_encryption: String,
    /// That at the time of the answer.
    pub state: KeyState,
    /// When the key was made.
    pub create_time: SystemTime,
    /// When it starts to issue.
    pub activate_time: SystemTime,
    /// When it stops issuing; none while it has no successor.
    pub retire_time: Option<SystemTime>,
    /// When it is destroyed; none while it has no successor.
    pub destroy_time: Option<SystemTime>,
    /// When it was declared compromised.
    pub compromise_time: Option<SystemTime>,
    /// What [`RotateRequest::expected_ring_revision`] takes.
    pub ring_revision: u64,
}

impl Key {
    fn of(key: v1::Key) -> Result<Self, Error> {
        Ok(Self {
            key_use: key.key_use(),
            state: key.state(),
            key_id: key.key_id,
            profile: key.profile,
            algorithm: key.algorithm,
            content_encryption: key.content_encryption,
            create_time: required(key.create_time, "create_time")?,
            activate_time: required(key.activate_time, "activate_time")?,
            retire_time: optional(key.retire_time)?,
            destroy_time: optional(key.destroy_time)?,
            compromise_time: optional(key.compromise_time)?,
            ring_revision: key.ring_revision,
        })
    }

    fn all(keys: Vec<v1::Key>) -> Result<Vec<Self>, Error> {
        keys.into_iter().map(Self::of).collect()
    }
}

/// Which keys get a successor.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct RotateRequest(v1::RotateRequest);

impl RotateRequest {
    /// Encryption and signature of a profile.
    pub fn new(profile: impl Into<String>) -> Self {
        Self(v1::RotateRequest {
            profile: profile.into(),
            ..v1::RotateRequest::default()
        })
    }

    /// This use alone.
    pub fn key_use(mut self, key_use: KeyUse) -> Self {
        self.0.key_use = key_use.into();
        self
    }

    /// Demands that the ring is at this revision, else [`Error::RingChanged`].
    pub fn expected_ring_revision(mut self, revision: u64) -> Self {
        self.0.expected_ring_revision = revision;
        self
    }

    /// Makes repeats of this call the same call. Without it each call has a fresh one, kept over the client's own
    /// repeats.
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.0.request_id = request_id.into();
        self
    }

    /// For the audit log.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.0.reason = reason.into();
        self
    }
}

/// The ring after a rotation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rotation {
    /// All keys of the profile.
    pub keys: Vec<Key>,
    /// When the successors start to issue.
    pub activate_time: SystemTime,
    /// That after the change.
    pub ring_revision: u64,
}

/// Which keys are compromised.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct RevokeKeysRequest(v1::RevokeKeysRequest);

impl RevokeKeysRequest {
    /// Keys of a profile, both named: there is no default.
    pub fn new<T: Into<String>>(profile: impl Into<String>, key_ids: impl IntoIterator<Item = T>) -> Self {
        Self(v1::RevokeKeysRequest {
            profile: profile.into(),
            key_ids: texts(key_ids),
            ..v1::RevokeKeysRequest::default()
        })
    }

    /// For the audit log.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.0.reason = reason.into();
        self
    }
}

/// The ring after a compromise.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyRevocation {
    /// All keys of the profile.
    pub keys: Vec<Key>,
    /// That after the change.
    pub ring_revision: u64,
    /// When every sidecar obeys or answers `STATE_STALE`; this one does already.
    pub effective_time: SystemTime,
}

impl Admin {
    /// [`Client::connect`](crate::Client::connect) for the admin plane: `TOKENSIDECAR_ADMIN_ADDRESS`,
    /// `admin/admin.sock` in the same directories, `127.0.0.1:8791`.
    ///
    /// # Errors
    /// As for [`Client::connect`](crate::Client::connect).
    pub async fn connect() -> Result<Self, Error> {
        Self::connect_with(Options::new()).await
    }

    /// [`Admin::connect`] with other options.
    ///
    /// # Errors
    /// As for [`Client::connect`](crate::Client::connect).
    pub async fn connect_with(options: Options) -> Result<Self, Error> {
        let channel = connect(&address::ADMIN, &options).await?;
        Ok(Self {
            tokens: TokenServiceClient::new(channel.clone()),
            keys: AdminServiceClient::new(channel),
            options,
        })
    }

    /// Prepares successors. No token becomes invalid by it.
    ///
    /// # Errors
    /// [`Error::RingChanged`] where another rotation won or is pending; any other but [`Error::Rejected`].
    pub async fn rotate(&self, request: RotateRequest) -> Result<Rotation, Error> {
        let mut message = request.0;
        message.request_id = or_fresh(message.request_id)?;
        let answer = call(self.options.timeout, Repeat::Yes, message, |message| {
            let mut tokens = self.tokens.clone();
            async move { tokens.rotate(message).await }
        });
        let answer = answer.await?;
        Ok(Rotation {
            keys: Key::all(answer.keys)?,
            activate_time: required(answer.activate_time, "activate_time")?,
            ring_revision: answer.ring_revision,
        })
    }

    /// The keys of a profile; of all profiles, if it is empty. The deadline holds for each page of 1,000.
    ///
    /// # Errors
    /// Any variant but [`Error::Rejected`] and [`Error::RingChanged`].
    pub async fn list_keys(&self, profile: &str) -> Result<Vec<Key>, Error> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let message = v1::ListKeysRequest {
                profile: profile.to_owned(),
                page_size: PAGE,
                page_token: page_token.clone(),
            };
            let answer = call(self.options.timeout, Repeat::Yes, message, |message| {
                let mut keys = self.keys.clone();
                async move { keys.list_keys(message).await }
            });
            let answer = answer.await?;
            all.extend(Key::all(answer.keys)?);
            if answer.next_page_token.is_empty() {
                return Ok(all);
            }
            if answer.next_page_token == page_token {
                return Err(Error::broken("the next page of keys is the same one"));
            }
            page_token = answer.next_page_token;
        }
    }

    /// Declares keys compromised: their tokens are rejected from now on, and their successors issue at once. It is
    /// never repeated by itself; to repeat it does no harm.
    ///
    /// # Errors
    /// Any variant but [`Error::Rejected`].
    pub async fn revoke_keys(&self, request: RevokeKeysRequest) -> Result<KeyRevocation, Error> {
        let answer = call(self.options.timeout, Repeat::No, request.0, |message| {
            let mut keys = self.keys.clone();
            async move { keys.revoke_keys(message).await }
        });
        let answer = answer.await?;
        Ok(KeyRevocation {
            keys: Key::all(answer.keys)?,
            ring_revision: answer.ring_revision,
            effective_time: required(answer.effective_time, "effective_time")?,
        })
    }
}
