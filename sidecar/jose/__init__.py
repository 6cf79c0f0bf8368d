"""The token engine: keys, suites, signing, encrypting, nesting (RFC 7515 to 7519). The only package that imports jwcrypto."""
