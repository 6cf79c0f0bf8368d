//! The driver of this client: commands in, answers out, as `clients/conformance/README.md` says.

use std::{
    collections::BTreeMap,
    io::{Write as _, stdin, stdout},
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokensidecar::{
    Admin, Client, Error, IssueRequest, IssuedToken, Key, Options, Reason, RefreshRequest, RevokeKeysRequest,
    RevokeRequest, RotateRequest, ValidateRequest, ValidatedToken,
};

/// The arguments of all commands; each takes its own.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Command {
    r#do: String,
    address: String,
    start_timeout: Option<f64>,
    timeout: Option<f64>,
    validate_timeout: Option<f64>,
    tls: Option<Value>,
    token: String,
    tokens: Vec<String>,
    audiences: Vec<String>,
    profile: String,
    profiles: Vec<String>,
    subject: String,
    ttl: Option<u64>,
    scopes: Vec<String>,
    claims_json: Option<String>,
    jwk_thumbprint: Option<String>,
    with_refresh_token: bool,
    refresh_token: String,
    required_scopes: Vec<String>,
    request_id: String,
    requests: Vec<Command>,
    key_ids: Vec<String>,
    expected_ring_revision: u64,
    callers: usize,
    seconds: f64,
    rotate_after: Option<f64>,
}

fn failed(error: &Error) -> Value {
    let (kind, fields) = match error {
        Error::Rejected { .. } => ("rejected", vec![]),
        Error::InvalidRequest { fields, .. } => ("invalid", fields.iter().map(|field| field.name.clone()).collect()),
        Error::Denied { .. } => ("denied", vec![]),
        Error::RingChanged { .. } => ("changed", vec![]),
        Error::Unavailable { .. } => ("unavailable", vec![]),
        _ => ("failed", vec![]),
    };
    json!({ "error": kind, "reason": reason(error), "fields": fields })
}

fn reason(error: &Error) -> &'static str {
    match error.answer().reason {
        Reason::Unspecified => "",
        reason => reason.as_str_name(),
    }
}

fn end(result: Result<(), Error>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => {
            let kind = failed(&error)["error"].as_str().unwrap_or_default().to_owned();
            format!("{kind} {}", reason(&error)).trim().to_owned()
        }
    }
}

fn answered<T>(result: Result<T, Error>, facts: impl FnOnce(T) -> Value) -> Value {
    match result {
        Ok(found) => json!({ "ok": facts(found) }),
        Err(error) => failed(&error),
    }
}

fn issued(token: IssuedToken) -> Value {
    json!({
        "token": token.token, "token_id": token.token_id, "key_id": token.key_id, "scopes": token.scopes,
        "refresh_token": token.refresh_token.unwrap_or_default(),
    })
}

fn validated(token: &ValidatedToken) -> Value {
    json!({
        "subject": token.subject, "profile": token.profile, "audiences": token.audiences, "scopes": token.scopes,
        "client_id": token.client_id, "key_id": token.key_id, "claims_json": token.claims_json,
    })
}

fn keys(found: &[Key]) -> Value {
    let lower = |name: &str| name.rsplit('_').next().unwrap_or_default().to_lowercase();
    let each = found.iter();
    let mut all: Vec<_> = each
        .map(|key| {
            format!(
                "{} {}",
                lower(key.key_use.as_str_name()),
                lower(key.state.as_str_name())
            )
        })
        .collect();
    all.sort();
    json!({ "keys": all })
}

impl Command {
    fn issue(&self) -> Result<IssueRequest, Error> {
        let mut request = IssueRequest::new(&self.subject, &self.audiences)
            .profile(&self.profile)
            .scopes(&self.scopes);
        if let Some(ttl) = self.ttl {
            request = request.ttl(Duration::from_secs(ttl));
        }
        if self.with_refresh_token {
            request = request.with_refresh_token();
        }
        match &self.claims_json {
            Some(text) => request.claims(&RawValue::from_string(text.clone()).expect("claims are JSON")),
            None => Ok(request),
        }
    }

    fn validate(&self, token: &str) -> ValidateRequest {
        ValidateRequest::new(token, &self.audiences)
            .profiles(&self.profiles)
            .required_scopes(&self.required_scopes)
            .request_id(&self.request_id)
    }

    fn options(&self) -> Options {
        let mut options = Options::new().address(&self.address);
        if let Some(seconds) = self.start_timeout {
            options = options.start_timeout(Duration::from_secs_f64(seconds));
        }
        if let Some(seconds) = self.timeout {
            options = options.timeout(Duration::from_secs_f64(seconds));
        }
        if let Some(seconds) = self.validate_timeout {
            options = options.validate_timeout(Duration::from_secs_f64(seconds));
        }
        options
    }
}

/// One client of each plane, the last that was connected.
#[derive(Default)]
struct Driver {
    client: Option<Client>,
    admin: Option<Admin>,
}

impl Driver {
    fn client(&self) -> &Client {
        self.client.as_ref().expect("connect comes first")
    }

    fn admin(&self) -> &Admin {
        self.admin.as_ref().expect("connect_admin comes first")
    }

    async fn answer(&mut self, command: Command) -> Value {
        if command.tls.is_some() {
            return json!({ "error": "lacks", "reason": "TLS", "fields": [] });
        }
        if command.jwk_thumbprint.is_some() {
            return json!({ "error": "lacks", "reason": "bound tokens", "fields": [] });
        }
        match command.r#do.as_str() {
            "connect" => answered(Client::connect_with(command.options()).await, |client| {
                self.client = Some(client);
                json!({})
            }),
            "connect_admin" => answered(Admin::connect_with(command.options()).await, |admin| {
                self.admin = Some(admin);
                json!({})
            }),
            "issue" => match command.issue() {
                Ok(request) => answered(self.client().issue(request).await, issued),
                Err(error) => failed(&error),
            },
            "validate" => answered(
                self.client().validate(command.validate(&command.token)).await,
                |token| validated(&token),
            ),
            "batch_issue" => match command
                .requests
                .iter()
                .map(Command::issue)
                .collect::<Result<Vec<_>, _>>()
            {
                Ok(requests) => answered(self.client().batch_issue(requests).await, |results| {
                    let each = results.into_iter().map(|result| answered(result, issued));
                    json!({ "results": each.collect::<Vec<_>>() })
                }),
                Err(error) => failed(&error),
            },
            "batch_validate" => {
                let requests = command.tokens.iter().map(|token| command.validate(token));
                answered(self.client().batch_validate(requests).await, |results| {
                    let each = results
                        .into_iter()
                        .map(|result| answered(result, |token| validated(&token)));
                    json!({ "results": each.collect::<Vec<_>>() })
                })
            }
            "refresh" => {
                let request = RefreshRequest::new(&command.refresh_token).scopes(&command.scopes);
                answered(self.client().refresh(request).await, issued)
            }
            "revoke" => {
                let request = RevokeRequest::new(&command.token);
                answered(self.client().revoke(request).await, |_| json!({}))
            }
            "rotate" => {
                let request =
                    RotateRequest::new(&command.profile).expected_ring_revision(command.expected_ring_revision);
                answered(self.admin().rotate(request).await, |rotation| keys(&rotation.keys))
            }
            "keys" => answered(self.admin().list_keys(&command.profile).await, |found| keys(&found)),
            "revoke_keys" => {
                let request = RevokeKeysRequest::new(&command.profile, &command.key_ids);
                answered(self.admin().revoke_keys(request).await, |revocation| {
                    keys(&revocation.keys)
                })
            }
            "traffic" => self.traffic(command).await,
            other => json!({ "error": "lacks", "reason": other, "fields": [] }),
        }
    }

    /// Each caller goes on until the time is over, and at least once; the admin client may rotate meanwhile.
    async fn traffic(&self, command: Command) -> Value {
        let until = Instant::now() + Duration::from_secs_f64(command.seconds);
        let callers: Vec<_> = (0..command.callers)
            .map(|_| {
                let (client, command) = (self.client().clone(), command.clone());
                tokio::spawn(async move {
                    let mut ends = vec![end(turn(&client, &command).await)];
                    while Instant::now() < until {
                        ends.push(end(turn(&client, &command).await));
                    }
                    ends
                })
            })
            .collect();
        if let Some(seconds) = command.rotate_after {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            if let Err(error) = self.admin().rotate(RotateRequest::new(&command.profile)).await {
                return failed(&error);
            }
        }
        let mut ends = BTreeMap::<String, usize>::new();
        for caller in callers {
            for ended in caller.await.expect("a caller does not panic") {
                *ends.entry(ended).or_default() += 1;
            }
        }
        json!({ "ok": { "ends": ends } })
    }
}

async fn turn(client: &Client, command: &Command) -> Result<(), Error> {
    let token = if command.token.is_empty() {
        client.issue(command.issue()?).await?.token
    } else {
        command.token.clone()
    };
    let mut request = command.validate(&token);
    if !command.profile.is_empty() {
        request = request.profiles([&command.profile]);
    }
    client.validate(request).await.map(drop)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut driver = Driver::default();
    for line in stdin().lines() {
        let answer = driver.answer(serde_json::from_str(&line?)?).await;
        writeln!(stdout(), "{answer}")?;
        stdout().flush()?;
    }
    Ok(())
}
