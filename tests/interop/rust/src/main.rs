//! Driver of josekit: answers the requests of tests/interop/library.py, one line of JSON each.

use std::error::Error;
use std::io::{Write, stdin, stdout};
use std::panic;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use josekit::jwe::{self, JweDecrypter, JweEncrypter, JweHeader};
use josekit::jwk::Jwk;
use josekit::jws::{self, JwsHeader, JwsSigner, JwsVerifier};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    panic::set_hook(Box::new(|_| ())); // a panic is an answer, below
    for line in stdin().lines() {
        let asked = serde_json::from_str(&line?)?;
        let answer = match panic::catch_unwind(|| answer(&asked)) {
            Ok(Ok(ok)) => json!({ "ok": ok }),
            Ok(Err(error)) => json!({ "error": error.to_string() }),
            Err(_) => json!({ "error": "josekit panicked" }),
        };
        writeln!(stdout(), "{answer}")?;
    }
    Ok(())
}

fn answer(asked: &Value) -> Result<String> {
    let format = text(asked, "format")?;
    if text(asked, "op")? == "open" {
        let token = text(asked, "token")?;
        let payload = match format {
            "signed" => verify(asked, token.as_bytes())?,
            "encrypted" => decrypt(asked, token)?,
            _ => verify(asked, &decrypt(asked, token)?)?,
        };
        return Ok(URL_SAFE_NO_PAD.encode(payload));
    }
    let payload = URL_SAFE_NO_PAD.decode(text(asked, "payload")?)?;
    let mut header = JweHeader::new();
    match format {
        "signed" => sign(asked, &payload),
        "encrypted" => {
            header.set_token_type(text(asked, "typ")?);
            encrypt(asked, &payload, header)
        }
        _ => {
            header.set_content_type("JWT");
            encrypt(asked, sign(asked, &payload)?.as_bytes(), header)
        }
    }
}

fn sign(asked: &Value, payload: &[u8]) -> Result<String> {
    let key = key(asked, "signature")?;
    let signer: Box<dyn JwsSigner> = match text(asked, "sign")? {
        "ES256" => Box::new(jws::ES256.signer_from_jwk(&key)?),
        "ES384" => Box::new(jws::ES384.signer_from_jwk(&key)?),
        "EdDSA" => Box::new(jws::EdDSA.signer_from_jwk(&key)?),
        "PS256" => Box::new(jws::PS256.signer_from_jwk(&key)?),
        "RS256" => Box::new(jws::RS256.signer_from_jwk(&key)?),
        "HS256" => Box::new(jws::HS256.signer_from_jwk(&key)?),
        other => return Err(format!("no signature algorithm {other}").into()),
    };
    let mut header = JwsHeader::new();
    header.set_token_type(text(asked, "typ")?);
    Ok(jws::serialize_compact(payload, &header, &*signer)?)
}

fn verify(asked: &Value, token: &[u8]) -> Result<Vec<u8>> {
    let key = key(asked, "signature")?;
    let verifier: Box<dyn JwsVerifier> = match text(asked, "sign")? {
        "ES256" => Box::new(jws::ES256.verifier_from_jwk(&key)?),
        "ES384" => Box::new(jws::ES384.verifier_from_jwk(&key)?),
        "EdDSA" => Box::new(jws::EdDSA.verifier_from_jwk(&key)?),
        "PS256" => Box::new(jws::PS256.verifier_from_jwk(&key)?),
        "RS256" => Box::new(jws::RS256.verifier_from_jwk(&key)?),
        "HS256" => Box::new(jws::HS256.verifier_from_jwk(&key)?),
        other => return Err(format!("no signature algorithm {other}").into()),
    };
    Ok(jws::deserialize_compact(token, &*verifier)?.0)
}

fn encrypt(asked: &Value, plaintext: &[u8], mut header: JweHeader) -> Result<String> {
    let key = key(asked, "encryption")?;
    let encrypter: Box<dyn JweEncrypter> = match text(asked, "alg")? {
        "dir" => Box::new(jwe::Dir.encrypter_from_jwk(&key)?),
        "A128KW" => Box::new(jwe::A128KW.encrypter_from_jwk(&key)?),
        "A256KW" => Box::new(jwe::A256KW.encrypter_from_jwk(&key)?),
        "A128GCMKW" => Box::new(jwe::A128GCMKW.encrypter_from_jwk(&key)?),
        "A256GCMKW" => Box::new(jwe::A256GCMKW.encrypter_from_jwk(&key)?),
        "ECDH-ES" => Box::new(jwe::ECDH_ES.encrypter_from_jwk(&key)?),
        "ECDH-ES+A256KW" => Box::new(jwe::ECDH_ES_A256KW.encrypter_from_jwk(&key)?),
        "RSA-OAEP-256" => Box::new(jwe::RSA_OAEP_256.encrypter_from_jwk(&key)?),
        other => return Err(format!("no key management algorithm {other}").into()),
    };
    header.set_content_encryption(text(asked, "enc")?);
    Ok(jwe::serialize_compact(plaintext, &header, &*encrypter)?)
}

fn decrypt(asked: &Value, token: &str) -> Result<Vec<u8>> {
    let key = key(asked, "encryption")?;
    let decrypter: Box<dyn JweDecrypter> = match text(asked, "alg")? {
        "dir" => Box::new(jwe::Dir.decrypter_from_jwk(&key)?),
        "A128KW" => Box::new(jwe::A128KW.decrypter_from_jwk(&key)?),
        "A256KW" => Box::new(jwe::A256KW.decrypter_from_jwk(&key)?),
        "A128GCMKW" => Box::new(jwe::A128GCMKW.decrypter_from_jwk(&key)?),
        "A256GCMKW" => Box::new(jwe::A256GCMKW.decrypter_from_jwk(&key)?),
        "ECDH-ES" => Box::new(jwe::ECDH_ES.decrypter_from_jwk(&key)?),
        "ECDH-ES+A256KW" => Box::new(jwe::ECDH_ES_A256KW.decrypter_from_jwk(&key)?),
        "RSA-OAEP-256" => Box::new(jwe::RSA_OAEP_256.decrypter_from_jwk(&key)?),
        other => return Err(format!("no key management algorithm {other}").into()),
    };
    let (plaintext, header) = jwe::deserialize_compact(token, &*decrypter)?;
    if header.content_encryption() != Some(text(asked, "enc")?) {
        return Err("another content encryption".into());
    }
    Ok(plaintext)
}

fn text<'a>(asked: &'a Value, name: &str) -> Result<&'a str> {
    asked[name]
        .as_str()
        .ok_or_else(|| format!("no {name}").into())
}

fn key(asked: &Value, role: &str) -> Result<Jwk> {
    let members = asked["keys"][role]
        .as_object()
        .ok_or_else(|| format!("no {role} key"))?;
    Ok(Jwk::from_map(members.clone())?)
}
