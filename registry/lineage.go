package registry

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// Node is an artefact in a lineage tree. An artefact that is reached by two ways is in the tree twice.
type Node struct {
	Role     string   `json:"role,omitempty"` // how the artefact is used by its neighbour towards the root
	Digest   string   `json:"digest"`
	Manifest Manifest `json:"manifest"`
	Next     []*Node  `json:"next,omitempty"`
}

// Lineage gives what an artefact was made of (ups) and what was made of it (downs), as trees rooted in the artefact. The
// first is a walk of manifests; the second reads every manifest, once.
func (r *Registry) Lineage(digest string) (ups, downs *Node, err error) {
	if ups, err = r.up("", digest); err != nil {
		return nil, nil, err
	}
	children, err := r.children()
	if err != nil {
		return nil, nil, err
	}
	downs = down(children, &Node{Digest: digest, Manifest: ups.Manifest})
	return ups, downs, nil
}

// up ends because a manifest can only name digests that were there before it: there are no cycles.
func (r *Registry) up(role, digest string) (*Node, error) {
	m, err := r.Manifest(digest)
	if err != nil {
		return nil, err
	}
	n := &Node{Role: role, Digest: digest, Manifest: m}
	for _, in := range m.Inputs {
		next, err := r.up(in.Role, in.Digest)
		if err != nil && mayLack(m, in, err) {
			next, err = &Node{Role: in.Role, Digest: in.Digest}, nil // all that is known of it
		}
		if err != nil {
			return nil, err
		}
		n.Next = append(n.Next, next)
	}
	return n, nil
}

func down(children map[string][]*Node, n *Node) *Node {
	for _, c := range children[n.Digest] {
		n.Next = append(n.Next, down(children, &Node{Role: c.Role, Digest: c.Digest, Manifest: c.Manifest}))
	}
	return n
}

// children maps a digest to the artefacts made of it, in the order of their digests.
func (r *Registry) children() (map[string][]*Node, error) {
	children := map[string][]*Node{}
	err := r.each(func(digest string, m Manifest) {
		for _, in := range m.Inputs {
			children[in.Digest] = append(children[in.Digest], &Node{Role: in.Role, Digest: digest, Manifest: m})
		}
	})
	return children, err
}

// Artefact is a manifest with its digest.
type Artefact struct {
	Digest string `json:"digest"`
	Manifest
}

// Artefacts lists every artefact of a kind (empty: of all), in the order of their digests.
func (r *Registry) Artefacts(kind string) ([]Artefact, error) {
	var all []Artefact
	err := r.each(func(digest string, m Manifest) {
		if kind == "" || m.Kind == kind {
			all = append(all, Artefact{digest, m})
		}
	})
	return all, err
}

// Find gives the one artefact whose digest begins so ("sha256:" may be left out): NotFound when there is none,
// BadRequest when there are several.
func (r *Registry) Find(prefix string) (string, error) {
	prefix = strings.TrimPrefix(prefix, digestPrefix)
	var found []string
	err := r.each(func(digest string, _ Manifest) {
		if strings.HasPrefix(digest, digestPrefix+prefix) {
			found = append(found, digest)
		}
	})
	switch {
	case err != nil:
		return "", err
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return "", failure.New(failure.NotFound, prefix, "no artefact's digest begins so")
	default:
		slices.Sort(found)
		return "", failure.New(failure.BadRequest, prefix, "%d artefacts' digests begin so", len(found)).
			WithHint("give more digits, as in %s", found[0])
	}
}

func (r *Registry) each(fn func(digest string, m Manifest)) error {
	root := filepath.Join(r.dir, "manifests", "sha256")
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return failure.Wrap(failure.Unavailable, root, "listing manifests", err)
		}
		h, ok := strings.CutSuffix(d.Name(), ".json")
		if d.IsDir() || !ok {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return failure.Wrap(failure.Unavailable, path, "reading manifest", err)
		}
		var m Manifest
		if DigestOf(b) != digestPrefix+h || json.Unmarshal(b, &m) != nil {
			return corrupt(digestPrefix + h)
		}
		fn(digestPrefix+h, m)
		return nil
	})
}
