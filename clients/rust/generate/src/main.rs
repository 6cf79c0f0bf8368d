//! Writes the Rust stubs: `generate DESCRIPTORS CLIENT_DIRECTORY FAKE_DIRECTORY`. Run by `generate.sh`.

use std::{env, error::Error, fs};

use prost::Message as _;
use prost_types::FileDescriptorSet;

// What holds a token or claims: `src/v1.rs` gives it a `Debug` that shows nothing of them.
const SECRET: [&str; 8] = [
    "IssueRequest",
    "IssueRequest.claims_source",
    "IssueResponse",
    "ValidateRequest",
    "ValidateResponse",
    "DpopProof",
    "RefreshRequest",
    "RevokeRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    let [_, descriptors, client, fake] = &env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: generate DESCRIPTORS CLIENT_DIRECTORY FAKE_DIRECTORY".into());
    };
    let read = || FileDescriptorSet::decode(&fs::read(descriptors)?[..]).map_err(std::io::Error::other);

    // The messages, and the clients of the services.
    tonic_prost_build::configure()
        .build_server(false)
        .enum_attribute(".", "#[non_exhaustive]")
        .skip_debug(SECRET.map(|message| format!(".tokensidecar.v1.{message}")))
        .out_dir(client)
        .compile_fds(read()?)?;
    // The services as traits, for the tests' fake alone.
    tonic_prost_build::configure()
        .build_client(false)
        .generate_default_stubs(true)
        .extern_path(".tokensidecar.v1", "::tokensidecar::v1")
        .out_dir(fake)
        .compile_fds(read()?)?;
    Ok(())
}
