package access

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/millrace/millrace/internal/failure"
)

// TLSFiles are the PEM files of an endpoint's TLS.
type TLSFiles struct {
	Cert     string
	Key      string
	ClientCA string // authorities of client certificates, without one of which nobody connects; none are asked for without
}

func (f TLSFiles) enabled() bool { return f.Cert != "" || f.Key != "" || f.ClientCA != "" }

// NewTLS is the configuration of an endpoint; nil when no file is given. The files are read again when they change, for the connections
// from then on.
func NewTLS(f TLSFiles, deps Deps, m *Meters) (*tls.Config, error) {
	if !f.enabled() {
		return nil, nil
	}
	if f.Cert == "" || f.Key == "" {
		return nil, failure.New(failure.BadRequest, "--tls-cert, --tls-key", "TLS needs both a certificate and its key")
	}
	files := []string{f.Cert, f.Key}
	if f.ClientCA != "" {
		files = append(files, f.ClientCA)
	}
	w, err := watch("tls", files, f.load, deps, m.all)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return w.current(), nil },
	}, nil
}

// protocols that are spoken on TLS: HTTP, and gRPC, which is HTTP/2.
var protocols = []string{"h2", "http/1.1"}

func (f TLSFiles) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, failure.Wrap(failure.BadRequest, f.Cert, "reading certificate and key", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, Certificates: []tls.Certificate{cert}}
	if f.ClientCA == "" {
		return c, nil
	}
	text, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, failure.Wrap(failure.BadRequest, f.ClientCA, "reading the client authorities", err)
	}
	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.ClientCAs.AppendCertsFromPEM(text) {
		return nil, failure.New(failure.BadRequest, f.ClientCA, "holds no certificate in PEM")
	}
	return c, nil
}
