//! The layer that protects a service, in axum and in tonic, against a fake.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use http::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use tokensidecar::{
    Authorized, Client, Error, Protect, Reason,
    v1::{self, token_service_client::TokenServiceClient},
};
use tonic::{Code, Status};
use tower::{Layer as _, ServiceExt as _};

use crate::fake::{
    Fake, Running, failure, failure_with, issued, retry_after, stubs::token_service_server::TokenServiceServer,
    validated,
};

#[derive(Deserialize)]
struct Claims {
    tenant: String,
}

/// A sidecar that says of each token what its text asks for.
async fn sidecar() -> (Client, Running) {
    let fake = Fake::default().validate(|request| {
        let v1::ValidateRequest {
            token,
            audiences,
            profiles,
            required_scopes,
            ..
        } = request.into_inner();
        async move {
            let rejected = |reason| Err(failure(Code::Unauthenticated, reason, "no"));
            match &token[..] {
                "good" if audiences == ["orders"] => {
                    let tenant = format!("{}{}", profiles.join(","), required_scopes.join(","));
                    Ok(validated("ada", &format!(r#"{{"tenant":"acme{tenant}"}}"#)))
                }
                "other.claims" => Ok(validated("ada", r#"{"tenant":1}"#)),
                "expired" => rejected(Reason::TokenExpired),
                "scope" => rejected(Reason::TokenScopeMissing),
                "stale" => Err(failure(Code::Unavailable, Reason::StateStale, "no")),
                "busy" => {
                    let details = vec![retry_after(Duration::from_millis(1200))];
                    Err(failure_with(Code::ResourceExhausted, Reason::Overloaded, "no", details))
                }
                "denied" => Err(failure(Code::PermissionDenied, Reason::CallerDenied, "no")),
                "internal" => Err(failure(Code::Internal, Reason::Internal, "no")),
                _ => Err(failure(Code::InvalidArgument, Reason::RequestInvalid, "no")),
            }
        }
    });
    fake.client().await
}

/// A route behind the layer, and how often it was reached.
fn router(protect: Protect<Claims>) -> (Router, Arc<AtomicU32>) {
    let reached = Arc::new(AtomicU32::new(0));
    let count = reached.clone();
    let orders = async move |caller: Authorized<Claims>| {
        count.fetch_add(1, Ordering::SeqCst);
        format!("{} of {}", caller.token.subject, caller.claims.tenant)
    };
    (Router::new().route("/orders", get(orders)).layer(protect), reached)
}

async fn answer(router: &Router, authorization: &[&str]) -> Response<Body> {
    let mut request = Request::builder().uri("/orders");
    for value in authorization {
        request = request.header(AUTHORIZATION, *value);
    }
    router
        .clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap()
}

async fn text(answer: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(answer.into_body(), 1000).await.unwrap();
    String::from_utf8(bytes.into()).unwrap()
}

#[tokio::test]
async fn good_token_reaches_the_route_with_its_claims() {
    let (client, _running) = sidecar().await;
    let (router, reached) = router(Protect::http(client.clone(), ["orders"]));
    for authorization in ["Bearer good", "bearer good", "BEARER  good "] {
        let answer = answer(&router, &[authorization]).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(text(answer).await, "ada of acme");
    }
    assert_eq!(reached.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn profiles_and_scopes_are_demanded() {
    let (client, _running) = sidecar().await;
    let (router, _) = router(
        Protect::http(client, ["orders"])
            .profiles(["p"])
            .required_scopes(["read", "write"]),
    );
    assert_eq!(
        text(answer(&router, &["Bearer good"]).await).await,
        "ada of acmepread,write"
    );
}

#[tokio::test]
async fn everything_else_is_answered_as_rfc_6750_says() {
    let (client, _running) = sidecar().await;
    let protect = Protect::http(client, ["orders"]).required_scopes(["read", "write"]);
    let (router, reached) = router(protect);
    let bare = r#"Bearer realm="tokensidecar""#;
    let with = |parameters: &str| format!("{bare}, {parameters}");
    let long = format!("Bearer {}", "a".repeat(16 * 1024 + 1));
    for (authorization, status, challenge) in [
        (&[][..], 401, Some(bare.to_owned())),
        (&["Basic Z29vZA=="], 401, Some(bare.to_owned())),
        (&["Bearer"], 400, Some(with(r#"error="invalid_request""#))),
        (&["Bearer "], 400, Some(with(r#"error="invalid_request""#))),
        (&["Bearer a b"], 400, Some(with(r#"error="invalid_request""#))),
        (&["Bearer a,b"], 400, Some(with(r#"error="invalid_request""#))),
        (&["Bearer gööd"], 400, Some(with(r#"error="invalid_request""#))),
        (
            &["Bearer good", "Bearer good"],
            400,
            Some(with(r#"error="invalid_request""#)),
        ),
        (
            &["Bearer good", "Basic Z29vZA=="],
            400,
            Some(with(r#"error="invalid_request""#)),
        ),
        (
            &["Bearer expired"],
            401,
            Some(with(r#"error="invalid_token", error_description="TOKEN_EXPIRED""#)),
        ),
        (&["Bearer other.claims"], 401, Some(with(r#"error="invalid_token""#))),
        (
            &["Bearer scope"],
            403,
            Some(with(r#"error="insufficient_scope", scope="read write""#)),
        ),
        (&["Bearer stale"], 503, None),
        (&["Bearer busy"], 503, None),
        (&["Bearer denied"], 500, None),
        (&["Bearer internal"], 500, None),
        (&[&long], 401, Some(with(r#"error="invalid_token""#))),
    ] {
        let answer = answer(&router, authorization).await;
        assert_eq!(answer.status(), status, "{authorization:?}");
        let header = answer
            .headers()
            .get(WWW_AUTHENTICATE)
            .map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header, challenge, "{authorization:?}");
        let wait = answer
            .headers()
            .get(RETRY_AFTER)
            .map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(wait.as_deref(), (authorization == ["Bearer busy"]).then_some("2"));
        assert_eq!(text(answer).await, "");
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nothing_passes_while_the_sidecar_is_down() {
    let (client, running) = sidecar().await;
    let (router, reached) = router(Protect::http(client, ["orders"]));
    running.stop().await;
    let answer = answer(&router, &["Bearer good"]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let error = answer.extensions().get::<Error>().expect("the error, for a log");
    assert!(matches!(error, Error::Unavailable { .. }));
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn route_that_was_left_unprotected_does_not_run() {
    let open = Router::new().route("/orders", get(async |_: Authorized<Claims>| "open"));
    assert_eq!(
        answer(&open, &["Bearer good"]).await.status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
}

/// The fake's own service, as a stand-in for one that is to be protected.
async fn call(client: Client, authorization: Option<&str>) -> Result<String, Status> {
    let protected = Fake::default().issue(|request| async move {
        let caller = request.extensions().get::<Authorized<Claims>>().expect("who calls");
        Ok(issued(&format!("{} of {}", caller.token.subject, caller.claims.tenant)))
    });
    let service = Protect::<Claims>::grpc(client, ["orders"]).layer(TokenServiceServer::new(protected));
    let mut stub = TokenServiceClient::new(service);
    let mut request = tonic::Request::new(v1::IssueRequest::default());
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", value.parse().unwrap());
    }
    stub.issue(request).await.map(|answer| answer.into_inner().token)
}

#[tokio::test]
async fn grpc_service_gets_the_claims_and_its_callers_a_status() {
    let (client, _running) = sidecar().await;
    assert_eq!(call(client.clone(), Some("Bearer good")).await.unwrap(), "ada of acme");
    for (authorization, code, message) in [
        (None, Code::Unauthenticated, "a bearer token is required"),
        (
            Some("Bearer a b"),
            Code::Unauthenticated,
            "the authorization is malformed",
        ),
        (
            Some("Bearer other.claims"),
            Code::Unauthenticated,
            "the token is no good",
        ),
        (Some("Bearer expired"), Code::Unauthenticated, "TOKEN_EXPIRED"),
        (Some("Bearer scope"), Code::PermissionDenied, "TOKEN_SCOPE_MISSING"),
        (
            Some("Bearer stale"),
            Code::Unavailable,
            "the token cannot be judged now",
        ),
        (Some("Bearer denied"), Code::Internal, "the token cannot be judged"),
    ] {
        let status = call(client.clone(), authorization).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message), "{authorization:?}");
    }
}

#[test]
fn protected_grpc_service_keeps_its_name() {
    fn name<S: tonic::server::NamedService>(_: impl Fn(S)) -> &'static str {
        S::NAME
    }
    let name = name(|_: tokensidecar::ProtectService<TokenServiceServer<Fake>, Claims>| ());
    assert_eq!(name, "tokensidecar.v1.TokenService");
}
