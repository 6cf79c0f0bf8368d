//! The stubs of the contract (`proto/tokensidecar/v1`), for what [`Client`](crate::Client) and
//! [`Admin`](crate::Admin) do not cover. Messages that hold tokens or claims leave them out of `Debug`.

// Prose of the contract, in the style of its generator.
#![allow(
    clippy::doc_markdown,
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    clippy::default_trait_access,
    clippy::large_enum_variant,
    clippy::struct_field_names,
    missing_docs
)]

include!("tokensidecar.v1.rs");

/// Shows the name alone. `generate/src/main.rs` keeps the list of those that need it.
macro_rules! show_no_more_than_the_name {
    ($($kind:ty),*) => {$(
        impl std::fmt::Debug for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($kind)).finish_non_exhaustive()
            }
        }
    )*};
}

show_no_more_than_the_name!(
    IssueRequest,
    issue_request::ClaimsSource,
    IssueResponse,
    ValidateRequest,
    ValidateResponse,
    DpopProof,
    RefreshRequest,
    RevokeRequest
);
