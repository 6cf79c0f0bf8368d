"""The token engine: keys, suites, signing, encrypting (RFC 7515 to 7518). The only package that imports jwcrypto."""
