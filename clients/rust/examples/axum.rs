//! An HTTP service with one protected route: `cargo run --example axum --features axum -- 127.0.0.1:8080`.

use std::env;

use axum::{Router, routing::get};
use serde::Deserialize;
use tokensidecar::{Authorized, Client, Protect};

#[derive(Deserialize)]
struct Claims {
    tenant: String,
}

async fn orders(caller: Authorized<Claims>) -> String {
    format!("orders of {} at {}\n", caller.token.subject, caller.claims.tenant)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect().await?;
    let protect = Protect::<Claims>::http(client, ["orders"]).required_scopes(["read"]);
    let app = Router::new()
        .route("/orders", get(orders))
        .layer(protect)
        .route("/health", get(async || "ok\n")); // after the layer: not protected

    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
