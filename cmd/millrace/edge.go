package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/serving"
	"github.com/millrace/millrace/serving/access"
	"github.com/millrace/millrace/serving/openinference"
)

// edgeFlags are those of every role: who may come to its endpoint, and how.
type edgeFlags struct {
	TLSCert      string `name:"tls-cert" help:"PEM file of the endpoints' certificate: TLS only. Read again when it changes, as are the next three." env:"MILLRACE_TLS_CERT" type:"path" placeholder:"FILE"`
	TLSKey       string `name:"tls-key" help:"PEM file of its key." env:"MILLRACE_TLS_KEY" type:"path" placeholder:"FILE"`
	ClientCA     string `name:"client-ca" help:"PEM file of the authorities of client certificates: who has none is turned away." env:"MILLRACE_CLIENT_CA" type:"path" placeholder:"FILE"`
	Tokens       string `help:"File of bearer tokens (millrace tokens new): who has none of them sees health only." env:"MILLRACE_TOKENS" type:"path" placeholder:"FILE"`
	HealthListen string `help:"Second address, without TLS and tokens, of /healthz, /readyz and /metrics alone." env:"MILLRACE_HEALTH_LISTEN" placeholder:"HOST:PORT"`
}

// edge is what stands before the endpoints.
type edge struct {
	guard  *access.Guard
	tls    *tls.Config  // nil without
	health net.Listener // nil without
}

// limits of the HTTP endpoint. A body is given its time by the stage.
const (
	headerTimeout  = 5 * time.Second
	idleTimeout    = 2 * time.Minute
	answerTimeout  = time.Minute // from the end of the header to the end of the answer
	maxHeader      = 16 << 10    // bytes
	maxConnections = 8192        // more wait to be accepted
)

// rules say which right each path asks for; what is not here asks for admin.
var rules = []access.Rule{
	{Prefix: "/healthz", Open: true},
	{Prefix: "/readyz", Open: true},
	{Prefix: "/v2/health/live", Open: true},
	{Prefix: "/v2/health/ready", Open: true},
	{Prefix: "/metrics", Right: access.Metrics},
	{Prefix: "/v1/models", Right: access.Score},
	{Prefix: "/v1/models/", Right: access.Score},
	{Prefix: "/v1/features/", Right: access.Features},
	{Prefix: "/get-online-features", Right: access.Features},
	{Prefix: "/push", Right: access.Push},
	{Prefix: "/openapi.json", Any: true},
	{Prefix: "/docs", Any: true},
	{Prefix: "/v2", Right: access.Score},
	{Prefix: "/v2/", Right: access.Score},
}

// openEdge reads certificates and tokens, and opens the address of health.
func (f edgeFlags) openEdge(ctx context.Context, rt *runtime) error {
	deps, meters := access.Deps{Clock: clock.System, Log: rt.log}, access.NewMeters(rt.registerer)
	var err error
	if rt.edge.guard, err = access.NewGuard(f.Tokens, deps, meters); err != nil {
		return err
	}
	if rt.edge.tls, err = access.NewTLS(access.TLSFiles{Cert: f.TLSCert, Key: f.TLSKey, ClientCA: f.ClientCA}, deps, meters); err != nil {
		return err
	}
	if f.HealthListen == "" {
		return nil
	}
	var lc net.ListenConfig
	if rt.edge.health, err = lc.Listen(ctx, "tcp", f.HealthListen); err != nil {
		return failure.Wrap(failure.Unavailable, f.HealthListen, "listening", err).WithHint("choose another address with --health-listen")
	}
	rt.onClose(func() error { _ = rt.edge.health.Close(); return nil }) // closed already, where it was served
	return nil
}

// guarded is the endpoint behind the rules.
func (rt *runtime) guarded() http.Handler {
	return rt.edge.guard.HTTP(rules, rt.mux, func(w http.ResponseWriter, r *http.Request, d *access.Denied) {
		if r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/") {
			openinference.Fail(w, serving.ProblemOf(d))
			return
		}
		serving.ProblemOf(d).Write(w)
	})
}

// healthOnly is what the second address answers.
func (rt *runtime) healthOnly() http.Handler {
	mux := http.NewServeMux()
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		mux.Handle("GET "+path, rt.mux)
	}
	return mux
}

func newServer(ctx context.Context, handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, WriteTimeout: answerTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
}

// serveOn serves until the server is shut down.
func (e *edge) serveOn(server *http.Server, l net.Listener) error {
	l = netutil.LimitListener(l, maxConnections)
	if e.tls == nil {
		return server.Serve(l)
	}
	server.TLSConfig = e.tls
	return server.ServeTLS(l, "", "")
}
