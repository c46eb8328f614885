package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/millrace/millrace/internal/failure"
)

// Right is something that a token may do.
type Right string

// The rights. A token has those that its entry lists, and no other for it.
const (
	Score    Right = "score"    // ask for scores, and what is known of the models
	Features Right = "features" // read features
	Push     Right = "push"     // produce events to the sources' topics
	Metrics  Right = "metrics"  // read the metrics
	Admin    Right = "admin"    // the console, and what has no right of its own
)

// Rights is all there are.
var Rights = []Right{Score, Features, Push, Metrics, Admin}

// Entry is a token as the file has it.
type Entry struct {
	Name    string     `yaml:"name"`              // whom it was given to, for people and logs
	SHA256  string     `yaml:"sha256"`            // of the token, in hex
	Rights  []Right    `yaml:"rights"`            //
	Models  []string   `yaml:"models,omitempty"`  // it is for; all without
	Expires *time.Time `yaml:"expires,omitempty"` // never without
}

// file is the form of a file of tokens.
type file struct {
	Tokens []Entry `yaml:"tokens"`
}

// prefix is what a token begins with, so that those who search for lost secrets find them.
const prefix = "millrace_"

// NewToken gives a new token and its entry's SHA256.
func NewToken() (token, sum string) {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	token = prefix + base64.RawURLEncoding.EncodeToString(b[:])
	hash := sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(hash[:])
}

// Grant is what the holder of a token may do.
type Grant struct {
	name    string
	hash    [sha256.Size]byte
	rights  []Right
	models  map[string]bool // nil: all
	expires time.Time       // zero: never
}

// has reports whether the grant has a right.
func (g *Grant) has(r Right) bool { return slices.Contains(g.rights, r) }

// ParseTokens reads a file of tokens. Its faults are BadRequest.
func ParseTokens(text []byte) ([]*Grant, error) {
	var f file
	if err := yaml.UnmarshalWithOptions(text, &f, yaml.Strict()); err != nil {
		return nil, failure.New(failure.BadRequest, "tokens", "the file cannot be read: %s", yaml.FormatError(err, false, false))
	}
	grants := make([]*Grant, len(f.Tokens))
	names := map[string]bool{}
	for i, e := range f.Tokens {
		g, err := e.grant()
		if err == nil && names[e.Name] {
			err = fmt.Errorf("two tokens have this name")
		}
		if err != nil {
			return nil, failure.New(failure.BadRequest, fmt.Sprintf("tokens[%d] (%s)", i, e.Name), "%v", err)
		}
		grants[i], names[e.Name] = g, true
	}
	return grants, nil
}

func (e Entry) grant() (*Grant, error) {
	g := &Grant{name: e.Name, rights: e.Rights}
	hash, err := hex.DecodeString(e.SHA256)
	switch {
	case e.Name == "":
		return nil, fmt.Errorf("has no name")
	case err != nil || len(hash) != sha256.Size:
		return nil, fmt.Errorf("sha256 must be %d hex digits", 2*sha256.Size)
	case len(e.Rights) == 0:
		return nil, fmt.Errorf("has no rights; they are of %v", Rights)
	}
	copy(g.hash[:], hash)
	for _, r := range e.Rights {
		if !slices.Contains(Rights, r) {
			return nil, fmt.Errorf("the right %q is none of %v", r, Rights)
		}
	}
	if len(e.Models) > 0 {
		g.models = map[string]bool{}
		for _, m := range e.Models {
			g.models[m] = true
		}
	}
	if e.Expires != nil {
		g.expires = *e.Expires
	}
	return g, nil
}

// find is the grant of a token, nil when there is none. How long it takes does not depend on how much of a token is right.
func find(grants []*Grant, token string) *Grant {
	hash := sha256.Sum256([]byte(token))
	var found *Grant
	for _, g := range grants {
		if subtle.ConstantTimeCompare(hash[:], g.hash[:]) == 1 {
			found = g
		}
	}
	return found
}

// AddToken adds a new token to a file, which is made where there is none, and gives the token; it is nowhere else.
func AddToken(path string, e Entry) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return "", failure.Wrap(failure.Unavailable, path, "reading the file of tokens", err)
	}
	var token string
	token, e.SHA256 = NewToken()
	entry, err := yaml.Marshal([]Entry{e})
	if err != nil {
		return "", err
	}
	if !strings.Contains(string(text), "tokens:") {
		text = append(text, "tokens:\n"...)
	} else if text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	text = append(text, entry...)
	if _, err := ParseTokens(text); err != nil {
		return "", err
	}
	next := path + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return "", failure.Wrap(failure.Unavailable, path, "writing the file of tokens", err)
	}
	if err := os.Rename(next, path); err != nil {
		return "", failure.Wrap(failure.Unavailable, path, "writing the file of tokens", err)
	}
	return token, nil
}
