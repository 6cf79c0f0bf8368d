//! A layer that lets only good tokens through.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::de::DeserializeOwned;
use tonic::{Status, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Client, Error, Reason, ValidateRequest, ValidatedToken, token::texts};

/// A tower layer that validates the bearer token of each request, hands [`Authorized`] on to the service in the
/// request's extensions, and answers everything else itself. `C` is what the claims are read into.
///
/// Over HTTP ([`Protect::http`]) it answers as RFC 6750, section 3, says:
///
/// | the request | answer |
/// |---|---|
/// | has no bearer token | 401 |
/// | has an `Authorization` that is malformed, or two | 400, `invalid_request` |
/// | has a token that is no good, or whose claims are no `C` | 401, `invalid_token` |
/// | has a token without a required scope | 403, `insufficient_scope` |
/// | cannot be judged now | 503, with `Retry-After` if the sidecar said when |
/// | is one that this program got wrong, or may not judge | 500 |
///
/// Over gRPC ([`Protect::grpc`]): `UNAUTHENTICATED`, for a scope `PERMISSION_DENIED`, `UNAVAILABLE`, `INTERNAL`.
///
/// The answer's extensions hold the [`Error`], for an outer layer that writes a log.
pub struct Protect<C> {
    rules: Arc<Rules>,
    claims: PhantomData<fn() -> C>,
}

#[derive(Clone)]
struct Rules {
    client: Client,
    audiences: Vec<String>,
    profiles: Vec<String>,
    scopes: Vec<String>,
    answers: Answers,
}

#[derive(Clone, Copy)]
enum Answers {
    Http,
    Grpc,
}

impl<C> Protect<C> {
    /// For HTTP: the token must be for one of the audiences.
    pub fn http<T: Into<String>>(client: Client, audiences: impl IntoIterator<Item = T>) -> Self {
        Self::new(client, texts(audiences), Answers::Http)
    }

    /// For gRPC: the token must be for one of the audiences.
    pub fn grpc<T: Into<String>>(client: Client, audiences: impl IntoIterator<Item = T>) -> Self {
        Self::new(client, texts(audiences), Answers::Grpc)
    }

    fn new(client: Client, audiences: Vec<String>, answers: Answers) -> Self {
        let rules = Rules {
            client,
            audiences,
            profiles: Vec::new(),
            scopes: Vec::new(),
            answers,
        };
        Self {
            rules: Arc::new(rules),
            claims: PhantomData,
        }
    }

    /// The kinds of token that are accepted, instead of "default".
    #[must_use]
    pub fn profiles<T: Into<String>>(mut self, profiles: impl IntoIterator<Item = T>) -> Self {
        Arc::make_mut(&mut self.rules).profiles = texts(profiles);
        self
    }

    /// All of these must be in the token.
    #[must_use]
    pub fn required_scopes<T: Into<String>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        Arc::make_mut(&mut self.rules).scopes = texts(scopes);
        self
    }
}

impl<C> Clone for Protect<C> {
    fn clone(&self) -> Self {
        Self {
            rules: self.rules.clone(),
            claims: PhantomData,
        }
    }
}

impl<C> fmt::Debug for Protect<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protect")
            .field("audiences", &self.rules.audiences)
            .field("profiles", &self.rules.profiles)
            .field("required_scopes", &self.rules.scopes)
            .finish_non_exhaustive()
    }
}

/// Who may use the service: in the extensions of each request that [`Protect`] lets through.
pub struct Authorized<C> {
    /// What the token says.
    pub token: Arc<ValidatedToken>,
    /// Its claims.
    pub claims: Arc<C>,
}

impl<C> Clone for Authorized<C> {
    fn clone(&self) -> Self {
        Self {
            token: self.token.clone(),
            claims: self.claims.clone(),
        }
    }
}

impl<C> fmt::Debug for Authorized<C> {
    /// Leaves out the claims.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorized")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// Takes it from where [`Protect`] put it; 500 on a route that is not protected.
#[cfg(feature = "axum")]
impl<C: Send + Sync + 'static, S: Sync> axum_core::extract::FromRequestParts<S> for Authorized<C> {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, StatusCode> {
        parts.extensions.get().cloned().ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl<S, C> Layer<S> for Protect<C> {
    type Service = ProtectService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        ProtectService {
            inner,
            protect: self.clone(),
        }
    }
}

/// A service behind [`Protect`].
#[derive(Debug)]
pub struct ProtectService<S, C> {
    inner: S,
    protect: Protect<C>,
}

impl<S: Clone, C> Clone for ProtectService<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            protect: self.protect.clone(),
        }
    }
}

impl<S: NamedService, C> NamedService for ProtectService<S, C> {
    const NAME: &'static str = S::NAME;
}

impl<S, C, B, A> Service<Request<B>> for ProtectService<S, C>
where
    S: Service<Request<B>, Response = Response<A>> + Clone + Send + 'static,
    S::Future: Send,
    C: DeserializeOwned + Send + Sync + 'static,
    B: Send + 'static,
    A: Default,
{
    type Response = Response<A>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<A>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone); // the one that said it was ready
        let rules = self.protect.rules.clone();
        Box::pin(async move {
            match rules.judge::<C>(request.headers()).await {
                Ok(authorized) => {
                    request.extensions_mut().insert(authorized);
                    inner.call(request).await
                }
                Err(turned_down) => Ok(rules.answer(turned_down)),
            }
        })
    }
}

enum TurnedDown {
    NoToken,
    Malformed,
    /// Longer than any token, or good with claims that the service cannot read: it was meant for another one.
    NoGood,
    By(Error),
}

impl Rules {
    async fn judge<C: DeserializeOwned>(&self, headers: &HeaderMap) -> Result<Authorized<C>, TurnedDown> {
        let request = ValidateRequest::new(bearer(headers)?, &self.audiences)
            .profiles(&self.profiles)
            .required_scopes(&self.scopes);
        let token = self.client.validate(request).await.map_err(TurnedDown::By)?;
        let claims = token.claims().map_err(|_| TurnedDown::NoGood)?;
        Ok(Authorized {
            token: Arc::new(token),
            claims: Arc::new(claims),
        })
    }

    fn answer<A: Default>(&self, turned_down: TurnedDown) -> Response<A> {
        let mut answer = match self.answers {
            Answers::Http => self.http(&turned_down),
            Answers::Grpc => grpc(&turned_down).into_http(),
        };
        if let TurnedDown::By(error) = turned_down {
            answer.extensions_mut().insert(error);
        }
        answer
    }

    fn http<A: Default>(&self, turned_down: &TurnedDown) -> Response<A> {
        let (status, challenge) = match turned_down {
            TurnedDown::NoToken => (StatusCode::UNAUTHORIZED, Some(String::new())),
            TurnedDown::Malformed => (StatusCode::BAD_REQUEST, Some(r#", error="invalid_request""#.to_owned())),
            TurnedDown::NoGood => (StatusCode::UNAUTHORIZED, Some(r#", error="invalid_token""#.to_owned())),
            TurnedDown::By(Error::Rejected { reason, .. }) if *reason == Reason::TokenScopeMissing => (
                StatusCode::FORBIDDEN,
                Some(format!(
                    r#", error="insufficient_scope", scope="{}""#,
                    self.scopes.join(" ")
                )),
            ),
            TurnedDown::By(Error::Rejected { reason, .. }) => (
                StatusCode::UNAUTHORIZED,
                Some(format!(
                    r#", error="invalid_token", error_description="{}""#,
                    reason.as_str_name()
                )),
            ),
            TurnedDown::By(Error::Unavailable { .. }) => (StatusCode::SERVICE_UNAVAILABLE, None),
            TurnedDown::By(_) => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        let mut answer = Response::new(A::default());
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        if let Some(parameters) = challenge {
            let challenge = HeaderValue::try_from(format!("{BEARER}{parameters}"));
            let bare = HeaderValue::from_static(BEARER);
            headers.insert(WWW_AUTHENTICATE, challenge.unwrap_or(bare)); // scopes that fit into no header
        }
        if let TurnedDown::By(Error::Unavailable {
            retry_after: Some(wait),
            ..
        }) = turned_down
        {
            headers.insert(
                RETRY_AFTER,
                wait.as_secs_f64()
                    .ceil()
                    .max(1.0)
                    .to_string()
                    .parse()
                    .unwrap_or(1.into()),
            );
        }
        answer
    }
}

/// In bytes, by the contract; a longer one would make the request to the sidecar invalid, as if it were our mistake.
const LONGEST_TOKEN: usize = 16 * 1024;

/// RFC 6750, section 3, wants at least one parameter.
const BEARER: &str = r#"Bearer realm="tokensidecar""#;

fn grpc(turned_down: &TurnedDown) -> Status {
    match turned_down {
        TurnedDown::NoToken => Status::unauthenticated("a bearer token is required"),
        TurnedDown::Malformed => Status::unauthenticated("the authorization is malformed"),
        TurnedDown::NoGood => Status::unauthenticated("the token is no good"),
        TurnedDown::By(Error::Rejected { reason, .. }) if *reason == Reason::TokenScopeMissing => {
            Status::permission_denied(reason.as_str_name())
        }
        TurnedDown::By(Error::Rejected { reason, .. }) => Status::unauthenticated(reason.as_str_name()),
        TurnedDown::By(Error::Unavailable { .. }) => Status::unavailable("the token cannot be judged now"),
        TurnedDown::By(_) => Status::internal("the token cannot be judged"),
    }
}

/// The token of RFC 6750, section 2.1; the other two ways, body and query, are not taken.
fn bearer(headers: &HeaderMap) -> Result<&str, TurnedDown> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(TurnedDown::NoToken)?;
    if values.next().is_some() {
        return Err(TurnedDown::Malformed);
    }
    let text = value.to_str().map_err(|_| TurnedDown::Malformed)?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TurnedDown::NoToken);
    }
    let token = token.trim_matches(' ');
    let b64token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.is_empty() || !token.bytes().all(b64token) {
        return Err(TurnedDown::Malformed);
    }
    if token.len() > LONGEST_TOKEN {
        return Err(TurnedDown::NoGood);
    }
    Ok(token)
}
