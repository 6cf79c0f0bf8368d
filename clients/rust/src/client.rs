//! The app plane: issue, validate, refresh, revoke.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tonic::transport::Channel;

use crate::{
    Error, IssueRequest, IssuedToken, Options, RefreshRequest, Revocation, RevokeRequest, ValidateRequest,
    ValidatedToken, address,
    call::{Repeat, call},
    connect::connect,
    v1::{self, issue_result, token_service_client::TokenServiceClient, validate_result},
};

// The first one waits for what comes later for nothing: lazy imports, cold caches.
const FIRST_VALIDATE: Duration = Duration::from_secs(2);

/// Issues and validates tokens. It reconnects by itself: make one and keep it. A clone is the same client.
#[derive(Clone, Debug)]
pub struct Client {
    tokens: TokenServiceClient<Channel>,
    options: Options,
    /// A first Validate was answered.
    validated: Arc<AtomicBool>,
}

impl Client {
    /// Finds the sidecar, waits until it accepts calls and connects.
    ///
    /// It goes to `TOKENSIDECAR_ADDRESS` if that is set; else to the first that answers of `app/app.sock` in
    /// `/run/tokensidecar`, `$XDG_RUNTIME_DIR/tokensidecar` and `/tmp/tokensidecar-$UID` (in `TOKENSIDECAR_RUNTIME_DIR`
    /// alone, if that is set; only where socket and directories belong to root or this user), and `127.0.0.1:8790`.
    ///
    /// # Errors
    /// After 10 s without a sidecar [`Error::Unavailable`], which lists every address it tried.
    /// [`Error::InvalidRequest`] where the variable holds no address.
    pub async fn connect() -> Result<Self, Error> {
        Self::connect_with(Options::new()).await
    }

    /// [`Client::connect`] with other options.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub async fn connect_with(options: Options) -> Result<Self, Error> {
        let channel = connect(&address::APP, &options).await?;
        Ok(Self {
            tokens: TokenServiceClient::new(channel),
            options,
            validated: Arc::default(),
        })
    }

    /// Makes a token. It is never repeated by itself, unless the sidecar cannot have seen it.
    ///
    /// # Errors
    /// Any variant but [`Error::Rejected`] and [`Error::RingChanged`].
    pub async fn issue(&self, request: IssueRequest) -> Result<IssuedToken, Error> {
        let answer = call(self.options.timeout, Repeat::No, request.message(), |message| {
            let mut tokens = self.tokens.clone();
            async move { tokens.issue(message).await }
        });
        IssuedToken::of(answer.await?)
    }

    /// Opens and checks a token. If the result is `Ok` it is good for one of the audiences, now.
    ///
    /// # Errors
    /// [`Error::Rejected`] for a token that is no good; [`Error::InvalidRequest`] without audiences;
    /// [`Error::Unavailable`] where nobody could judge.
    pub async fn validate(&self, request: ValidateRequest) -> Result<ValidatedToken, Error> {
        let mut deadline = self.options.validate_timeout;
        if !self.validated.load(Ordering::Relaxed) {
            deadline = deadline.max(FIRST_VALIDATE);
        }
        let answer = call(deadline, Repeat::Yes, request.message()?, |message| {
            let mut tokens = self.tokens.clone();
            async move { tokens.validate(message).await }
        });
        let answer = answer.await;
        if matches!(answer, Ok(_) | Err(Error::Rejected { .. })) {
            self.validated.store(true, Ordering::Relaxed);
        }
        ValidatedToken::of(answer?)
    }

    /// [`Client::issue`] for up to 1,000 requests at once, with a result for each, in order.
    ///
    /// # Errors
    /// Those of the call as a whole; those of one item are in its result.
    pub async fn batch_issue(
        &self,
        requests: impl IntoIterator<Item = IssueRequest>,
    ) -> Result<Vec<Result<IssuedToken, Error>>, Error> {
        let requests: Vec<_> = requests.into_iter().map(IssueRequest::message).collect();
        let count = requests.len();
        let message = v1::BatchIssueRequest { requests };
        let answer = call(self.options.timeout, Repeat::No, message, |message| {
            let mut tokens = self.tokens.clone();
            async move { tokens.batch_issue(message).await }
        });
        let results = as_many(answer.await?.results, count)?;
        let judged = results.into_iter().map(|item| match item.result {
            Some(issue_result::Result::Response(response)) => IssuedToken::of(response),
            Some(issue_result::Result::Error(error)) => Err(Error::from_item(error)),
            None => Err(without_result()),
        });
        Ok(judged.collect())
    }

    /// [`Client::validate`] for up to 1,000 tokens at once, with a result for each, in order.
    ///
    /// # Errors
    /// Those of the call as a whole; those of one token are in its result.
    pub async fn batch_validate(
        &self,
        requests: impl IntoIterator<Item = ValidateRequest>,
    ) -> Result<Vec<Result<ValidatedToken, Error>>, Error> {
        let requests = requests
            .into_iter()
            .map(ValidateRequest::message)
            .collect::<Result<Vec<_>, _>>()?;
        let count = requests.len();
        let message = v1::BatchValidateRequest { requests };
        let answer = call(self.options.timeout, Repeat::Yes, message, |message| {
            let mut tokens = self.tokens.clone();
            async move { tokens.batch_validate(message).await }
        });
        let results = as_many(answer.await?.results, count)?;
        let judged = results.into_iter().map(|item| match item.result {
            Some(validate_result::Result::Response(response)) => ValidatedToken::of(response),
            Some(validate_result::Result::Error(error)) => Err(Error::from_item(error)),
            None => Err(without_result()),
        });
        Ok(judged.collect())
    }

    /// Trades a refresh token for a new pair. It is never repeated by itself; after a lost reply, the caller may repeat
    /// it within the grace (10 s), as long as the new refresh token is unspent.
    ///
    /// # Errors
    /// [`Error::Rejected`] for a refresh token that is no good; with [`Reason::RefreshReused`](crate::Reason) its
    /// family is revoked.
    pub async fn refresh(&self, request: RefreshRequest) -> Result<IssuedToken, Error> {
        let answer = call(self.options.timeout, Repeat::No, request.message(), |message| {
            let mut tokens = self.tokens.clone();
            async move { tokens.refresh(message).await }
        });
        let pair = answer.await?.tokens;
        IssuedToken::of(pair.ok_or_else(|| Error::broken("the answer has no tokens"))?)
    }

    /// Ends a token: logout. `Ok` also for one that is unknown or ended already (RFC 7009). It is never repeated by
    /// itself; to repeat it does no harm.
    ///
    /// # Errors
    /// Any variant but [`Error::Rejected`] and [`Error::RingChanged`].
    pub async fn revoke(&self, request: RevokeRequest) -> Result<Revocation, Error> {
        let answer = call(self.options.timeout, Repeat::No, request.message(), |message| {
            let mut tokens = self.tokens.clone();
            async move { tokens.revoke(message).await }
        });
        Revocation::of(answer.await?)
    }
}

fn as_many<T>(results: Vec<T>, count: usize) -> Result<Vec<T>, Error> {
    if results.len() == count {
        Ok(results)
    } else {
        Err(Error::broken(
            "the batch has another number of results than of requests",
        ))
    }
}

fn without_result() -> Error {
    Error::broken("an item of the batch has no result")
}
