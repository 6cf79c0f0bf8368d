//! Issues a token and validates it. Needs a sidecar: `make run` in the repository.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokensidecar::{Client, Error, IssueRequest, ValidateRequest};

#[derive(Serialize, Deserialize)]
struct Claims {
    tenant: String,
    account: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect().await?;

    let claims = Claims {
        tenant: "acme".into(),
        account: u64::MAX,
    };
    let request = IssueRequest::new("user-17", ["orders"])
        .ttl(Duration::from_secs(60))
        .claims(&claims)?;
    let issued = client.issue(request).await?;

    let token = client.validate(ValidateRequest::new(&issued.token, ["orders"])).await?;
    let claims: Claims = token.claims()?;
    println!("{} of {}, account {}", token.subject, claims.tenant, claims.account);

    match client.validate(ValidateRequest::new(&issued.token, ["mail"])).await {
        Err(Error::Rejected { reason, .. }) => println!("for mail: {}", reason.as_str_name()),
        other => println!("for mail: {other:?}"),
    }
    Ok(())
}
