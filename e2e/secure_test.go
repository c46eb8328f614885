package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace/millrace/streams"
)

// authority makes a certificate authority that nothing trusts by itself, as a PEM file, and a server's certificate for 127.0.0.1 by it.
func authority(t *testing.T) (caFile string, server *tls.Config) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	must(t, err)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600))
	return caFile, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
}

// TestSecured runs the roles against a Kafka that wants TLS and SCRAM and a Redis that wants TLS and a user's password, both in this process.
func TestSecured(t *testing.T) {
	const kafkaUser, kafkaPassword, redisUser, redisPassword = "mill", "kafka's secret", "race", "redis' secret"
	ca, server := authority(t)
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(server), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", kafkaUser, kafkaPassword),
		kfake.BrokerConfigs(map[string]string{"log.retention.ms": "-1"}))
	must(t, err)
	t.Cleanup(kafka.Close)
	redis, err := miniredis.RunTLS(server)
	must(t, err)
	t.Cleanup(redis.Close)
	redis.RequireUserAuth(redisUser, redisPassword)

	s := newStandOn(t, kafka.ListenAddrs()[0], redis.Addr())
	s.tls, s.sasl = streams.TLS{Enabled: true, CAFile: ca}, streams.SASL{Mechanism: "scram-sha-512", Username: kafkaUser, Password: kafkaPassword}
	flags := func(kafkaPassword, redisPassword, ca string) []string {
		return []string{
			"--kafka-ca", ca, "--kafka-mechanism", "scram-sha-512", "--kafka-user", kafkaUser, "--kafka-password", kafkaPassword,
			"--redis-ca", ca, "--redis-user", redisUser, "--redis-password", redisPassword,
		}
	}
	let := flags(kafkaPassword, redisPassword, ca)
	events := sample(t, firstDay, 6*time.Hour)
	s.ensureTopics()
	worker, serve := s.start(append([]string{"stream"}, let...)...), s.start(append([]string{"serve"}, let...)...)
	s.produce(events)
	s.awaitApplied()
	s.checkOnline(serve.endpoint, newOracle(events), endOf(events))
	worker.stop()
	s.checkOfflineEvents(events)

	stranger, _ := authority(t)
	for _, refused := range []struct {
		what  string
		flags []string
		says  []string
	}{
		{"wrong Kafka password", flags("guess", redisPassword, ca), []string{"--kafka-password"}},
		{"wrong Redis password", flags(kafkaPassword, "guess", ca), []string{"WRONGPASS", "--redis-password"}},
		{"unknown authority", flags(kafkaPassword, redisPassword, stranger), []string{"certificate", "--kafka-ca"}},
		{"unknown authority of Redis alone", append(flags(kafkaPassword, redisPassword, ca), "--redis-ca", stranger), []string{"certificate", "--redis-ca"}},
	} {
		args := append([]string{"stream", "--project", s.dir, "--kafka", s.kafka, "--redis", s.redis, "--data-dir", s.data, "--listen", "127.0.0.1:0"}, refused.flags...)
		var said bytes.Buffer
		cmd := exec.Command(binary, args...)
		cmd.Stdout, cmd.Stderr = &said, &said
		err := cmd.Run()
		for _, text := range refused.says {
			if err == nil || !strings.Contains(said.String(), text) {
				t.Errorf("%s: ended with %v and said %q, which has no %q", refused.what, err, said.String(), text)
			}
		}
	}
}
