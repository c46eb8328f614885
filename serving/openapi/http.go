package openapi

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"html/template"
	"maps"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/serving"
)

// Stage is what is described (serving.Stage).
type Stage interface {
	Models(ctx context.Context) []serving.Model
	Groups(ctx context.Context) []*project.Group
	MaxRows() int
	Measured(route string, handle http.HandlerFunc) http.HandlerFunc
}

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{"json": indented}).Parse(pageText))

func indented(v any) string {
	b, err := json.Marshal(v)
	var out bytes.Buffer
	if err != nil || json.Indent(&out, b, "", "  ") != nil {
		return ""
	}
	return out.String()
}

// Routes puts the document and its page on a mux. pushSources are those that can be pushed to.
func Routes(mux *http.ServeMux, s Stage, version string, pushSources []string) {
	describe := func(r *http.Request) *huma.OpenAPI {
		return Describe(version, s.MaxRows(), s.Models(r.Context()), s.Groups(r.Context()), pushSources)
	}
	mux.HandleFunc("/openapi.json", s.Measured("openapi", get(func(w http.ResponseWriter, r *http.Request) {
		b, err := json.Marshal(describe(r))
		if err != nil { // of our own types it cannot fail
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(b) // a client that is gone
	})))
	mux.HandleFunc("/docs", s.Measured("docs", get(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		if err := page.Execute(&b, show(describe(r))); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(b.Bytes())
	})))
}

func get(handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			handle(w, r)
			return
		}
		w.Header().Set("Allow", http.MethodGet)
		(&serving.Problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: "the path is for GET only"}).Write(w)
	}
}

// shown is the document as the page has it.
type shown struct {
	Info       *huma.Info
	Operations []shownOperation
	Schemas    []shownSchema
}

type shownOperation struct {
	Method, Path string
	*huma.Operation
	Failures []string // statuses, in order
}

type shownSchema struct {
	Name   string
	Schema *huma.Schema
}

func show(api *huma.OpenAPI) *shown {
	out := &shown{Info: api.Info}
	for _, path := range slices.Sorted(maps.Keys(api.Paths)) {
		item := api.Paths[path]
		if op := item.Get; op != nil {
			out.Operations = append(out.Operations, shownOperation{http.MethodGet, path, op, slices.Sorted(maps.Keys(op.Responses))})
		}
		if op := item.Post; op != nil {
			out.Operations = append(out.Operations, shownOperation{http.MethodPost, path, op, slices.Sorted(maps.Keys(op.Responses))})
		}
	}
	all := api.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out.Schemas = append(out.Schemas, shownSchema{name, all[name]})
	}
	return out
}
