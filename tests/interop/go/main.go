// Driver of go-jose: answers the requests of tests/interop/library.py, one JSON value each.
package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"

	"github.com/go-jose/go-jose/v4"
)

type request struct {
	Op      string `json:"op"`
	Format  string `json:"format"`
	Sign    string `json:"sign"`
	Alg     string `json:"alg"`
	Enc     string `json:"enc"`
	Typ     string `json:"typ"`
	Payload string `json:"payload"`
	Token   string `json:"token"`
	Keys    struct {
		Signature  json.RawMessage `json:"signature"`
		Encryption json.RawMessage `json:"encryption"`
	} `json:"keys"`
}

func main() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var asked request
		if err := in.Decode(&asked); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		answer := map[string]string{}
		if ok, err := asked.do(); err != nil {
			answer["error"] = err.Error()
		} else {
			answer["ok"] = ok
		}
		if err := out.Encode(answer); err != nil {
			log.Fatal(err)
		}
	}
}

func (r *request) do() (string, error) {
	if r.Op == "open" {
		payload, err := r.open()
		return base64.RawURLEncoding.EncodeToString(payload), err
	}
	payload, err := base64.RawURLEncoding.DecodeString(r.Payload)
	if err != nil {
		return "", err
	}
	switch r.Format {
	case "signed":
		return r.sign(payload)
	case "encrypted":
		return r.encrypt(payload, (&jose.EncrypterOptions{}).WithType(jose.ContentType(r.Typ)))
	default:
		inner, err := r.sign(payload)
		if err != nil {
			return "", err
		}
		return r.encrypt([]byte(inner), (&jose.EncrypterOptions{}).WithContentType("JWT"))
	}
}

func (r *request) open() ([]byte, error) {
	switch r.Format {
	case "signed":
		return r.verify(r.Token)
	case "encrypted":
		return r.decrypt()
	default:
		inner, err := r.decrypt()
		if err != nil {
			return nil, err
		}
		return r.verify(string(inner))
	}
}

func (r *request) sign(payload []byte) (string, error) {
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(r.Keys.Signature); err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(r.Typ))
	options.WithHeader("kid", key.KeyID) // by itself it leaves it out under HMAC
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(r.Sign), Key: key}, options)
	if err != nil {
		return "", err
	}
	token, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return token.CompactSerialize()
}

func (r *request) verify(token string) ([]byte, error) {
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(r.Keys.Signature); err != nil {
		return nil, err
	}
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(r.Sign)})
	if err != nil {
		return nil, err
	}
	return parsed.Verify(key)
}

func (r *request) encrypt(plaintext []byte, options *jose.EncrypterOptions) (string, error) {
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(r.Keys.Encryption); err != nil {
		return "", err
	}
	recipient := jose.Recipient{Algorithm: jose.KeyAlgorithm(r.Alg), Key: key}
	encrypter, err := jose.NewEncrypter(jose.ContentEncryption(r.Enc), recipient, options)
	if err != nil {
		return "", err
	}
	token, err := encrypter.Encrypt(plaintext)
	if err != nil {
		return "", err
	}
	return token.CompactSerialize()
}

func (r *request) decrypt() ([]byte, error) {
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(r.Keys.Encryption); err != nil {
		return nil, err
	}
	parsed, err := jose.ParseEncryptedCompact(
		r.Token,
		[]jose.KeyAlgorithm{jose.KeyAlgorithm(r.Alg)},
		[]jose.ContentEncryption{jose.ContentEncryption(r.Enc)},
	)
	if err != nil {
		return nil, err
	}
	return parsed.Decrypt(key)
}
