//! A server of the contract whose answers the test gives. It stands in for a sidecar where a real one could not be made
//! to answer like that.

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime},
};

use prost::Message as _;
use tokensidecar::{
    Admin, Client, Options, Reason,
    v1::{self, IssueResponse, ItemError, ValidateResponse},
};
use tokio::{net::UnixListener, sync::oneshot, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};

#[allow(clippy::all, clippy::pedantic)]
#[rustfmt::skip]
#[path = "tokensidecar.v1.rs"]
pub mod stubs;

use stubs::{
    admin_service_server::{AdminService, AdminServiceServer},
    token_service_server::{TokenService, TokenServiceServer},
};

type Handler<M, A> = Box<dyn Fn(Request<M>) -> Pin<Box<dyn Future<Output = Result<A, Status>> + Send>> + Send + Sync>;

macro_rules! fake {
    ($($service:ident { $($method:ident($message:ident) -> $answer:ident;)* })*) => {
        /// Answers a call as the handler set for it says; UNIMPLEMENTED without one.
        #[derive(Default)]
        pub struct Fake {
            $($($method: Option<Handler<v1::$message, v1::$answer>>,)*)*
        }

        impl Fake {
            $($(pub fn $method<H, F>(mut self, handler: H) -> Self
            where
                H: Fn(Request<v1::$message>) -> F + Send + Sync + 'static,
                F: Future<Output = Result<v1::$answer, Status>> + Send + 'static,
            {
                self.$method = Some(Box::new(move |request| Box::pin(handler(request))));
                self
            })*)*
        }

        $(#[tonic::async_trait]
        impl $service for Fake {
            $(async fn $method(&self, request: Request<v1::$message>) -> Result<Response<v1::$answer>, Status> {
                match &self.$method {
                    Some(handler) => handler(request).await.map(Response::new),
                    None => Err(Status::unimplemented("no answer was set")),
                }
            })*
        })*
    };
}

fake! {
    TokenService {
        issue(IssueRequest) -> IssueResponse;
        validate(ValidateRequest) -> ValidateResponse;
        batch_issue(BatchIssueRequest) -> BatchIssueResponse;
        batch_validate(BatchValidateRequest) -> BatchValidateResponse;
        refresh(RefreshRequest) -> RefreshResponse;
        revoke(RevokeRequest) -> RevokeResponse;
        rotate(RotateRequest) -> RotateResponse;
    }
    AdminService {
        list_keys(ListKeysRequest) -> ListKeysResponse;
        revoke_keys(RevokeKeysRequest) -> RevokeKeysResponse;
    }
}

/// A fake that listens, until it is stopped or dropped.
pub struct Running {
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Fake {
    /// Serves on a socket of its own.
    pub fn start(self) -> Running {
        self.start_at(&socket())
    }

    pub fn start_at(self, socket: &Path) -> Running {
        let made = socket.with_extension("new");
        let listener = UnixListener::bind(&made).unwrap();
        fs::rename(made, socket).unwrap(); // over that of the one before
        let (stop, stopped) = oneshot::channel::<()>();
        let fake = std::sync::Arc::new(self);
        let server = Server::builder()
            .add_service(TokenServiceServer::from_arc(fake.clone()))
            .add_service(AdminServiceServer::from_arc(fake));
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            server
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped)
                .await
                .unwrap();
        });
        Running {
            address: format!("unix:{}", socket.display()),
            stop: Some(stop),
            task,
        }
    }

    pub async fn client(self) -> (Client, Running) {
        self.client_with(Options::new()).await
    }

    pub async fn client_with(self, options: Options) -> (Client, Running) {
        let running = self.start();
        let client = Client::connect_with(options.address(&running.address)).await.unwrap();
        (client, running)
    }

    pub async fn admin(self) -> (Admin, Running) {
        let running = self.start();
        let admin = Admin::connect_with(Options::new().address(&running.address))
            .await
            .unwrap();
        (admin, running)
    }
}

impl Running {
    /// Ends it as a sidecar ends: what is under way is finished, connections are closed.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        timeout(Duration::from_secs(5), &mut self.task).await.unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
        if self.stop.is_some() {
            // Of one that was stopped, the socket may be its successor's.
            let _ = fs::remove_file(self.address.trim_start_matches("unix:"));
        }
    }
}

/// A path that is no other test's, short enough for a socket.
pub fn socket() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ts-{}-{number}.sock", std::process::id()))
}

/// A time as the messages hold one.
#[allow(clippy::unnecessary_wraps)]
pub fn time(seconds: u64) -> Option<prost_types::Timestamp> {
    Some((SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).into())
}

/// A token of five minutes.
pub fn issued(token: &str) -> IssueResponse {
    IssueResponse {
        token: token.into(),
        issue_time: time(1_000),
        expire_time: time(1_300),
        ..IssueResponse::default()
    }
}

pub fn validated(subject: &str, claims: &str) -> ValidateResponse {
    ValidateResponse {
        subject: subject.into(),
        claims_json: claims.into(),
        issue_time: time(1_000),
        expire_time: time(1_300),
        ..ValidateResponse::default()
    }
}

pub fn item_error(code: Code, reason: Reason, message: &str, field: &str) -> ItemError {
    ItemError {
        code: code.into(),
        reason: reason.into(),
        message: message.into(),
        field: field.into(),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// Two texts, as `google.rpc.ErrorInfo` and a violation of `google.rpc.BadRequest` have them.
#[derive(Clone, PartialEq, prost::Message)]
struct Texts {
    #[prost(string, tag = "1")]
    first: String,
    #[prost(string, tag = "2")]
    second: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct One<M: prost::Message + Default + std::fmt::Debug> {
    #[prost(message, optional, tag = "1")]
    one: Option<M>,
}

fn detail(kind: &str, message: &impl prost::Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{kind}"),
        value: message.encode_to_vec(),
    }
}

pub fn bad_field(name: &str, problem: &str) -> prost_types::Any {
    let violation = Texts {
        first: name.into(),
        second: problem.into(),
    };
    detail("BadRequest", &One { one: Some(violation) })
}

pub fn retry_after(delay: Duration) -> prost_types::Any {
    let delay: prost_types::Duration = delay.try_into().unwrap();
    detail("RetryInfo", &One { one: Some(delay) })
}

/// An error as the sidecar's code answers it.
pub fn failure(code: Code, reason: Reason, message: &str) -> Status {
    failure_with(code, reason, message, Vec::new())
}

pub fn failure_with(code: Code, reason: Reason, message: &str, mut details: Vec<prost_types::Any>) -> Status {
    let info = Texts {
        first: reason.as_str_name().into(),
        second: "tokensidecar".into(),
    };
    details.push(detail("ErrorInfo", &info));
    let status = RpcStatus {
        code: code.into(),
        message: message.into(),
        details,
    };
    let mut answer = Status::with_details(code, message, status.encode_to_vec().into());
    answer.metadata_mut().insert("x-request-id", "r1".parse().unwrap());
    answer
}
