//! The clients against a fake.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokensidecar::{
    Client, Error, IssueRequest, IssuedToken, KeyUse, Options, Reason, RefreshRequest, RevokeKeysRequest,
    RevokeRequest, RotateRequest, ValidateRequest, ValidatedToken,
    v1::{self, issue_request::ClaimsSource, issue_result, validate_result},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, UnixStream},
    sync::oneshot,
};
use tonic::{Code, Request, Status};

use crate::fake::{Fake, bad_field, failure, failure_with, issued, item_error, retry_after, socket, time, validated};

/// What a handler saw, for the test to look at.
type Seen<T> = Arc<Mutex<Vec<T>>>;

fn remember<T>(seen: &Seen<T>, value: T) -> usize {
    let mut seen = seen.lock().unwrap();
    seen.push(value);
    seen.len()
}

fn ask() -> ValidateRequest {
    ValidateRequest::new("t", ["orders"])
}

fn want() -> IssueRequest {
    IssueRequest::new("ada", ["orders"])
}

async fn decoded<T: serde::de::DeserializeOwned>(claims: &'static str) -> Result<T, serde_json::Error> {
    let fake = Fake::default().validate(move |_| async move { Ok(validated("ada", claims)) });
    let (client, _running) = fake.client().await;
    client.validate(ask()).await.unwrap().claims()
}

#[tokio::test]
async fn issue_sends_what_was_asked_for() {
    let seen = Seen::default();
    let sent = seen.clone();
    let fake = Fake::default().issue(move |request| {
        remember(&sent, request.into_inner());
        async { Ok(issued("a.b.c")) }
    });
    let (client, _running) = fake.client().await;
    let claims = json!({"big": i64::MAX, "most": u64::MAX, "text": "<ä&"});
    let request = want()
        .profile("p")
        .ttl(Duration::from_millis(1500))
        .client_id("web")
        .scopes(["read"]);
    let token = client.issue(request.claims(&claims).unwrap()).await.unwrap();

    let sent = &seen.lock().unwrap()[0];
    assert_eq!(
        (&sent.profile[..], &sent.subject[..], &sent.client_id[..]),
        ("p", "ada", "web")
    );
    assert_eq!(
        (&sent.audiences[..], &sent.scopes[..]),
        (&["orders".to_owned()][..], &["read".to_owned()][..])
    );
    let ttl = prost_types::Duration {
        seconds: 1,
        nanos: 500_000_000,
    };
    assert_eq!(sent.ttl, Some(ttl));
    let json = r#"{"big":9223372036854775807,"most":18446744073709551615,"text":"<ä&"}"#;
    assert!(sent.claims_source == Some(ClaimsSource::ClaimsJson(json.into())));
    assert!(!sent.with_refresh_token);
    assert_eq!((&token.token[..], token.refresh_token), ("a.b.c", None));
    assert_eq!(token.issue_time, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
    assert_eq!(token.expire_time, SystemTime::UNIX_EPOCH + Duration::from_secs(1_300));
}

#[tokio::test]
async fn raw_claims_are_sent_byte_for_byte_and_none_stay_unset() {
    let seen = Seen::default();
    let sent = seen.clone();
    let fake = Fake::default().issue(move |request| {
        remember(&sent, request.into_inner());
        async { Ok(issued("a.b.c")) }
    });
    let (client, _running) = fake.client().await;
    let text = "{ \"b\" : 1.0,\n\"a\":\"\\u0041<\" }";
    let raw = RawValue::from_string(text.into()).unwrap();
    client.issue(want().claims(&raw).unwrap()).await.unwrap();
    client.issue(want()).await.unwrap();
    client.issue(want().ttl(Duration::MAX)).await.unwrap();
    let sent = seen.lock().unwrap();
    assert!(sent[0].claims_source == Some(ClaimsSource::ClaimsJson(text.into())));
    assert!(sent[1].claims_source.is_none() && sent[1].ttl.is_none() && sent[1].profile.is_empty());
    assert_eq!(
        sent[2].ttl.unwrap().seconds,
        315_576_000_000,
        "refused by the sidecar, not shortened"
    );
}

#[test]
fn claims_without_a_json_form_are_an_invalid_request() {
    let error = want().claims(&HashMap::from([((1, 2), 3)])).unwrap_err();
    let Error::InvalidRequest { fields, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(fields[0].name, "claims_json");
}

#[tokio::test]
async fn claims_are_exact() {
    #[derive(Deserialize)]
    struct Claims {
        most: u64,
        least: i64,
        name: String,
    }
    let text = r#"{"most":18446744073709551615,"least":-9223372036854775808,"name":"Zoë 🦊","amount":1.50}"#;
    let claims: Claims = decoded(text).await.unwrap();
    assert_eq!(
        (claims.most, claims.least, &claims.name[..]),
        (u64::MAX, i64::MIN, "Zoë 🦊")
    );
    let open: serde_json::Value = decoded(text).await.unwrap();
    assert_eq!(open["most"], u64::MAX);
    let raw: HashMap<String, Box<RawValue>> = decoded(text).await.unwrap();
    assert_eq!(raw["amount"].get(), "1.50");
}

#[tokio::test]
async fn claims_of_another_form_are_an_error() {
    #[derive(Debug, Deserialize)]
    struct Claims {
        #[allow(dead_code)]
        role: String,
    }
    for text in [
        "",
        "{",
        r#"{"role":1}"#,
        "{}",
        r#"{"ROLE":"admin"}"#,
        r#"{"role":"guest","role":"admin"}"#,
    ] {
        decoded::<Claims>(text).await.unwrap_err();
    }
}

#[tokio::test]
async fn rejected_token_has_the_reason_and_the_request_id() {
    let fake = Fake::default().validate(|_| async {
        Err(failure(
            Code::Unauthenticated,
            Reason::TokenExpired,
            "the token has expired",
        ))
    });
    let (client, _running) = fake.client().await;
    let error = client.validate(ask()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Rejected {
                reason: Reason::TokenExpired,
                ..
            }
        ),
        "{error:?}"
    );
    let answer = error.answer();
    assert_eq!(
        (answer.code, answer.reason),
        (Code::Unauthenticated, Reason::TokenExpired)
    );
    assert_eq!(
        (&answer.message[..], answer.request_id.as_deref()),
        ("the token has expired", Some("r1"))
    );
    let text = "tokensidecar: token rejected (TOKEN_EXPIRED): the token has expired [request id r1]";
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn unauthenticated_without_details_is_a_rejected_token() {
    let fake = Fake::default().validate(|_| async { Err(Status::unauthenticated("no")) });
    let (client, _running) = fake.client().await;
    let error = client.validate(ask()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Rejected {
                reason: Reason::Unspecified,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.answer().request_id, None);
}

#[tokio::test]
async fn other_failures_are_told_apart() {
    for (code, reason, variant) in [
        (Code::InvalidArgument, Reason::RequestInvalid, "InvalidRequest"),
        (Code::PermissionDenied, Reason::CallerDenied, "Denied"),
        (Code::PermissionDenied, Reason::CallerUnidentified, "Denied"),
        (Code::Aborted, Reason::RingChanged, "RingChanged"),
        (Code::Unavailable, Reason::StateStale, "Unavailable"),
        (Code::Unavailable, Reason::SubjectRevoked, "Unavailable"),
        (Code::ResourceExhausted, Reason::Overloaded, "Unavailable"),
        (Code::ResourceExhausted, Reason::Unspecified, "Failed"), // a message too large
        (Code::DeadlineExceeded, Reason::Unspecified, "Unavailable"),
        (Code::Cancelled, Reason::Unspecified, "Unavailable"), // by the sidecar as it ends
        (Code::Unimplemented, Reason::NotImplemented, "Failed"),
        (Code::Internal, Reason::Internal, "Failed"),
        (Code::Unknown, Reason::Unspecified, "Failed"),
    ] {
        let fake = Fake::default().issue(move |_| async move { Err(failure(code, reason, "words")) });
        let (client, _running) = fake.client().await;
        let error = client.issue(want()).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(variant), "{code:?}: {error:?}");
        assert_eq!((error.answer().code, error.answer().reason), (code, reason));
    }
}

#[tokio::test]
async fn invalid_request_names_its_fields_and_overload_says_when() {
    let fake = Fake::default()
        .issue(|_| async {
            let details = vec![bad_field("audiences", "is required")];
            Err(failure_with(
                Code::InvalidArgument,
                Reason::RequestInvalid,
                "no",
                details,
            ))
        })
        .validate(|_| async {
            let details = vec![retry_after(Duration::from_secs(2))];
            Err(failure_with(Code::ResourceExhausted, Reason::Overloaded, "no", details))
        });
    let (client, _running) = fake.client().await;
    let error = client.issue(want()).await.unwrap_err();
    let Error::InvalidRequest { fields, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (&fields[0].name[..], &fields[0].problem[..], fields.len()),
        ("audiences", "is required", 1)
    );
    let error = client.validate(ask()).await.unwrap_err();
    let Error::Unavailable { retry_after, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(2)));
}

/// The deadline that a call came with.
fn deadline<T>(request: &Request<T>) -> Duration {
    let text = request
        .metadata()
        .get("grpc-timeout")
        .expect("a deadline")
        .to_str()
        .unwrap();
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().unwrap();
    match unit {
        "n" => Duration::from_nanos(number),
        "u" => Duration::from_micros(number),
        "m" => Duration::from_millis(number),
        "S" => Duration::from_secs(number),
        "M" => Duration::from_secs(60 * number),
        "H" => Duration::from_secs(3600 * number),
        unit => panic!("{unit}"),
    }
}

/// A fake that notes each call's deadline and answers it.
fn noting(seen: &Seen<(&'static str, Duration)>) -> Fake {
    macro_rules! note {
        ($name:literal, $answer:expr) => {{
            let seen = seen.clone();
            move |request| {
                remember(&seen, ($name, deadline(&request)));
                async { $answer }
            }
        }};
    }
    Fake::default()
        .issue(note!("issue", Ok(issued("t"))))
        .validate(note!(
            "validate",
            Err(failure(Code::Unauthenticated, Reason::TokenInvalid, "no"))
        ))
        .batch_issue(note!("batch_issue", Ok(v1::BatchIssueResponse::default())))
        .batch_validate(note!("batch_validate", Ok(v1::BatchValidateResponse::default())))
        .refresh(note!(
            "refresh",
            Ok(v1::RefreshResponse {
                tokens: Some(issued("t"))
            })
        ))
        .revoke(note!(
            "revoke",
            Ok(v1::RevokeResponse {
                effective_time: time(1),
                revocation_revision: 1
            })
        ))
        .rotate(note!(
            "rotate",
            Ok(v1::RotateResponse {
                activate_time: time(1),
                ..Default::default()
            })
        ))
        .list_keys(note!("list_keys", Ok(v1::ListKeysResponse::default())))
        .revoke_keys(note!(
            "revoke_keys",
            Ok(v1::RevokeKeysResponse {
                effective_time: time(1),
                ..Default::default()
            })
        ))
}

#[tokio::test]
async fn every_call_has_a_deadline() {
    let seen = Seen::default();
    let (client, _running) = noting(&seen).client().await;
    let (admin, _other) = noting(&seen).admin().await;
    client.validate(ask()).await.unwrap_err(); // an answer all the same
    client.validate(ask()).await.unwrap_err();
    client.issue(want()).await.unwrap();
    client.batch_issue([]).await.unwrap();
    client.batch_validate([]).await.unwrap();
    client.refresh(RefreshRequest::new("r")).await.unwrap();
    client.revoke(RevokeRequest::new("t")).await.unwrap();
    admin.rotate(RotateRequest::new("")).await.unwrap();
    admin.list_keys("").await.unwrap();
    admin
        .revoke_keys(RevokeKeysRequest::new("default", ["k"]))
        .await
        .unwrap();

    let seen = seen.lock().unwrap();
    let (quarter, second) = (Duration::from_millis(250), Duration::from_secs(1));
    assert_eq!(seen.len(), 10);
    for (number, (name, left)) in seen.iter().enumerate() {
        let (least, most) = match number {
            0 => (second, 2 * second),
            1 => (Duration::ZERO, quarter),
            _ => (quarter, second),
        };
        assert!(least < *left && *left <= most, "{name} has {left:?}");
    }
}

#[tokio::test]
async fn deadlines_are_settable() {
    let seen = Seen::default();
    let minute = Duration::from_secs(60);
    let options = Options::new().validate_timeout(60 * minute).timeout(120 * minute);
    let (client, _running) = noting(&seen).client_with(options).await;
    client.validate(ask()).await.unwrap_err();
    client.issue(want()).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen[0].1 > 59 * minute && seen[0].1 <= 60 * minute, "{:?}", seen[0]);
    assert!(seen[1].1 > 119 * minute && seen[1].1 <= 120 * minute, "{:?}", seen[1]);
}

#[tokio::test]
async fn passed_deadline_is_unavailable() {
    let fake = Fake::default().issue(|_| std::future::pending());
    let (client, _running) = fake
        .client_with(Options::new().timeout(Duration::from_millis(50)))
        .await;
    let start = Instant::now();
    let error = client.issue(want()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(error.answer().code, Code::DeadlineExceeded);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn dropped_call_is_cancelled_in_the_sidecar() {
    struct Told(Option<oneshot::Sender<()>>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.take().map(|told| told.send(()));
        }
    }
    let (told, cancelled) = oneshot::channel();
    let told = Mutex::new(Some(told));
    let fake = Fake::default().issue(move |_| {
        let told = Told(told.lock().unwrap().take());
        async move {
            let _told = told;
            std::future::pending().await
        }
    });
    let (client, _running) = fake.client_with(Options::new().timeout(Duration::from_secs(60))).await;
    tokio::time::timeout(Duration::from_millis(100), client.issue(want()))
        .await
        .unwrap_err();
    tokio::time::timeout(Duration::from_secs(5), cancelled)
        .await
        .unwrap()
        .unwrap();
}

/// Notes the request id of a call, and fails every other one.
macro_rules! every_other_time {
    ($seen:expr, $answer:expr) => {{
        let seen = $seen.clone();
        move |request: Request<_>| {
            let odd = remember(&seen, request.into_inner().request_id) % 2 == 1;
            async move {
                if odd {
                    return Err(failure(Code::Unavailable, Reason::StoreUnavailable, "not now"));
                }
                Ok($answer)
            }
        }
    }};
}

#[tokio::test]
async fn request_id_is_fresh_per_call_and_kept_over_retries() {
    let seen: Seen<String> = Seen::default();
    let rotated = || v1::RotateResponse {
        activate_time: time(1),
        ..Default::default()
    };
    let fake = || {
        Fake::default()
            .validate(every_other_time!(seen, validated("ada", "{}")))
            .rotate(every_other_time!(seen, rotated()))
    };
    let (client, _running) = fake().client().await;
    let (admin, _other) = fake().admin().await;
    for _ in 0..2 {
        client.validate(ask()).await.unwrap();
        admin.rotate(RotateRequest::new("default")).await.unwrap();
    }
    client.validate(ask().request_id("mine")).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 10);
    for pair in seen.chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
    assert_eq!(seen[8], "mine");
    assert!(seen[..8].iter().all(|id| id.len() == 32));
    assert_eq!(seen[..8].iter().collect::<HashSet<_>>().len(), 4);
}

#[tokio::test]
async fn what_is_not_idempotent_is_not_repeated_and_the_rest_three_times() {
    let seen: Seen<&str> = Seen::default();
    macro_rules! down {
        ($name:literal) => {{
            let seen = seen.clone();
            move |_| {
                remember(&seen, $name);
                async { Err(failure(Code::Unavailable, Reason::StateStale, "not just now")) }
            }
        }};
    }
    let fake = || {
        Fake::default()
            .issue(down!("issue"))
            .batch_issue(down!("batch_issue"))
            .refresh(down!("refresh"))
            .revoke(down!("revoke"))
            .revoke_keys(down!("revoke_keys"))
            .validate(down!("validate"))
            .batch_validate(down!("batch_validate"))
            .rotate(down!("rotate"))
            .list_keys(down!("list_keys"))
    };
    let (client, _running) = fake().client().await;
    let (admin, _other) = fake().admin().await;
    let errors = [
        client.issue(want()).await.unwrap_err(),
        client.batch_issue([want()]).await.unwrap_err(),
        client.refresh(RefreshRequest::new("r")).await.unwrap_err(),
        client.revoke(RevokeRequest::new("t")).await.unwrap_err(),
        admin
            .revoke_keys(RevokeKeysRequest::new("default", ["k"]))
            .await
            .unwrap_err(),
        client.validate(ask()).await.unwrap_err(),
        client.batch_validate([ask()]).await.unwrap_err(),
        admin.rotate(RotateRequest::new("default")).await.unwrap_err(),
        admin.list_keys("").await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| matches!(error, Error::Unavailable { .. })));
    let mut times = HashMap::new();
    for name in seen.lock().unwrap().iter() {
        *times.entry(*name).or_insert(0) += 1;
    }
    for name in ["issue", "batch_issue", "refresh", "revoke", "revoke_keys"] {
        assert_eq!(times[name], 1, "{name}");
    }
    for name in ["validate", "batch_validate", "rotate", "list_keys"] {
        assert_eq!(times[name], 3, "{name}");
    }
}

#[tokio::test]
async fn batch_has_a_result_per_item() {
    let fake = Fake::default()
        .batch_validate(|request: Request<v1::BatchValidateRequest>| async move {
            let results = request.into_inner().requests.into_iter().map(|request| {
                let result = if request.token == "good" {
                    validate_result::Result::Response(validated(&request.request_id, "{}"))
                } else {
                    let error = item_error(Code::Unauthenticated, Reason::TokenRevoked, "revoked", "");
                    validate_result::Result::Error(error)
                };
                v1::ValidateResult { result: Some(result) }
            });
            Ok(v1::BatchValidateResponse {
                results: results.collect(),
            })
        })
        .batch_issue(|request: Request<v1::BatchIssueRequest>| async move {
            let error = item_error(
                Code::InvalidArgument,
                Reason::RequestInvalid,
                "audiences: is required",
                "audiences",
            );
            let response = issued(&request.into_inner().requests[0].subject);
            let results = [
                issue_result::Result::Response(response),
                issue_result::Result::Error(error),
            ];
            let results = results.map(|result| v1::IssueResult { result: Some(result) });
            Ok(v1::BatchIssueResponse {
                results: results.into(),
            })
        });
    let (client, _running) = fake.client().await;
    let tokens = ["good", "bad", "good"].map(|token| ValidateRequest::new(token, ["orders"]));
    let results = client.batch_validate(tokens).await.unwrap();
    let [
        Ok(first),
        Err(Error::Rejected {
            reason: Reason::TokenRevoked,
            ..
        }),
        Ok(last),
    ] = &results[..]
    else {
        panic!("{results:?}")
    };
    assert!(
        !first.subject.is_empty() && first.subject != last.subject,
        "each has a request id of its own"
    );

    let results = client.batch_issue([want(), want()]).await.unwrap();
    let [Ok(token), Err(Error::InvalidRequest { fields, .. })] = &results[..] else {
        panic!("{results:?}")
    };
    assert_eq!(token.token, "ada");
    assert_eq!(
        (&fields[0].name[..], &fields[0].problem[..]),
        ("audiences", "is required")
    );
}

#[tokio::test]
async fn answer_that_breaks_the_contract_is_no_success() {
    let without = vec![
        vec![],
        vec![v1::ValidateResult { result: None }],
        vec![v1::ValidateResult {
            result: Some(validate_result::Result::Error(v1::ItemError::default())),
        }],
    ];
    for results in without {
        let fake = Fake::default().batch_validate(move |_| {
            let results = results.clone();
            async { Ok(v1::BatchValidateResponse { results }) }
        });
        let (client, _running) = fake.client().await;
        match client.batch_validate([ask()]).await {
            Ok(results) => assert!(matches!(results[..], [Err(Error::Failed { .. })]), "{results:?}"),
            Err(error) => assert!(matches!(error, Error::Failed { .. }), "{error:?}"),
        }
    }
    let fake = Fake::default().validate(|_| async { Ok(v1::ValidateResponse::default()) });
    let (client, _running) = fake.client().await;
    let error = client.validate(ask()).await.unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "without exp: {error:?}");
}

#[tokio::test]
async fn refresh_gives_a_new_pair_and_revoke_says_when() {
    let seen = Seen::default();
    let refreshed = seen.clone();
    let revoked = seen.clone();
    let fake = Fake::default()
        .refresh(move |request: Request<v1::RefreshRequest>| {
            let request = request.into_inner();
            remember(
                &refreshed,
                format!("{} {:?} {:?}", request.refresh_token, request.audiences, request.scopes),
            );
            async {
                let pair = v1::IssueResponse {
                    refresh_token: "r2".into(),
                    refresh_expire_time: time(9_000),
                    ..issued("t2")
                };
                Ok(v1::RefreshResponse { tokens: Some(pair) })
            }
        })
        .revoke(move |request: Request<v1::RevokeRequest>| {
            let request = request.into_inner();
            remember(&revoked, format!("{} {}", request.token, request.reason));
            async {
                Ok(v1::RevokeResponse {
                    revocation_revision: 7,
                    effective_time: time(2_000),
                })
            }
        });
    let (client, _running) = fake.client().await;
    let request = RefreshRequest::new("r1").audiences(["orders"]).scopes(["read"]);
    let pair = client.refresh(request).await.unwrap();
    assert_eq!((&pair.token[..], pair.refresh_token.as_deref()), ("t2", Some("r2")));
    assert_eq!(
        pair.refresh_expire_time,
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(9_000))
    );
    let revocation = client.revoke(RevokeRequest::new("t2").reason("logout")).await.unwrap();
    assert_eq!(revocation.revocation_revision, 7);
    assert_eq!(
        revocation.effective_time,
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000)
    );
    assert_eq!(*seen.lock().unwrap(), [r#"r1 ["orders"] ["read"]"#, "t2 logout"]);
}

#[tokio::test]
async fn reused_refresh_token_is_rejected_with_the_reason() {
    let fake =
        Fake::default().refresh(|_| async { Err(failure(Code::Unauthenticated, Reason::RefreshReused, "revoked")) });
    let (client, _running) = fake.client().await;
    let error = client.refresh(RefreshRequest::new("r1")).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Rejected {
                reason: Reason::RefreshReused,
                ..
            }
        ),
        "{error:?}"
    );
}

fn key(key_id: &str) -> v1::Key {
    v1::Key {
        key_id: key_id.into(),
        key_use: KeyUse::Signature.into(),
        create_time: time(1),
        activate_time: time(2),
        ..v1::Key::default()
    }
}

#[tokio::test]
async fn admin_lists_all_pages_and_rotates_and_revokes_by_name() {
    let seen = Seen::default();
    let rotated = seen.clone();
    let revoked = seen.clone();
    let fake = Fake::default()
        .list_keys(|request: Request<v1::ListKeysRequest>| async move {
            let request = request.into_inner();
            let (key_id, next) = match (&request.profile[..], &request.page_token[..]) {
                ("endless", _) => ("k", "again"),
                (_, "") => ("k1", "2"),
                _ => ("k2", ""),
            };
            Ok(v1::ListKeysResponse {
                keys: vec![key(key_id)],
                next_page_token: next.into(),
            })
        })
        .rotate(move |request: Request<v1::RotateRequest>| {
            let request = request.into_inner();
            let revision = request.expected_ring_revision;
            remember(
                &rotated,
                format!(
                    "{} {:?} {revision} {}",
                    request.profile,
                    request.key_use(),
                    request.reason
                ),
            );
            async {
                Ok(v1::RotateResponse {
                    keys: vec![key("k3")],
                    activate_time: time(5),
                    ring_revision: 4,
                })
            }
        })
        .revoke_keys(move |request: Request<v1::RevokeKeysRequest>| {
            let request = request.into_inner();
            remember(
                &revoked,
                format!("{} {:?} {}", request.profile, request.key_ids, request.reason),
            );
            async {
                Ok(v1::RevokeKeysResponse {
                    effective_time: time(3),
                    ring_revision: 7,
                    keys: vec![],
                })
            }
        });
    let (admin, _running) = fake.admin().await;
    let keys = admin.list_keys("").await.unwrap();
    assert_eq!((&keys[0].key_id[..], &keys[1].key_id[..], keys.len()), ("k1", "k2", 2));
    assert_eq!((keys[0].key_use, keys[0].retire_time), (KeyUse::Signature, None));
    assert!(matches!(admin.list_keys("endless").await, Err(Error::Failed { .. })));
    let request = RotateRequest::new("p")
        .key_use(KeyUse::Signature)
        .expected_ring_revision(3)
        .reason("due");
    let rotation = admin.rotate(request).await.unwrap();
    assert_eq!((rotation.ring_revision, &rotation.keys[0].key_id[..]), (4, "k3"));
    let revocation = admin
        .revoke_keys(RevokeKeysRequest::new("p", ["k1"]).reason("lost"))
        .await
        .unwrap();
    assert_eq!(revocation.ring_revision, 7);
    assert_eq!(*seen.lock().unwrap(), ["p Signature 3 due", r#"p ["k1"] lost"#]);
}

#[tokio::test]
async fn client_reconnects_to_a_restarted_sidecar() {
    let fake = || Fake::default().validate(|_| async { Ok(validated("ada", "{}")) });
    let socket = socket();
    let running = fake().start_at(&socket);
    let client = Client::connect_with(Options::new().address(&running.address))
        .await
        .unwrap();
    running.stop().await;
    let start = Instant::now();
    let error = client.validate(ask()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(1));
    let _running = fake().start_at(&socket);
    client.validate(ask()).await.unwrap();
}

#[tokio::test]
async fn connection_that_is_cut_under_a_call_is_unavailable() {
    let seen = Seen::default();
    let begun = seen.clone();
    let fake = Fake::default().issue(move |_| {
        remember(&begun, ());
        std::future::pending()
    });
    let running = fake.start();
    let target = running.address.trim_start_matches("unix:").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let wire = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = UnixStream::connect(target).await.unwrap();
        copy_bidirectional(&mut near, &mut far).await
    });
    let options = Options::new().address(address).timeout(Duration::from_secs(60));
    let client = Client::connect_with(options).await.unwrap();
    let call = tokio::spawn(async move { client.issue(want()).await });
    while seen.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    wire.abort();
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(seen.lock().unwrap().len(), 1, "issued twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_while_another_sidecar_takes_over() {
    let fake = || {
        Fake::default()
            .issue(|_| async { Ok(issued("t")) })
            .validate(|_| async { Ok(validated("ada", "{}")) })
    };
    let socket = socket();
    let mut running = fake().start_at(&socket);
    let client = Client::connect_with(Options::new().address(&running.address))
        .await
        .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (client, over) = (client.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    client.validate(ask()).await.unwrap();
                    if let Err(error) = client.issue(want()).await {
                        // It was sent, and nobody knows whether it arrived. What was never sent is sent again.
                        assert!(!error.to_string().contains("connection closed"), "{error}");
                    }
                }
            })
        })
        .collect();
    for _ in 0..10 {
        let next = fake().start_at(&socket);
        std::mem::replace(&mut running, next).stop().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn what_the_sidecar_refused_to_take_on_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let paths = Seen::default();
    let seen = paths.clone();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(taken) = connection.accept().await {
            let (request, mut respond) = taken.unwrap();
            if remember(&seen, request.uri().path().to_owned()) == 2 {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                continue;
            }
            let denied = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "7");
            respond.send_response(denied.body(()).unwrap(), true).unwrap();
        }
    });
    let client = Client::connect_with(Options::new().address(address)).await.unwrap();
    let error = client.issue(want()).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    let issue = "/tokensidecar.v1.TokenService/Issue";
    assert_eq!(*paths.lock().unwrap(), ["/grpc.health.v1.Health/Check", issue, issue]);
    server.abort();
}

#[tokio::test]
async fn sidecar_that_is_still_starting_is_waited_for() {
    let socket = socket();
    let path = socket.clone();
    let running = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Fake::default().start_at(&path)
    });
    Client::connect_with(Options::new().address(format!("unix:{}", socket.display())))
        .await
        .unwrap();
    drop(running.await.unwrap());
}

#[tokio::test]
async fn tokens_and_claims_are_not_printed() {
    let canary = "canary";
    let fake = Fake::default()
        .validate(move |_| async move { Ok(validated(canary, r#"{"a":"canary"}"#)) })
        .issue(move |_| async move {
            Ok(v1::IssueResponse {
                refresh_token: canary.into(),
                ..issued(canary)
            })
        });
    let (client, _running) = fake.client().await;
    let token: ValidatedToken = client.validate(ask()).await.unwrap();
    let new: IssuedToken = client.issue(want()).await.unwrap();
    assert_eq!((&token.subject[..], &new.token[..]), (canary, canary));
    let request = IssueRequest::new(canary, ["orders"])
        .claims(&json!({"a": canary}))
        .unwrap();
    let source = v1::issue_request::ClaimsSource::ClaimsJson(canary.into());
    let shown = [
        format!("{token:?}{new:?}{request:?}"),
        format!("{:?}", ValidateRequest::new(canary, ["orders"])),
        format!("{:?}{:?}", RefreshRequest::new(canary), RevokeRequest::new(canary)),
        format!(
            "{:?}",
            v1::IssueRequest {
                subject: canary.into(),
                claims_source: Some(source.clone()),
                ..Default::default()
            }
        ),
        format!("{source:?}{:?}{:?}", issued(canary), validated(canary, canary)),
        format!(
            "{:?}",
            v1::BatchValidateRequest {
                requests: vec![v1::ValidateRequest {
                    token: canary.into(),
                    ..Default::default()
                }]
            }
        ),
        format!(
            "{:?}",
            v1::RefreshResponse {
                tokens: Some(issued(canary))
            }
        ),
        format!(
            "{:?}",
            v1::RefreshRequest {
                refresh_token: canary.into(),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            v1::RevokeRequest {
                token: canary.into(),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            v1::DpopProof {
                proof: canary.into(),
                ..Default::default()
            }
        ),
    ];
    for text in shown {
        assert!(!text.contains(canary) && text.len() > 10, "{text}");
    }
}
