//! What a call can end with that is not an answer.

use std::{error, fmt, iter, sync::Arc, time::Duration};

use prost::Message as _;
use tonic::{Code, Status};

use crate::{Reason, v1};

/// Why a call did not end well. Match on it to know what to do; [`Error::answer`] has the particulars.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The sidecar judged the token, and it is no good. Never retry; answer 401.
    Rejected {
        /// Why; [`Reason::Unspecified`] if the answer does not say it in words that this version knows.
        reason: Reason,
        /// The particulars.
        answer: Box<Answer>,
    },
    /// The request is no good, or the address that was given. Never retry.
    InvalidRequest {
        /// Those at fault, by their names in the contract.
        fields: Vec<Field>,
        /// The particulars.
        answer: Box<Answer>,
    },
    /// This program may not do this here. Never retry.
    Denied {
        /// The particulars.
        answer: Box<Answer>,
    },
    /// Another change of the keys won. Look again, then decide.
    RingChanged {
        /// The particulars.
        answer: Box<Answer>,
    },
    /// No answer now, because the sidecar is down, stale, overloaded or too slow. It says nothing about the token: do
    /// not let the request through, and do not call the token forged; answer 503.
    Unavailable {
        /// How long to wait before the next try, if the sidecar said so.
        retry_after: Option<Duration>,
        /// The particulars.
        answer: Box<Answer>,
    },
    /// Every other failure: not in this version of the sidecar, its fault, or an answer that breaks the contract.
    Failed {
        /// The particulars.
        answer: Box<Answer>,
    },
}

/// One field of a request that is no good.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// The path in the contract, such as `audiences`.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The particulars of a failed call.
#[derive(Clone)]
#[non_exhaustive]
pub struct Answer {
    /// The gRPC status code.
    pub code: Code,
    /// Why; [`Reason::Unspecified`] where gRPC and not the sidecar's code answered, or a newer one.
    pub reason: Reason,
    /// For people. It never quotes a token.
    pub message: String,
    /// Finds the call in the sidecar's log. None for an item of a batch, and where the sidecar's code did not answer.
    pub request_id: Option<String>,
    status: Status,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("code", &self.code)
            .field("reason", &self.reason)
            .field("message", &self.message)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

impl Error {
    /// The particulars: gRPC code, reason, message, request id.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        match self {
            Self::Rejected { answer, .. }
            | Self::InvalidRequest { answer, .. }
            | Self::Denied { answer }
            | Self::RingChanged { answer }
            | Self::Unavailable { answer, .. }
            | Self::Failed { answer } => answer,
        }
    }

    /// Sorts by the code, as the contract says. A status that came from no server is one of the transport.
    pub(crate) fn from_status(status: Status) -> Self {
        if find::<tonic::TimeoutExpired>(&status).is_some() {
            return Self::late();
        }
        if let Some(source) = error::Error::source(&status) {
            let deepest = iter::successors(Some(source), |error| error.source())
                .last()
                .unwrap_or(source);
            let mut told = Status::unavailable(format!("the sidecar does not answer: {deepest}"));
            told.set_source(Arc::new(status));
            return Self::sorted(told, Details::default());
        }
        let details = Details::of(&status);
        Self::sorted(status, details)
    }

    /// What a call of its own would have ended with.
    pub(crate) fn from_item(item: v1::ItemError) -> Self {
        let code = Code::from(item.code);
        if code == Code::Ok {
            return Self::broken("an item of the batch failed with the code OK");
        }
        let mut details = Details {
            reason: item.reason(),
            ..Details::default()
        };
        if !item.field.is_empty() {
            let prefix = format!("{}: ", item.field);
            let problem = item.message.strip_prefix(&prefix).unwrap_or(&item.message).to_owned();
            details.fields.push(Field {
                name: item.field,
                problem,
            });
        }
        Self::sorted(Status::new(code, item.message), details)
    }

    /// The deadline has passed.
    pub(crate) fn late() -> Self {
        let status = Status::deadline_exceeded("no answer before the deadline");
        Self::sorted(status, Details::default())
    }

    /// No sidecar was found.
    pub(crate) fn unavailable(message: String) -> Self {
        Self::sorted(Status::unavailable(message), Details::default())
    }

    /// An error of the client itself, before anything was sent.
    pub(crate) fn refused(field: &str, problem: String) -> Self {
        let status = Status::invalid_argument(format!("{field}: {problem}"));
        let details = Details {
            reason: Reason::RequestInvalid,
            fields: vec![Field {
                name: field.to_owned(),
                problem,
            }],
            retry_after: None,
        };
        Self::sorted(status, details)
    }

    /// An answer that keeps to gRPC and not to the contract.
    pub(crate) fn broken(problem: &str) -> Self {
        Self::sorted(Status::internal(problem), Details::default())
    }

    fn sorted(status: Status, details: Details) -> Self {
        let Details {
            reason,
            fields,
            retry_after,
        } = details;
        let mut ids = status.metadata().get_all("x-request-id").iter();
        let request_id = ids.next().filter(|_| ids.next().is_none());
        let answer = Box::new(Answer {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
            request_id: request_id.and_then(|id| id.to_str().ok()).map(str::to_owned),
            status,
        });
        match answer.code {
            // The contract reserves it for the token in the request.
            Code::Unauthenticated => Self::Rejected { reason, answer },
            Code::InvalidArgument => Self::InvalidRequest { fields, answer },
            Code::PermissionDenied => Self::Denied { answer },
            Code::Aborted => Self::RingChanged { answer },
            // Cancelled: by the sidecar as it ended; who cancels here drops the future, and sees no error.
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Self::Unavailable { retry_after, answer },
            // Without the reason: a message too large, which no later try makes smaller.
            Code::ResourceExhausted if reason == Reason::Overloaded => Self::Unavailable { retry_after, answer },
            _ => Self::Failed { answer },
        }
    }

    /// Whether the call may be repeated if it is of a kind that may.
    pub(crate) fn is_worth_a_repeat(&self) -> bool {
        // A sidecar that ends cancels calls that it has just taken.
        matches!(self.answer().code, Code::Unavailable | Code::Cancelled)
    }

    /// Whether the sidecar cannot have worked on the request: then every call may be repeated. The connection ended
    /// before the request was written, or the sidecar said so (RFC 9113, section 8.7).
    pub(crate) fn was_never_processed(&self) -> bool {
        let status = &self.answer().status;
        let refused = find::<h2::Error>(status).is_some_and(|error| {
            error.is_remote()
                && (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
                    || error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
        });
        refused || find::<hyper::Error>(status).is_some_and(hyper::Error::is_canceled)
    }
}

/// The first error of one kind below a status.
pub(crate) fn find<E: error::Error + 'static>(status: &Status) -> Option<&E> {
    let first: &(dyn error::Error + 'static) = status;
    iter::successors(Some(first), |error| error.source()).find_map(|error| error.downcast_ref())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Rejected { .. } => "token rejected",
            Self::InvalidRequest { .. } => "invalid request",
            Self::Denied { .. } => "denied",
            Self::RingChanged { .. } => "ring changed",
            Self::Unavailable { .. } => "unavailable",
            Self::Failed { .. } => "failed",
        };
        let answer = self.answer();
        write!(f, "tokensidecar: {what}")?;
        if answer.reason != Reason::Unspecified {
            write!(f, " ({})", answer.reason.as_str_name())?;
        }
        write!(f, ": {}", answer.message)?;
        match &answer.request_id {
            Some(id) => write!(f, " [request id {id}]"),
            None => Ok(()),
        }
    }
}

impl error::Error for Error {
    /// The gRPC status.
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.answer().status)
    }
}

/// What the details of a status say.
#[derive(Default)]
struct Details {
    reason: Reason,
    fields: Vec<Field>,
    retry_after: Option<Duration>,
}

impl Details {
    fn of(status: &Status) -> Self {
        let mut found = Self::default();
        let details = RpcStatus::decode(status.details()).unwrap_or_default().details;
        for detail in details {
            match detail.type_url.rsplit('/').next() {
                Some("google.rpc.ErrorInfo") => {
                    let info = ErrorInfo::decode(&detail.value[..]).unwrap_or_default();
                    if info.domain == "tokensidecar" {
                        found.reason = Reason::from_str_name(&info.reason).unwrap_or_default();
                    }
                }
                Some("google.rpc.BadRequest") => {
                    let bad = BadRequest::decode(&detail.value[..]).unwrap_or_default();
                    found
                        .fields
                        .extend(bad.field_violations.into_iter().map(|violation| Field {
                            name: violation.field,
                            problem: violation.description,
                        }));
                }
                Some("google.rpc.RetryInfo") => {
                    let retry = RetryInfo::decode(&detail.value[..]).unwrap_or_default();
                    found.retry_after = retry.retry_delay.and_then(|delay| delay.try_into().ok());
                }
                _ => {}
            }
        }
        found
    }
}

// What is used here of google/rpc/status.proto and error_details.proto.

#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}
