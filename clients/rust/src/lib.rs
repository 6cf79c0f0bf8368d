//! Issues and validates encrypted JWTs through a Token Sidecar on the same machine.
//!
//! ```no_run
//! # async fn check(text: &str) -> Result<(), tokensidecar::Error> {
//! use tokensidecar::{Client, ValidateRequest};
//!
//! let client = Client::connect().await?;
//! let token = client.validate(ValidateRequest::new(text, ["orders"])).await?;
//! # Ok(()) }
//! ```
//!
//! [`Client::connect`] finds the sidecar by itself. A token that is no good is [`Error::Rejected`] with the
//! [`Reason`]; whatever else goes wrong is another variant of [`Error`], and says nothing about the token: a token is
//! good only where the result is `Ok`.
//!
//! To give a call up, drop its future. Calls run on tokio, and a client belongs to the runtime that it was made in.
//!
//! What holds a token or claims leaves them out of its `Debug`.
//!
//! # Features
//!
//! None by default. `tower`: [`Protect`], which lets only good tokens through to a service (HTTP or gRPC), and
//! [`Authorize`], which adds one to outgoing calls. `axum`: an extractor for what [`Protect`] found out.

#[cfg(not(unix))]
compile_error!("tokensidecar looks for Unix sockets and their owners: it is for Unix alone");

mod address;
mod admin;
#[cfg(feature = "tower")]
mod authorize;
mod call;
mod client;
mod connect;
mod error;
#[cfg(feature = "tower")]
mod protect;
mod source;
mod token;
pub mod v1;

pub use admin::{Admin, Key, KeyRevocation, RevokeKeysRequest, RotateRequest, Rotation};
#[cfg(feature = "tower")]
pub use authorize::{Authorize, AuthorizeService};
pub use client::Client;
pub use connect::Options;
pub use error::{Answer, Error, Field};
#[cfg(feature = "tower")]
pub use protect::{Authorized, Protect, ProtectService};
pub use source::{Grant, TokenSource};
pub use token::{
    IssueRequest, IssuedToken, RefreshRequest, Revocation, RevokeRequest, ValidateRequest, ValidatedToken,
};
pub use v1::{ErrorReason as Reason, KeyState, KeyUse};

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
