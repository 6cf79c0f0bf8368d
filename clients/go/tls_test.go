package tokensidecar

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	pb "tokensidecar.dev/go/tokensidecarv1"
)

// identities are of one authority, which the pool holds.
func identities(t *testing.T) (server, client tls.Certificate, pool *x509.CertPool) {
	t.Helper()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(template *x509.Certificate) tls.Certificate {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template.NotBefore, template.NotAfter = authority.NotBefore, authority.NotAfter
		signed, err := x509.CreateCertificate(rand.Reader, template, authority, &key.PublicKey, authorityKey)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}
	}
	raw, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return sign(&x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"localhost"}}),
		sign(&x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "orders"}}), pool
}

func TestMutualTLSIdentifiesThisProgramAndTheSidecar(t *testing.T) {
	server, own, pool := identities(t)
	f := &fake{validate: func(context.Context, *pb.ValidateRequest) (*pb.ValidateResponse, error) {
		return &pb.ValidateResponse{Subject: "ada"}, nil
	}}
	listener := tls.NewListener(listen(t, "tcp", "127.0.0.1:0"), &tls.Config{
		Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, NextProtos: []string{"h2"},
	})
	f.serve(t, listener)
	address := WithAddress(listener.Addr().String())
	client, err := Connect(t.Context(), address, WithTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{own}}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if token, err := client.Validate(t.Context(), ValidateRequest{Token: "x"}); err != nil || token.Subject != "ada" {
		t.Error(token, err)
	}
	for name, config := range map[string]*tls.Config{
		"an authority that is not ours": {Certificates: []tls.Certificate{own}},
		"another name":                  {RootCAs: pool, Certificates: []tls.Certificate{own}, ServerName: "elsewhere"},
	} {
		_, err := Connect(t.Context(), address, WithTLS(config), WithStartTimeout(300*time.Millisecond))
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTLSIsNeverLeftOut(t *testing.T) {
	path := (&fake{}).start(t)
	if _, err := Connect(t.Context(), WithAddress(path), WithTLS(&tls.Config{})); err == nil || !strings.Contains(err.Error(), "socket") {
		t.Error(err)
	}
	listener := listen(t, "tcp", "127.0.0.1:0")
	(&fake{}).serve(t, listener) // in the clear
	_, err := Connect(t.Context(), WithAddress(listener.Addr().String()), WithTLS(&tls.Config{}), WithStartTimeout(50*time.Millisecond))
	if !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}
