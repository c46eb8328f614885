package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// clockwork is a clock that is set by hand.
type clockwork struct{ now time.Time }

func (c *clockwork) deps() Deps {
	return Deps{Clock: func() time.Time { return c.now }, Log: slog.New(slog.DiscardHandler)}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

var testRules = []Rule{{Prefix: "/healthz", Open: true}, {Prefix: "/docs", Any: true}, {Prefix: "/score/", Right: Score}, {Prefix: "/push", Right: Push}}

func TestGuard(t *testing.T) {
	clock := &clockwork{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	soon := clock.now.Add(time.Hour)
	scorer := must[string](t)(AddToken(path, Entry{Name: "checkout", Rights: []Right{Score}, Models: []string{"fraud"}}))
	pusher := must[string](t)(AddToken(path, Entry{Name: "pusher", Rights: []Right{Push}, Expires: &soon}))
	admin := must[string](t)(AddToken(path, Entry{Name: "operator", Rights: []Right{Admin, Score}}))
	text := string(must[[]byte](t)(os.ReadFile(path)))
	if info := must[os.FileInfo](t)(os.Stat(path)); info.Mode().Perm() != 0o600 || strings.Contains(text, scorer) {
		t.Errorf("%v: %s", info.Mode(), text)
	}
	meters := NewMeters(prometheus.NewRegistry())
	guard := must[*Guard](t)(NewGuard(path, clock.deps(), meters))
	handler := guard.HTTP(testRules, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		model, scored := strings.CutPrefix(r.URL.Path, "/score/")
		if scored && !Allows(r.Context(), model) {
			w.WriteHeader(Refuse(r.Context()).Status)
		}
	}), func(w http.ResponseWriter, _ *http.Request, d *Denied) { w.WriteHeader(d.Status) })
	ask := func(path, authorization string) int {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		handler.ServeHTTP(w, r)
		if w.Code == 401 && !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: 401 without WWW-Authenticate", path)
		}
		return w.Code
	}
	for _, c := range []struct {
		path, authorization string
		want                int
	}{
		{"/healthz", "", 200}, {"/healthz", "Bearer nonsense", 200}, {"/healthz/", "", 401},
		{"/score/fraud", "", 401}, {"/score/fraud", "Bearer " + scorer + "x", 401}, {"/score/fraud", "Bearer " + scorer[:len(scorer)-1], 401},
		{"/score/fraud", "Basic " + scorer, 401}, {"/score/fraud", scorer, 401}, {"/score/fraud", "Bearer ", 401},
		{"/score/fraud", "Bearer " + scorer, 200}, {"/score/fraud", "bearer " + scorer, 200}, {"/score/other", "Bearer " + scorer, 403},
		{"/push", "Bearer " + scorer, 403}, {"/push", "Bearer " + pusher, 200}, {"/score/fraud", "Bearer " + pusher, 403},
		{"/docs", "", 401}, {"/docs", "Bearer " + pusher, 200},
		{"/nowhere", "Bearer " + scorer, 403}, {"/nowhere", "Bearer " + admin, 200}, {"/score/other", "Bearer " + admin, 200}, {"/push", "Bearer " + admin, 403},
	} {
		if got := ask(c.path, c.authorization); got != c.want {
			t.Errorf("%s with %q: %d, want %d", c.path, c.authorization, got, c.want)
		}
	}
	if n := testutil.ToFloat64(meters.all.denied.WithLabelValues(denyModel)); n != 1 {
		t.Errorf("%v refused for the model", n)
	}

	clock.now = soon
	if got := ask("/push", "Bearer "+pusher); got != 401 {
		t.Errorf("an expired token: %d", got)
	}
	if err := os.WriteFile(path, []byte("tokens: [{name: broken}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	clock.now = clock.now.Add(2 * time.Second)
	if got := ask("/score/fraud", "Bearer "+scorer); got != 200 {
		t.Errorf("with a file that cannot be read the tokens known stay: %d", got)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(text[:strings.Index(text, "- name: pusher")], "checkout", "renamed", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ask("/score/other", "Bearer "+admin); got != 200 {
		t.Errorf("the file was looked at again at once: %d", got)
	}
	clock.now = clock.now.Add(2 * time.Second)
	if a, b := ask("/score/other", "Bearer "+admin), ask("/score/fraud", "Bearer "+scorer); a != 401 || b != 200 {
		t.Errorf("after the change the token taken out gives %d, the one left in %d", a, b)
	}
}

func TestBadFilesOfTokens(t *testing.T) {
	_, sum := NewToken()
	for text, want := range map[string]string{
		"tokens: [{name: a, sha256: 12, rights: [score]}]":                                                          "64 hex digits",
		"tokens: [{sha256: " + sum + ", rights: [score]}]":                                                          "no name",
		"tokens: [{name: a, sha256: " + sum + "}]":                                                                  "no rights",
		"tokens: [{name: a, sha256: " + sum + ", rights: [root]}]":                                                  `"root" is none of`,
		"tokens: [{name: a, sha256: " + sum + ", rights: [score], model: x}]":                                       "unknown field",
		"tokens: [{name: a, sha256: " + sum + ", rights: [score]}, {name: a, sha256: x, rights: []}]":               "tokens[1] (a)",
		"tokens: [{name: a, sha256: " + sum + ", rights: [score]}, {name: a, sha256: " + sum + ", rights: [push]}]": "two tokens",
	} {
		if _, err := ParseTokens([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return &authority{t, must[*x509.Certificate](t)(x509.ParseCertificate(der)), key}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue writes a certificate for 127.0.0.1 and its key.
func (a *authority) issue(name, certFile, keyFile string) {
	a.t.Helper()
	key := must[*ecdsa.PrivateKey](a.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der := must[[]byte](a.t)(x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key))
	secret := must[[]byte](a.t)(x509.MarshalECPrivateKey(key))
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

// Certificates are read again when they change; who has no certificate of the client authority is turned away.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	servers, clients, strangers := newAuthority(t, "servers"), newAuthority(t, "clients"), newAuthority(t, "strangers")
	servers.issue("first", file("cert"), file("key"))
	clients.issue("client", file("client"), file("client-key"))
	strangers.issue("stranger", file("stranger"), file("stranger-key"))
	if err := os.WriteFile(file("ca"), clients.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	clock := &clockwork{now: time.Now()}
	config := must[*tls.Config](t)(NewTLS(TLSFiles{Cert: file("cert"), Key: file("key"), ClientCA: file("ca")}, clock.deps(), NewMeters(prometheus.NewRegistry())))
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), TLSConfig: config, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = server.Close() })
	connect := func(as string) (string, error) {
		roots := x509.NewCertPool()
		roots.AddCert(servers.cert)
		config := &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}}
		if as != "" {
			config.Certificates = []tls.Certificate{must[tls.Certificate](t)(tls.LoadX509KeyPair(file(as), file(as+"-key")))}
		}
		transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		r := must[*http.Request](t)(http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+l.Addr().String(), nil))
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return "", err
		}
		resp.Body.Close()
		return resp.TLS.PeerCertificates[0].Subject.CommonName + " " + resp.Proto, nil
	}
	if got, err := connect("client"); got != "first HTTP/2.0" {
		t.Errorf("%q %v", got, err)
	}
	for _, as := range []string{"", "stranger"} {
		if got, err := connect(as); err == nil {
			t.Errorf("as %q: %s", as, got)
		}
	}
	if err := os.WriteFile(file("cert"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	clock.now = clock.now.Add(2 * time.Second)
	if got, err := connect("client"); got != "first HTTP/2.0" {
		t.Errorf("while the certificate is half written: %q %v", got, err)
	}
	servers.issue("second", file("cert"), file("key"))
	clock.now = clock.now.Add(2 * time.Second)
	if got, err := connect("client"); got != "second HTTP/2.0" {
		t.Errorf("after the change: %q %v", got, err)
	}
	if err := os.WriteFile(file("ca"), strangers.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	clock.now = clock.now.Add(2 * time.Second)
	if got, err := connect("stranger"); got != "second HTTP/2.0" {
		t.Errorf("by the new client authority: %q %v", got, err)
	}
	if got, err := connect("client"); err == nil {
		t.Errorf("by the old client authority: %s", got)
	}
	if _, err := NewTLS(TLSFiles{Cert: file("cert")}, clock.deps(), NewMeters(prometheus.NewRegistry())); err == nil {
		t.Error("a certificate without its key")
	}
}
