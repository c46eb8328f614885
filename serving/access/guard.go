package access

import (
	"context"
	"net/http"
	"os"
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// Why a request is refused; a metric label.
const (
	denyMissing = "no_token"
	denyUnknown = "unknown_token"
	denyExpired = "expired_token"
	denyRight   = "no_right"
	denyModel   = "other_model"
)

// Guard lets in who has a token with the right that is asked for. One without a file of tokens, and none, let everybody in.
type Guard struct {
	deps   Deps
	tokens *watched[[]*Grant] // nil: no token is asked for
	meters *metrics
}

// NewGuard reads a file of tokens, and reads it again when it changes; "" is none.
func NewGuard(path string, deps Deps, m *Meters) (*Guard, error) {
	g := &Guard{deps: deps, meters: m.all}
	if path == "" {
		return g, nil
	}
	var err error
	g.tokens, err = watch("tokens", []string{path}, func() ([]*Grant, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, failure.Wrap(failure.BadRequest, path, "reading the file of tokens", err)
		}
		return ParseTokens(text)
	}, deps, m.all)
	return g, err
}

// Rule is the right that paths ask for: those that begin with Prefix, or are it where it does not end in "/".
type Rule struct {
	Prefix string
	Right  Right
	Open   bool // for everybody
	Any    bool // for whoever has a token, whatever its rights
}

// Denied is why somebody is not let in.
type Denied struct {
	Status int    // 401 or 403
	Code   string // stable
	Detail string
}

// HTTP lets requests through to a handler by rules, the first that fits; a path of no rule asks for admin. deny answers the others.
func (g *Guard) HTTP(rules []Rule, handler http.Handler, deny func(http.ResponseWriter, *http.Request, *Denied)) http.Handler {
	if g == nil || g.tokens == nil {
		return handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rule := ruleOf(rules, r.URL.Path)
		if rule.Open {
			handler.ServeHTTP(w, r)
			return
		}
		grant, denied := g.check(r.Header.Get("Authorization"), rule)
		if denied != nil {
			if denied.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="millrace"`)
			}
			deny(w, r, denied)
			return
		}
		handler.ServeHTTP(w, r.WithContext(g.with(r.Context(), grant)))
	})
}

func ruleOf(rules []Rule, path string) Rule {
	for _, rule := range rules {
		if path == rule.Prefix || strings.HasSuffix(rule.Prefix, "/") && strings.HasPrefix(path, rule.Prefix) {
			return rule
		}
	}
	return Rule{Right: Admin}
}

// Enter is HTTP's check for other protocols: authorization is what the client sent under that name. The context is the one to go on with.
func (g *Guard) Enter(ctx context.Context, authorization string, rule Rule) (context.Context, *Denied) {
	if g == nil || g.tokens == nil || rule.Open {
		return ctx, nil
	}
	grant, denied := g.check(authorization, rule)
	if denied != nil {
		return nil, denied
	}
	return g.with(ctx, grant), nil
}

func (g *Guard) check(authorization string, rule Rule) (*Grant, *Denied) {
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, g.denied(denyMissing, http.StatusUnauthorized, "there is no bearer token in Authorization")
	}
	grant := find(g.tokens.current(), strings.TrimSpace(token))
	switch {
	case grant == nil:
		return nil, g.denied(denyUnknown, http.StatusUnauthorized, "the token is not one that is known")
	case !grant.expires.IsZero() && !g.deps.Clock().Before(grant.expires):
		return nil, g.denied(denyExpired, http.StatusUnauthorized, "the token has expired")
	case !rule.Any && !grant.has(rule.Right):
		return nil, g.denied(denyRight, http.StatusForbidden, "the token does not have the right "+string(rule.Right))
	}
	return grant, nil
}

func (g *Guard) denied(why string, status int, detail string) *Denied {
	g.meters.denied.WithLabelValues(why).Inc()
	code := "unauthenticated"
	if status == http.StatusForbidden {
		code = "forbidden"
	}
	return &Denied{Status: status, Code: code, Detail: detail}
}

type contextKey struct{}

type admitted struct {
	grant *Grant
	guard *Guard
}

func (g *Guard) with(ctx context.Context, grant *Grant) context.Context {
	return context.WithValue(ctx, contextKey{}, admitted{grant, g})
}

// Allows reports whether who asks may use a model. Without a guard on the way everybody may.
func Allows(ctx context.Context, model string) bool {
	a, guarded := ctx.Value(contextKey{}).(admitted)
	return !guarded || a.grant.models == nil || a.grant.models[model]
}

// AllowsAny reports whether who asks may use at least one of the models: what is read for several is read for each of them.
func AllowsAny(ctx context.Context, models []string) bool {
	a, guarded := ctx.Value(contextKey{}).(admitted)
	if !guarded || a.grant.models == nil {
		return true
	}
	for _, m := range models {
		if a.grant.models[m] {
			return true
		}
	}
	return false
}

// Refuse counts and gives the refusal of somebody whom Allows does not.
func Refuse(ctx context.Context) *Denied {
	d := &Denied{Status: http.StatusForbidden, Code: "forbidden", Detail: "the token is not for this model, or what is read or written for it"}
	if a, guarded := ctx.Value(contextKey{}).(admitted); guarded {
		return a.guard.denied(denyModel, d.Status, d.Detail)
	}
	return d
}
