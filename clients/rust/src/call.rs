//! One call: its deadline, and what may be repeated.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Request, Response, Status};

use crate::Error;

const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// What happens on UNAVAILABLE.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Repeat {
    /// Reads, and what carries a request id.
    Yes,
    /// Only where the sidecar cannot have worked on the request.
    No,
}

/// Sends the message until it is answered, within one deadline for all attempts.
pub(crate) async fn call<M, A, F>(
    deadline: Duration,
    repeat: Repeat,
    message: M,
    send: impl Fn(Request<M>) -> F,
) -> Result<A, Error>
where
    M: Clone,
    F: Future<Output = Result<Response<A>, Status>>,
{
    let end = Instant::now() + deadline;
    let mut last = None;
    let attempts = async {
        let mut attempt = 1;
        loop {
            let mut request = Request::new(message.clone());
            request.set_timeout(end.saturating_duration_since(Instant::now()));
            let error = match send(request).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => Error::from_status(status),
            };
            let again = error.was_never_processed() || repeat == Repeat::Yes && error.is_worth_a_repeat();
            if !again || attempt == ATTEMPTS {
                return Err(error);
            }
            last = Some(error);
            sleep(jittered(FIRST_PAUSE * 2_u32.pow(attempt - 1))).await;
            attempt += 1;
        }
    };
    match timeout_at(end, attempts).await {
        Ok(ended) => ended,
        // What came before says more than that the time is over.
        Err(_) => Err(last.unwrap_or_else(Error::late)),
    }
}

/// Between 80 and 120 % of a pause, so that what failed together does not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    pause.mul_f64(0.8 + 0.4 * f64::from(random) / f64::from(u32::MAX))
}

/// A request id of 128 random bits where the caller has none.
pub(crate) fn or_fresh(request_id: String) -> Result<String, Error> {
    if !request_id.is_empty() {
        return Ok(request_id);
    }
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|error| Error::broken(&format!("no randomness for a request id: {error}")))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}
