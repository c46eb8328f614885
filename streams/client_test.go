package streams

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// listener answers every connection with a certificate of its own authority, which is in the file.
func listener(t *testing.T, until time.Time, ip net.IP) (addr, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-48 * time.Hour), NotAfter: until, IPAddresses: []net.IP{ip}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 1024))
			}()
		}
	}()
	return l.Addr().String(), ca
}

// TestReachSaysWhatIsWrong connects to listeners that no client can talk to.
func TestReachSaysWhatIsWrong(t *testing.T) {
	home := net.IPv4(127, 0, 0, 1)
	past, later := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		until time.Time
		ip    net.IP
		tls   bool
		kind  failure.Kind
		hint  string
	}{
		"expired":      {past, home, true, failure.BadProject, "renew the broker's certificate"},
		"another name": {later, net.IPv4(10, 1, 2, 3), true, failure.BadProject, "as their certificates do"},
		"without TLS":  {later, home, false, failure.Unavailable, "--kafka-tls"},
	} {
		t.Run(name, func(t *testing.T) {
			addr, ca := listener(t, c.until, c.ip)
			config := Config{Brokers: []string{addr}}
			if c.tls {
				config.TLS = TLS{Enabled: true, CAFile: ca}
			}
			client, err := NewClient(config)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			err = Reach(t.Context(), config, client)
			if failure.Of(err) != c.kind || !strings.Contains(err.Error(), c.hint) {
				t.Errorf("told so: %v", err)
			}
		})
	}
}
