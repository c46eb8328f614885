package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/millrace/millrace/serving/openinference/inferencepb"
)

// TestAccess serves behind TLS and tokens: what each face lets through, over HTTP and gRPC, and what it says to the others.
func TestAccess(t *testing.T) {
	ca, server := authority(t)
	dir := t.TempDir()
	cert, key, tokens := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "tokens.yaml")
	writePair(t, server.Certificates[0], cert, key)
	issue := func(args ...string) string {
		out, err := exec.Command(binary, append([]string{"tokens", "new", "--tokens", tokens}, args...)...).Output()
		must(t, err)
		return strings.TrimSpace(string(out))
	}
	scorer := issue("--name", "checkout", "--rights", "score", "--models", "late")
	other := issue("--name", "elsewhere", "--rights", "score,features", "--models", "another")
	prometheus := issue("--name", "prometheus", "--rights", "metrics", "--for", "24h")

	s := serveByDistance(t, "--tls-cert", cert, "--tls-key", key, "--tokens", tokens, "--health-listen", "127.0.0.1:0")
	text, err := os.ReadFile(ca)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	ask := func(method, path, token, body string) (int, http.Header, string) {
		t.Helper()
		r, err := http.NewRequest(method, s.endpoint+path, strings.NewReader(body))
		must(t, err)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(r)
		must(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, resp.Header, string(b)
	}
	eventually(t, time.Minute, func() (bool, string) {
		code, _, body := ask(http.MethodGet, "/readyz", "", "")
		return code == 200, fmt.Sprint(code, body)
	})
	const row = `{"flight_id":"f1","scheduled":990360000000,"origin":"ATL","destination":"LGA","distance":800}`
	for _, c := range []struct {
		method, path, token, body string
		want                      int
		holds                     string
	}{
		{"POST", "/v1/models/late:score", scorer, row, 200, `"rung":"primary"`},
		{"POST", "/v1/models/late:score", "", row, 401, `"code":"unauthenticated"`},
		{"POST", "/v1/models/late:score", "millrace_x", row, 401, `"code":"unauthenticated"`},
		{"POST", "/v1/models/late:score", other, row, 403, `"code":"forbidden"`},
		{"POST", "/v1/models/late:score", prometheus, row, 403, `"code":"forbidden"`},
		{"GET", "/v1/models/another", scorer, "", 403, `"code":"forbidden"`}, // there is none, which it is not told
		{"GET", "/v1/models", other, "", 200, `{"models":[]}`},
		{"GET", "/v2/models/late", "", "", 401, `{"error":"unauthenticated: `},
		{"GET", "/v2/models/late", other, "", 403, `{"error":"forbidden: `},
		{"GET", "/v2/models/late", scorer, "", 200, `"name":"late"`},
		{"POST", "/v2/repository/index", other, "", 200, `[]`},
		{"GET", "/v1/features/origin_delays/ATL", scorer, "", 403, `"code":"forbidden"`},
		{"GET", "/v1/features/origin_delays/ATL", other, "", 403, `"code":"forbidden"`},
		{"GET", "/metrics", prometheus, "", 200, "millrace_access_denied_total"},
		{"GET", "/metrics", scorer, "", 403, `"code":"forbidden"`},
		{"GET", "/debug/pprof/", scorer, "", 403, `"code":"forbidden"`},
		{"GET", "/healthz", "", "", 200, "ok"},
		{"GET", "/v2/health/live", "", "", 200, "live"},
	} {
		if code, _, body := ask(c.method, c.path, c.token, c.body); code != c.want || !strings.Contains(body, c.holds) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, code, body, c.want, c.holds)
		}
	}
	if _, header, _ := ask(http.MethodGet, "/v1/models", "", ""); !strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer") {
		t.Errorf("401 with %v", header)
	}
	_, health, _ := strings.Cut(s.text(), "health ")
	health, _, _ = strings.Cut(health, "\n")
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v1/models": 404, "/v2": 404} {
		if code := get(t, health+path, nil); code != want {
			t.Errorf("health address, %s: %d, want %d", path, code, want)
		}
	}

	conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})))
	must(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("gRPC health: %v", err)
	}
	for token, want := range map[string]codes.Code{"": codes.Unauthenticated, "millrace_x": codes.Unauthenticated, other: codes.PermissionDenied, scorer: codes.OK, prometheus: codes.PermissionDenied} {
		with := ctx
		if token != "" {
			with = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
		if _, err := inferencepb.NewGRPCInferenceServiceClient(conn).ModelMetadata(with, &inferencepb.ModelMetadataRequest{Name: "late"}); status.Code(err) != want {
			t.Errorf("gRPC: %v, want %s", err, want)
		}
	}
	s.stop()
}

// writePair writes a certificate and its key as PEM files.
func writePair(t *testing.T, pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	secret, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	must(t, err)
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}
