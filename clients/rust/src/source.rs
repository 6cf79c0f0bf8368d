//! Tokens for outgoing calls, kept while they are fresh.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{Client, Error, IssueRequest, IssuedToken, token::texts};

/// A token is renewed after this part of its life.
const RENEWED_AFTER: f64 = 0.8;
/// `iat` and `exp` are whole seconds.
const ROUNDING: Duration = Duration::from_secs(1);
/// So many grants are remembered; of more, those that expire soonest are forgotten.
const MOST_GRANTS: usize = 1000;

/// What a token for an outgoing call grants: equal grants share one token.
#[derive(Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct Grant {
    profile: String,
    subject: String,
    audiences: Vec<String>,
    scopes: Vec<String>,
}

impl Grant {
    /// A token of the profile "default" for a subject, accepted by the audiences.
    pub fn new<T: Into<String>>(subject: impl Into<String>, audiences: impl IntoIterator<Item = T>) -> Self {
        Self {
            profile: String::new(),
            subject: subject.into(),
            audiences: texts(audiences),
            scopes: Vec::new(),
        }
    }

    /// The kind of token.
    pub fn profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = profile.into();
        self
    }

    /// `scope`, one word each.
    pub fn scopes<T: Into<String>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.scopes = texts(scopes);
        self
    }

    fn request(&self) -> IssueRequest {
        IssueRequest::new(&self.subject, &self.audiences)
            .profile(&self.profile)
            .scopes(&self.scopes)
    }
}

impl fmt::Debug for Grant {
    /// Leaves out the subject.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("profile", &self.profile)
            .field("audiences", &self.audiences)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// Issues tokens and keeps each for 80 % of its life. Whoever wants the same at the same time shares one call, and its
/// failure too. A clone shares what is kept.
#[derive(Clone, Debug)]
pub struct TokenSource {
    client: Client,
    slots: Arc<Mutex<HashMap<Grant, Arc<Slot>>>>,
}

/// What is known of one grant.
#[derive(Debug, Default)]
struct Slot {
    kept: Mutex<Option<Kept>>,
    /// Held by the one who issues.
    turn: tokio::sync::Mutex<Option<Failure>>,
    /// How many calls have ended.
    ended: AtomicU64,
}

#[derive(Clone, Debug)]
struct Kept {
    token: Arc<IssuedToken>,
    renew: Instant,
    expire: Instant,
}

#[derive(Debug)]
struct Failure {
    /// It was the call of this number.
    number: u64,
    error: Error,
}

impl TokenSource {
    /// Keeps nothing yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            slots: Arc::default(),
        }
    }

    /// A token that is good for at least a fifth of its life; for less only where the sidecar does not answer.
    ///
    /// # Errors
    /// As for [`Client::issue`].
    pub async fn token(&self, grant: &Grant) -> Result<Arc<IssuedToken>, Error> {
        let slot = self.slot(grant);
        let before = slot.ended.load(Ordering::Acquire);
        if let Some(fresh) = slot.kept(|kept| kept.renew) {
            return Ok(fresh);
        }
        let mut failure = match (slot.turn.try_lock(), slot.kept(|kept| kept.expire)) {
            (Ok(turn), _) => turn,
            (Err(_), Some(alive)) => return Ok(alive), // somebody renews it
            (Err(_), None) => slot.turn.lock().await,
        };
        if let Some(fresh) = slot.kept(|kept| kept.renew) {
            return Ok(fresh);
        }
        if let Some(shared) = failure.as_ref().filter(|failure| failure.number > before) {
            return Err(shared.error.clone());
        }
        let asked = Instant::now();
        let issued = self.client.issue(grant.request()).await;
        let number = slot.ended.fetch_add(1, Ordering::AcqRel) + 1;
        match issued {
            Ok(token) => {
                *failure = None;
                Ok(slot.keep(token, asked))
            }
            Err(error) => {
                if let (Error::Unavailable { .. }, Some(alive)) = (&error, slot.kept(|kept| kept.expire)) {
                    return Ok(alive);
                }
                *failure = Some(Failure {
                    number,
                    error: error.clone(),
                });
                Err(error)
            }
        }
    }

    /// Forgets the token of a grant: for one that was turned down.
    pub fn forget(&self, grant: &Grant) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(grant);
    }

    fn slot(&self, grant: &Grant) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(grant) {
            return slot.clone();
        }
        if slots.len() >= MOST_GRANTS {
            let first = slots
                .iter()
                .min_by_key(|(_, slot)| slot.end().map_or((1, None), |end| (0, Some(end))));
            let first = first.map(|(grant, _)| grant.clone());
            first.map(|grant| slots.remove(&grant));
        }
        slots.entry(grant.clone()).or_default().clone()
    }
}

impl Slot {
    /// The token that is kept, before a time of it.
    fn kept(&self, until: impl Fn(&Kept) -> Instant) -> Option<Arc<IssuedToken>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref()
            .filter(|kept| Instant::now() < until(kept))
            .map(|kept| kept.token.clone())
    }

    fn end(&self) -> Option<Instant> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().map(|kept| kept.expire)
    }

    /// The life is reckoned by the sidecar's own times, from before the call: this machine's clock may jump.
    fn keep(&self, token: IssuedToken, asked: Instant) -> Arc<IssuedToken> {
        let life = token.expire_time.duration_since(token.issue_time).unwrap_or_default();
        let token = Arc::new(token);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Kept {
            token: token.clone(),
            renew: asked + life.mul_f64(RENEWED_AFTER),
            expire: asked + life.saturating_sub(ROUNDING),
        });
        token
    }
}
