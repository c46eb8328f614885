package registry

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// The kinds of artefact that training registers.
const (
	KindFeatures   = "features"   // the feature definitions and inputs of a model
	KindDataset    = "dataset"    // the training and held-out rows
	KindBaseline   = "baseline"   // the profile of the training rows
	KindMetrics    = "metrics"    // the model's own numbers on held-out rows, a JSON object of numbers
	KindModel      = "model"      // the model bundle
	KindEvaluation = "evaluation" // candidates, ablation, champion and gates side by side
)

// RoleSimpler is the role in which a model's manifest names the model that was trained beside it on the request's own columns: it answers
// when features cannot be read, where the project says so.
const RoleSimpler = "simpler"

// RoleChampion is the role in which an evaluation's manifest names the champion that the candidates were measured beside. It is the one input that a
// registry may do without: who pulls a version gets its evaluation, and not the models before it.
const RoleChampion = "champion"

// digestPrefix names the only hash in use (FIPS 180-4 SHA-256), as OCI writes it.
const digestPrefix = "sha256:"

// Ref points at another artefact, or at a file outside the registry, by its digest.
type Ref struct {
	Role   string `json:"role"`
	Digest string `json:"digest"` // "sha256:" and 64 lower-case hexadecimal digits
}

// Manifest says what an artefact is and what it was made of. It holds no wall time, so that making the same thing again
// from the same inputs gives the same manifest; its digest is the artefact's.
type Manifest struct {
	Kind        string            `json:"kind"` // one of the Kind constants
	Name        string            `json:"name"` // the model's, usually
	MediaType   string            `json:"media_type"`
	Content     string            `json:"content,omitempty"`     // digest of the content; empty when there is none
	Size        int64             `json:"size,omitempty"`        // bytes of content
	Inputs      []Ref             `json:"inputs,omitempty"`      // artefacts this one was made of
	Code        string            `json:"code,omitempty"`        // version of the code that made it
	Rows        int64             `json:"rows,omitempty"`        // where it has rows
	Annotations map[string]string `json:"annotations,omitempty"` // facts without a field of their own
	Files       []Ref             `json:"files,omitempty"`       // files outside the registry
}

// Input is the digest of the first input with the role.
func (m Manifest) Input(role string) (digest string, ok bool) {
	for _, r := range m.Inputs {
		if r.Role == role {
			return r.Digest, true
		}
	}
	return "", false
}

// Canonical is the one JSON text of a manifest: fields in the order of the struct, map keys and references sorted, no
// HTML escapes, no white space.
func (m Manifest) Canonical() ([]byte, error) {
	m.Inputs, m.Files = sorted(m.Inputs), sorted(m.Files)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("encoding manifest: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Digest is "sha256:…" of the canonical JSON: the artefact's address.
func (m Manifest) Digest() (string, error) {
	b, err := m.Canonical()
	if err != nil {
		return "", err
	}
	return DigestOf(b), nil
}

// DigestOf is "sha256:…" of some bytes.
func DigestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return digestPrefix + hex.EncodeToString(sum[:])
}

func sorted(refs []Ref) []Ref {
	return slices.SortedFunc(slices.Values(refs), func(a, b Ref) int {
		return cmp.Or(strings.Compare(a.Role, b.Role), strings.Compare(a.Digest, b.Digest))
	})
}

// hexOf checks a digest's form, so that it can be part of a path, and gives its hexadecimal digits.
func hexOf(digest string) (string, error) {
	h, ok := strings.CutPrefix(digest, digestPrefix)
	if ok && len(h) == 2*sha256.Size && strings.Trim(h, "0123456789abcdef") == "" {
		return h, nil
	}
	return "", failure.New(failure.BadRequest, "digest", "%q is not a digest", digest).
		WithHint("it is written sha256: and 64 lower-case hexadecimal digits")
}
