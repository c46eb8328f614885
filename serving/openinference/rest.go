package openinference

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/valyala/fastjson"

	"github.com/millrace/millrace/serving"
)

// headerLength is the request and response header with the length of the JSON in front of binary data.
const headerLength = "Inference-Header-Content-Length"

// rest answers the protocol over HTTP.
type rest struct {
	stage   Stage
	version string
	parsers fastjson.ParserPool
}

// Routes puts the protocol's paths on a mux: /v2 and below. version is the server's own, for its metadata.
func Routes(mux *http.ServeMux, s Stage, version string) {
	r := &rest{stage: s, version: version}
	handle := func(route, path, method string, answer http.HandlerFunc) {
		mux.HandleFunc(path, s.Measured(route, only(method, answer)))
	}
	handle("v2_server", "/v2", http.MethodGet, r.server)
	handle("v2_live", "/v2/health/live", http.MethodGet, r.live)
	handle("v2_ready", "/v2/health/ready", http.MethodGet, r.ready)
	handle("v2_index", "/v2/repository/index", http.MethodPost, r.index)
	for path, load := range map[string]bool{"load": true, "unload": false} {
		handle("v2_"+path, "/v2/repository/models/{model}/"+path, http.MethodPost, func(w http.ResponseWriter, q *http.Request) {
			Fail(w, promoted(q.Context(), r.stage, q.PathValue("model"), load))
		})
	}
	for _, model := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		handle("v2_model", model, http.MethodGet, r.model)
		handle("v2_model_ready", model+"/ready", http.MethodGet, r.modelReady)
		handle("v2_infer", model+"/infer", http.MethodPost, r.infer)
	}
	mux.HandleFunc("/v2/", s.Measured("v2_other", func(w http.ResponseWriter, _ *http.Request) {
		Fail(w, &serving.Problem{Status: http.StatusNotFound, Code: "not_found", Field: "path", Detail: "there is nothing at this path"})
	}))
}

func only(method string, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == method || method == http.MethodGet && r.Method == http.MethodHead {
			answer(w, r)
			return
		}
		w.Header().Set("Allow", method)
		Fail(w, &serving.Problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: "the path is for " + method + " only"})
	}
}

// Fail answers with the protocol's error object.
func Fail(w http.ResponseWriter, p *serving.Problem) {
	if p.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	write(w, p.Status, struct {
		Error string `json:"error"`
	}{p.Error()})
}

func write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // of our own types it cannot fail
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that is gone
}

func (f *rest) server(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{"millrace", f.version, extensions})
}

func (f *rest) live(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, map[string]bool{"live": true})
}

func (f *rest) ready(w http.ResponseWriter, _ *http.Request) {
	if f.stage.Ready() != nil {
		Fail(w, notReady())
		return
	}
	write(w, http.StatusOK, map[string]bool{"ready": true})
}

func notReady() *serving.Problem {
	return &serving.Problem{Status: http.StatusServiceUnavailable, Code: "no_champion", Detail: "there is no champion that can be served"}
}

func (f *rest) model(w http.ResponseWriter, r *http.Request) {
	m, p := served(r.Context(), f.stage, r.PathValue("model"), r.PathValue("version"))
	if p != nil {
		Fail(w, p)
		return
	}
	write(w, http.StatusOK, metadata(&m))
}

func (f *rest) modelReady(w http.ResponseWriter, r *http.Request) {
	m, p := served(r.Context(), f.stage, r.PathValue("model"), r.PathValue("version"))
	if p == nil && !m.Live {
		p = notReady()
	}
	if p != nil {
		Fail(w, p)
		return
	}
	write(w, http.StatusOK, map[string]any{"name": m.Name, "ready": true})
}

func (f *rest) index(w http.ResponseWriter, r *http.Request) {
	text, p := f.stage.ReadBody(w, r)
	if p != nil {
		Fail(w, p)
		return
	}
	ready := false
	if len(text) > 0 {
		tree, err := fastjson.ParseBytes(text)
		if err != nil || tree.Type() != fastjson.TypeObject || fastjson.ValidateBytes(text) != nil {
			Fail(w, &serving.Problem{Status: http.StatusBadRequest, Code: "malformed", Detail: `the body is not {"ready": true or false}`})
			return
		}
		if p := boolean(tree.Get("ready"), "ready", &ready); p != nil {
			Fail(w, p)
			return
		}
	}
	write(w, http.StatusOK, index(r.Context(), f.stage, ready))
}

func (f *rest) infer(w http.ResponseWriter, r *http.Request) {
	asked, p := f.read(w, r)
	if p != nil {
		Fail(w, p)
		return
	}
	a, p := infer(r.Context(), f.stage, &asked.request)
	if p != nil {
		Fail(w, p)
		return
	}
	b, header := asked.appendAnswer(a)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if header > 0 {
		h.Set("Content-Type", "application/octet-stream")
		h.Set(headerLength, strconv.Itoa(header))
	}
	_, _ = w.Write(b) // a client that is gone
}

// read reads an inference request. The header's timeout goes before the parameter's.
func (f *rest) read(w http.ResponseWriter, r *http.Request) (*jsonRequest, *serving.Problem) {
	allowed, p := serving.TimeoutOf(r)
	if p != nil {
		return nil, p
	}
	text, p := f.stage.ReadBody(w, r)
	if p != nil {
		return nil, p
	}
	var raw []byte
	if n := r.Header.Get(headerLength); n != "" {
		length, err := strconv.Atoi(n)
		if err != nil || length < 0 || length > len(text) {
			return nil, &serving.Problem{Status: http.StatusBadRequest, Code: "wrong_type", Field: headerLength, Detail: "is no length within the body"}
		}
		text, raw = text[:length], text[length:]
	}
	asked, p := parseRequest(&f.parsers, text, raw)
	if p != nil {
		return nil, p
	}
	asked.model, asked.version = r.PathValue("model"), r.PathValue("version")
	if allowed > 0 {
		asked.timeout = allowed
	}
	return asked, nil
}
