//! The tests of the crate as its users see it. Those in `sidecar` need a running one, which
//! `pytest tests/test_client_rust.py` starts.

mod client;
mod fake;
mod protect;
mod sidecar;
mod source;
