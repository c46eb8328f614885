package serving

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/serving/access"
)

const statusTooLarge = http.StatusRequestEntityTooLarge

// bodyTimeout is how long a client may take to send its body.
const bodyTimeout = 5 * time.Second

// routes lays out the API. Paths are split by hand where a segment may hold an escaped slash or ends in ":score", neither of which
// net/http's patterns can say.
func (s *Stage) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/models", s.measured("models", get(s.listModels)))
	mux.HandleFunc("/v1/models/{rest...}", s.model)
	mux.HandleFunc("/v1/features/{rest...}", s.measured("features", get(s.features)))
	mux.HandleFunc("/healthz", s.measured("healthz", get(s.health)))
	mux.HandleFunc("/readyz", s.measured("readyz", get(s.ready)))
	mux.HandleFunc("/", s.measured("other", func(w http.ResponseWriter, r *http.Request) {
		absent("path", "there is nothing at this path").Write(w)
	}))
	return mux
}

// model routes /v1/models/{model}, /v1/models/{model}:score and /v1/models/{model}/predictions/{join_key}.
func (s *Stage) model(w http.ResponseWriter, r *http.Request) {
	path, ok := segments(r, "/v1/models/")
	route, handle := "other", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		absent("path", "there is nothing at this path").Write(w)
	})
	if ok {
		name, scored := strings.CutSuffix(path[0], ":score")
		switch {
		case len(path) == 1 && scored:
			route, handle = "score", only(http.MethodPost, s.withModel(name, s.score))
		case len(path) == 1:
			route, handle = "model", get(s.withModel(name, s.describeModel))
		case len(path) == 3 && path[1] == "predictions":
			route, handle = "prediction", get(s.withModel(name, func(w http.ResponseWriter, r *http.Request, d *deployment) {
				s.prediction(w, d, path[2])
			}))
		}
	}
	s.measure(w, r, s.routeMetrics[route], handle)
}

func (s *Stage) withModel(name string, handle func(http.ResponseWriter, *http.Request, *deployment)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d, p := s.allowed(r.Context(), name)
		if p != nil {
			p.Write(w)
			return
		}
		handle(w, r, d)
	}
}

// allowed is a model that who asks may use. Whether there is one that they may not use, they are not told.
func (s *Stage) allowed(ctx context.Context, model string) (*deployment, *problem) {
	if !access.Allows(ctx, model) {
		return nil, ProblemOf(access.Refuse(ctx))
	}
	d, ok := s.models[model]
	if !ok {
		return nil, absent("model", "the project has no such model")
	}
	return d, nil
}

// segments is the unescaped parts of the path behind a prefix; not ok when it cannot be unescaped or one is empty.
func segments(r *http.Request, prefix string) ([]string, bool) {
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), prefix), "/")
	for i, p := range parts {
		var err error
		if parts[i], err = url.PathUnescape(p); err != nil || parts[i] == "" {
			return nil, false
		}
	}
	return parts, true
}

func get(handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			handle(w, r)
			return
		}
		only(http.MethodGet, handle)(w, r)
	}
}

func only(method string, handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			p := badRequest(codeMethod, "", "the path is for %s only", method)
			p.Status = http.StatusMethodNotAllowed
			p.Write(w)
			return
		}
		handle(w, r)
	}
}

// measured counts and times what a route answers.
func (s *Stage) measured(route string, handle http.HandlerFunc) http.HandlerFunc {
	measure := s.metrics.measure(route)
	return func(w http.ResponseWriter, r *http.Request) { s.measure(w, r, measure, handle) }
}

func (s *Stage) measure(w http.ResponseWriter, r *http.Request, m *routeMetrics, handle http.HandlerFunc) {
	start := s.deps.Clock()
	seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	handle(seen, r)
	m.observe(seen.status, s.deps.Clock().Sub(start))
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// trustedLength is how much memory a body gets because its header announces so much; the rest when it has come. (Clients that announce MaxBody
// and send nothing would else have it of every connection.)
const trustedLength = 16 << 10

// readBody reads at most MaxBody bytes, for at most bodyTimeout. A body that announces more, or is compressed, is refused unread.
func (s *Stage) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *problem) {
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		w.Header().Set("Connection", "close") // else net/http reads the body before it sends the answer
		p := badRequest(codeEncoding, "Content-Encoding", "the body must not be compressed")
		p.Status = http.StatusUnsupportedMediaType
		return nil, p
	}
	if r.ContentLength > s.cfg.MaxBody {
		w.Header().Set("Connection", "close")
		return nil, s.bodyTooLarge()
	}
	control := http.NewResponseController(w)
	// A deadline in the past breaks the read off. (Writers of tests have no connection to break.)
	late := time.AfterFunc(bodyTimeout, func() { _ = control.SetReadDeadline(time.Unix(1, 0)) })
	var body bytes.Buffer
	if n := r.ContentLength; n > 0 {
		body.Grow(int(min(n, trustedLength)) + bytes.MinRead)
	}
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, s.cfg.MaxBody))
	if !late.Stop() {
		_ = control.SetReadDeadline(time.Time{})
	}
	var large *http.MaxBytesError
	switch {
	case err == nil:
		return body.Bytes(), nil
	case errors.As(err, &large):
		return nil, s.bodyTooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		p := badRequest(codeBodyTimeout, "", "the body did not come within %s", bodyTimeout)
		p.Status = http.StatusRequestTimeout
		return nil, p
	default:
		return nil, badRequest(codeMalformed, "", "the body broke off")
	}
}

func (s *Stage) bodyTooLarge() *problem {
	p := badRequest(codeBodyTooLarge, "", "the body has more than %d bytes", s.cfg.MaxBody)
	p.Status = statusTooLarge
	return p
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		problemOf(err).Write(w)
		return
	}
	writeBody(w, append(b, '\n'))
}

func writeBody(w http.ResponseWriter, b []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(b))) // or a longer answer would be sent in chunks
	_, _ = w.Write(b)                             // a client that is gone
}

func (s *Stage) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]string{"status": "ok"})
}

func (s *Stage) ready(w http.ResponseWriter, _ *http.Request) {
	if err := s.Ready(); err != nil {
		p := problemOf(err)
		p.Detail, p.Hint = "a model has no champion that can be served", "GET /v1/models says which, and why"
		p.Write(w)
		return
	}
	status := "ready"
	for _, d := range s.models {
		if d.degraded() {
			status = "degraded"
		}
	}
	writeJSON(w, map[string]string{"status": status})
}
