package feast

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/serving"
)

// Stage is what the face needs of the serving stage (serving.Stage).
type Stage interface {
	Group(ctx context.Context, name string) (*project.Group, *serving.Problem)
	FeaturesOf(ctx context.Context, model string) ([]serving.FeatureRef, *serving.Problem)
	ReadEntities(ctx context.Context, c serving.Call, reads []serving.EntityRead) ([]serving.EntityFeatures, *serving.Problem)
	MayPush(ctx context.Context, source string) *serving.Problem
	ReadBody(w http.ResponseWriter, r *http.Request) ([]byte, *serving.Problem)
	Measured(route string, handle http.HandlerFunc) http.HandlerFunc
}

// Routes puts Feast's paths on a mux. Without a pusher nothing can be pushed.
func Routes(mux *http.ServeMux, s Stage, p *Pusher) {
	mux.HandleFunc("/get-online-features", s.Measured("feast_features", post(func(w http.ResponseWriter, r *http.Request) { answerFeatures(w, r, s) })))
	mux.HandleFunc("/push", s.Measured("feast_push", post(func(w http.ResponseWriter, r *http.Request) { answerPush(w, r, s, p) })))
}

func post(handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			handle(w, r)
			return
		}
		w.Header().Set("Allow", http.MethodPost)
		(&serving.Problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: "the path is for POST only"}).Write(w)
	}
}

func badRequest(code, field, format string, args ...any) *serving.Problem {
	return &serving.Problem{Status: http.StatusBadRequest, Code: code, Field: field, Detail: fmt.Sprintf(format, args...)}
}

// read reads a JSON body into a form.
func read(w http.ResponseWriter, r *http.Request, s Stage, into any) *serving.Problem {
	text, p := s.ReadBody(w, r)
	if p != nil {
		return p
	}
	if err := json.Unmarshal(text, into); err != nil {
		return malformed(err)
	}
	return nil
}

func malformed(err error) *serving.Problem {
	if e, ok := err.(*json.UnmarshalTypeError); ok { //nolint:errorlint // Unmarshal gives it as it is
		return badRequest("wrong_type", e.Field, "a JSON %s does not fit here", e.Value)
	}
	return badRequest("malformed", "", "the body is not JSON")
}

func write(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		(&serving.Problem{Status: http.StatusInternalServerError, Code: "internal", Detail: "the server failed to answer"}).Write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(b, '\n')) // a client that is gone
}
