//! A layer that adds a token to outgoing calls.

use std::{
    error,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, header::AUTHORIZATION};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Error, Grant, TokenSource};

type BoxError = Box<dyn error::Error + Send + Sync>;

/// A tower layer for HTTP clients and tonic channels: each request carries a bearer token of one grant. Without a token
/// nothing is sent, and the error is the [`Error`].
#[derive(Clone, Debug)]
pub struct Authorize {
    source: TokenSource,
    grant: Grant,
}

impl Authorize {
    /// Tokens of a grant, from a source.
    #[must_use]
    pub fn new(source: TokenSource, grant: Grant) -> Self {
        Self { source, grant }
    }
}

impl<S> Layer<S> for Authorize {
    type Service = AuthorizeService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthorizeService {
            inner,
            authorize: self.clone(),
        }
    }
}

/// A service behind [`Authorize`].
#[derive(Clone, Debug)]
pub struct AuthorizeService<S> {
    inner: S,
    authorize: Authorize,
}

impl<S, B> Service<Request<B>> for AuthorizeService<S>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone); // the one that said it was ready
        let Authorize { source, grant } = self.authorize.clone();
        Box::pin(async move {
            let token = source.token(&grant).await?;
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.token))
                .map_err(|_| Error::broken("the token fits into no header"))?;
            value.set_sensitive(true); // no log, no HPACK index
            request.headers_mut().insert(AUTHORIZATION, value);
            inner.call(request).await.map_err(Into::into)
        })
    }
}
