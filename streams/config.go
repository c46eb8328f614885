package streams

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/millrace/millrace/internal/failure"
)

// Config says where Kafka and the schema registry are, and how to be let in.
type Config struct {
	Brokers  []string // host:port, seeds
	ClientID string   // empty is "millrace"
	TLS      TLS
	SASL     SASL
	Registry Registry

	// Compression of what is produced: none, gzip, snappy, lz4 or zstd; empty is snappy. The embedded broker wants none: the bytes never
	// leave the machine.
	Compression string
}

// TLS is how connections are encrypted.
type TLS struct {
	Enabled           bool
	CAFile            string // PEM; empty trusts the system's authorities
	CertFile, KeyFile string // PEM of the client's own certificate; both or none
}

// SASL is how the client says who it is; no mechanism means not at all.
type SASL struct {
	Mechanism          string // plain, scram-sha-256 or scram-sha-512, in any case
	Username, Password string
}

// Registry is a Confluent-compatible schema registry; an empty URL means none.
type Registry struct {
	URL                string
	Username, Password string
}

var codecs = map[string]kgo.CompressionCodec{
	"":       kgo.SnappyCompression(),
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

// Validate gives every fault at once.
func (c Config) Validate() error {
	var faults []error
	if len(c.Brokers) == 0 {
		faults = append(faults, failure.New(failure.BadProject, "kafka", "no broker given").WithHint("set --kafka HOST:PORT"))
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			faults = append(faults, failure.Wrap(failure.BadProject, "kafka", "reading address "+b, err).WithHint("write it as HOST:PORT"))
		}
	}
	if _, ok := codecs[c.Compression]; !ok {
		faults = append(faults, failure.New(failure.BadProject, "kafka", "unknown compression %q", c.Compression).
			WithHint("one of none, gzip, snappy, lz4, zstd"))
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		faults = append(faults, failure.New(failure.BadProject, "kafka", "a client certificate needs both its file and its key's"))
	}
	if _, err := c.SASL.mechanism(); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch strings.ToLower(s.Mechanism) {
	case "":
		return nil, nil
	case "plain":
		return plain.Auth{User: s.Username, Pass: s.Password}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: s.Username, Pass: s.Password}.AsSha512Mechanism(), nil
	default:
		return nil, failure.New(failure.BadProject, "kafka", "unknown SASL mechanism %q", s.Mechanism).
			WithHint("one of plain, scram-sha-256, scram-sha-512")
	}
}

func (t TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, failure.Wrap(failure.BadProject, t.CAFile, "reading certificate authorities", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, failure.New(failure.BadProject, t.CAFile, "holds no certificate in PEM")
		}
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, failure.Wrap(failure.BadProject, t.CertFile, "reading the client certificate", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}
