//! The token source, and the layer that uses it, against a fake.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, header::AUTHORIZATION};
use tokensidecar::{
    Authorize, Error, Grant, Options, Reason, TokenSource,
    v1::{self, token_service_client::TokenServiceClient},
};
use tokio::time::{Instant, advance, pause, resume, sleep};
use tonic::Code;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::fake::{Fake, Running, failure, issued};

/// A source over a fake that numbers its tokens, which live five minutes, and fails those calls that `fails` names.
async fn source(fails: impl Fn(u32) -> bool + Send + Sync + 'static) -> (TokenSource, Arc<AtomicU32>, Running) {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let fake = Fake::default().issue(move |request| {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        let failed = fails(number);
        let v1::IssueRequest {
            subject,
            profile,
            audiences,
            scopes,
            ..
        } = request.into_inner();
        async move {
            sleep(Duration::from_millis(20)).await;
            if failed {
                return Err(failure(Code::Unavailable, Reason::StateStale, "not now"));
            }
            Ok(issued(&format!(
                "{number}:{profile}:{subject}:{audiences:?}:{scopes:?}"
            )))
        }
    });
    let (client, running) = fake
        .client_with(Options::new().timeout(Duration::from_secs(3600)))
        .await;
    (TokenSource::new(client), calls, running)
}

fn grant() -> Grant {
    Grant::new("orders", ["billing"])
}

/// Lets time pass for the source, in no time.
async fn pass(seconds: u64) {
    pause();
    advance(Duration::from_secs(seconds)).await;
    resume();
}

#[tokio::test]
async fn token_is_kept_for_four_fifths_of_its_life() {
    let (source, calls, _running) = source(|_| false).await;
    let first = source.token(&grant()).await.unwrap();
    assert_eq!(first.token, r#"1::orders:["billing"]:[]"#);
    pass(235).await;
    assert_eq!(source.token(&grant()).await.unwrap().token, first.token);
    assert_eq!(source.clone().token(&grant()).await.unwrap().token, first.token);
    pass(6).await;
    assert!(source.token(&grant()).await.unwrap().token.starts_with("2:"));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn each_grant_has_a_token_of_its_own() {
    let (source, calls, _running) = source(|_| false).await;
    let grants = [
        grant(),
        grant().profile("p"),
        grant().scopes(["read"]),
        Grant::new("orders", ["mail"]),
        Grant::new("web", ["billing"]),
    ];
    for _ in 0..2 {
        for (number, grant) in (1..).zip(&grants) {
            assert!(
                source
                    .token(grant)
                    .await
                    .unwrap()
                    .token
                    .starts_with(&format!("{number}:"))
            );
        }
    }
    assert_eq!(calls.load(Ordering::SeqCst), 5);
    assert!(!format!("{source:?}").contains("web"));
}

#[tokio::test]
async fn all_who_want_the_same_share_one_call() {
    let (source, calls, _running) = source(|_| false).await;
    let wanted: Vec<_> = (0..50)
        .map(|_| {
            let source = source.clone();
            tokio::spawn(async move { source.token(&grant()).await })
        })
        .collect();
    for token in wanted {
        assert!(token.await.unwrap().unwrap().token.starts_with("1:"));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_failure_is_shared_and_not_kept() {
    let (source, calls, _running) = source(|number| number == 1).await;
    let wanted: Vec<_> = (0..50)
        .map(|_| {
            let source = source.clone();
            tokio::spawn(async move { source.token(&grant()).await })
        })
        .collect();
    for token in wanted {
        assert!(matches!(token.await.unwrap(), Err(Error::Unavailable { .. })));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert!(source.token(&grant()).await.unwrap().token.starts_with("2:"));
}

#[tokio::test]
async fn who_gives_up_leaves_the_call_to_the_next() {
    let (source, calls, _running) = source(|_| false).await;
    let first = tokio::spawn({
        let source = source.clone();
        async move { source.token(&grant()).await }
    });
    while calls.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let second = tokio::spawn(async move { source.token(&grant()).await });
    first.abort();
    assert!(second.await.unwrap().unwrap().token.starts_with("2:"));
}

#[tokio::test]
async fn token_that_still_lives_serves_while_the_sidecar_does_not() {
    let (source, calls, _running) = source(|number| number > 1).await;
    let first = source.token(&grant()).await.unwrap();
    pass(241).await;
    assert_eq!(source.token(&grant()).await.unwrap().token, first.token);
    pass(60).await;
    assert!(matches!(source.token(&grant()).await, Err(Error::Unavailable { .. })));
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn nobody_waits_for_a_renewal_while_the_old_token_lives() {
    let (source, calls, _running) = source(|_| false).await;
    source.token(&grant()).await.unwrap();
    pass(241).await;
    let renewal = tokio::spawn({
        let source = source.clone();
        async move { source.token(&grant()).await }
    });
    while calls.load(Ordering::SeqCst) == 1 {
        sleep(Duration::from_millis(1)).await;
    }
    let start = Instant::now();
    assert!(source.token(&grant()).await.unwrap().token.starts_with("1:"));
    assert!(start.elapsed() < Duration::from_millis(15));
    assert!(renewal.await.unwrap().unwrap().token.starts_with("2:"));
}

#[tokio::test]
async fn forgotten_token_is_issued_anew() {
    let (source, _, _running) = source(|_| false).await;
    source.token(&grant()).await.unwrap();
    source.forget(&grant());
    assert!(source.token(&grant()).await.unwrap().token.starts_with("2:"));
}

#[tokio::test]
async fn outgoing_request_carries_the_token() {
    let (source, _, _running) = source(|_| false).await;
    let sent = service_fn(|request: Request<()>| async move {
        let value = request.headers()[AUTHORIZATION].clone();
        assert!(value.is_sensitive());
        Ok::<_, std::io::Error>(Response::new(value))
    });
    let service = Authorize::new(source, grant()).layer(sent);
    let request = Request::builder().header(AUTHORIZATION, "Basic mine").body(()).unwrap();
    let value = service.oneshot(request).await.unwrap().into_body();
    assert_eq!(value.to_str().unwrap(), r#"Bearer 1::orders:["billing"]:[]"#);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let (source, _, _running) = source(|_| true).await;
    let never = service_fn(|_: Request<tonic::body::Body>| async {
        panic!("sent");
        #[allow(unreachable_code)]
        Ok::<Response<tonic::body::Body>, std::io::Error>(Response::default())
    });
    let authorize = Authorize::new(source, grant());
    let error = authorize.layer(never).oneshot(Request::default()).await.unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(Error::Unavailable { .. })),
        "{error:?}"
    );

    // A tonic client ends with the code that the sidecar answered.
    let mut client = TokenServiceClient::new(authorize.layer(never));
    let status = client.get_jwks(v1::GetJwksRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}
