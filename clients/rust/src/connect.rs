//! Finds a sidecar and connects to it.

use std::{
    env, fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::{Uri, uri::PathAndQuery},
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::{
    Error,
    address::{Address, Plane, Stream},
    error::find,
};

// For one address in one round: a silent one must not keep the others waiting.
const ATTEMPT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);
// Calls under way on the connection; more wait here, where giving up costs the sidecar nothing. It takes 128 streams,
// and those that were given up count until it knows of it.
const AT_ONCE: usize = 64;

/// How to connect, and how long the calls may take.
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) address: Option<String>,
    pub(crate) start_timeout: Duration,
    pub(crate) validate_timeout: Duration,
    pub(crate) timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: None,
            start_timeout: Duration::from_secs(10),
            validate_timeout: Duration::from_millis(250),
            timeout: Duration::from_secs(1),
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the sidecar: `unix:/path`, `unix:///path` or `host:port`. Nothing else is tried then. TCP carries tokens
    /// in the clear: stay on loopback.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// How long to wait for a sidecar that is still starting; 10 s by default.
    pub fn start_timeout(mut self, wait: Duration) -> Self {
        self.start_timeout = wait;
        self
    }

    /// The deadline of each `validate`; 250 ms by default. Until a first one has been answered it is at least 2 s. For
    /// one call, `tokio::time::timeout` sets a sooner one.
    pub fn validate_timeout(mut self, deadline: Duration) -> Self {
        self.validate_timeout = deadline;
        self
    }

    /// The deadline of each other call; 1 s by default.
    pub fn timeout(mut self, deadline: Duration) -> Self {
        self.timeout = deadline;
        self
    }
}

/// Finds a sidecar's plane as the options and the environment say.
pub(crate) async fn connect(plane: &Plane, options: &Options) -> Result<Channel, Error> {
    let addresses = plane.addresses(options.address.as_deref(), |name| env::var(name).ok())?;
    first_ready(&addresses, options.start_timeout).await
}

/// Tries the addresses in turn, round after round, until one answers or the time is over.
async fn first_ready(addresses: &[Address], wait: Duration) -> Result<Channel, Error> {
    let end = Instant::now() + wait;
    let mut failures = vec![String::new(); addresses.len()];
    let mut pause = FIRST_PAUSE;
    loop {
        for (address, failure) in addresses.iter().zip(&mut failures) {
            match timeout_at(end.min(Instant::now() + ATTEMPT), open(address)).await {
                Ok(Ok(channel)) => return Ok(channel),
                Ok(Err(problem)) => *failure = problem,
                // The end of the time says less than what came before.
                Err(_) if failure.is_empty() || Instant::now() < end => "no answer in time".clone_into(failure),
                Err(_) => {}
            }
        }
        sleep_until(end.min(Instant::now() + pause)).await;
        if Instant::now() >= end {
            let tried: Vec<String> = addresses
                .iter()
                .zip(&failures)
                .map(|(a, f)| format!("{a} ({f})"))
                .collect();
            return Err(Error::unavailable(format!(
                "no sidecar answers; tried {}",
                tried.join(", ")
            )));
        }
        pause = LAST_PAUSE.min(pause * 2);
    }
}

/// Makes a connection that has answered a call.
async fn open(address: &Address) -> Result<Channel, String> {
    let channel = Endpoint::from_static("http://localhost") // the authority; the connector knows where to go
        .user_agent(concat!("tokensidecar-rust/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| error.to_string())?
        .concurrency_limit(AT_ONCE)
        .connect_with_connector_lazy(Connector(Arc::new(address.clone())));
    match probe(channel.clone()).await {
        Err(status) if std::error::Error::source(&status).is_some() => Err(match find::<DialError>(&status) {
            Some(DialError(error)) => error.to_string(),
            None => "what listens there does not speak gRPC".to_owned(),
        }),
        _ => Ok(channel), // any status is an answer
    }
}

/// Asks for the health (`grpc.health.v1`); what matters is that gRPC answers, so the messages stay unread.
async fn probe(channel: Channel) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    grpc.unary(Request::new(()), path, ProstCodec::<(), ()>::default())
        .await?;
    Ok(())
}

/// Dials one address for tonic, which reconnects by it after each loss.
struct Connector(Arc<Address>);

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.0.clone();
        Box::pin(async move {
            match timeout(ATTEMPT, address.dial()).await {
                Ok(dialled) => dialled.map(TokioIo::new).map_err(DialError),
                Err(_) => Err(DialError(io::ErrorKind::TimedOut.into())),
            }
        })
    }
}

/// No connection, as opposed to one on which no gRPC is spoken.
#[derive(Debug)]
struct DialError(io::Error);

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for DialError {}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, UnixListener},
    };
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::{service::Routes, transport::Server};

    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ts-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn found(path: PathBuf) -> Address {
        Address::Socket { path, found: true }
    }

    #[tokio::test]
    async fn error_lists_all_that_were_tried() {
        let directory = directory("tried");
        let file = directory.join("app.sock");
        fs::write(&file, "").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = listener.local_addr().unwrap().to_string();
        drop(listener);
        let addresses = [
            found(directory.join("none.sock")),
            found(file),
            Address::Tcp(closed.clone()),
        ];

        let error = first_ready(&addresses, Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }));
        for part in [
            format!("unix:{}/none.sock (No such file or directory", directory.display()),
            format!("unix:{}/app.sock (not a socket)", directory.display()),
            format!("{closed} (Connection refused"),
        ] {
            assert!(error.to_string().contains(&part), "{part:?} is not in {error}");
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn first_address_that_answers_is_taken() {
        let directory = directory("first");
        let socket = directory.join("app.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = Server::builder().add_routes(Routes::default());
        let server = tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));

        let addresses = [found(directory.join("none.sock")), found(socket)];
        first_ready(&addresses, Duration::from_secs(5)).await.unwrap();
        server.abort();
        fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn listener_that_does_not_speak_grpc_is_no_sidecar() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                    .await
                    .unwrap();
            }
        });
        let error = first_ready(&[address], Duration::from_millis(200)).await.unwrap_err();
        assert!(error.to_string().contains("does not speak gRPC"), "{error}");
        server.abort();
    }

    #[tokio::test]
    async fn wait_ends_with_its_bound_where_nothing_is_said() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap(); // takes connections into its backlog
        let address = Address::Tcp(silent.local_addr().unwrap().to_string());
        let start = Instant::now();
        let error = first_ready(&[address], Duration::from_millis(150)).await.unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
