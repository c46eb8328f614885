package bundle

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
)

// Bundle is an opened one.
type Bundle struct {
	Manifest
	Project  *project.Project // with the bundled model alone
	Registry *registry.Registry
}

// Open checks every file of a bundle and reads its project: Corrupt, naming the file, when one is not what it was. The folder may be
// read-only.
func Open(dir string) (*Bundle, error) {
	m, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	if err := m.check(dir); err != nil {
		return nil, err
	}
	p, err := project.Load(filepath.Join(dir, projectDir))
	if err != nil {
		return nil, fmt.Errorf("loading the bundle's project: %w", err)
	}
	p.Models = slices.DeleteFunc(p.Models, func(other *project.Model) bool { return other.Name != m.Model })
	if len(p.Models) != 1 {
		return nil, failure.New(failure.Corrupt, m.Model, "the bundle's project has no such model")
	}
	r, err := registry.Open(filepath.Join(dir, registryDir))
	if err != nil {
		return nil, err
	}
	if digest, number, err := r.Alias(m.Model, registry.Champion); err != nil || digest != m.Digest || number != m.Version {
		return nil, failure.New(failure.Corrupt, m.Model, "the bundle's registry does not have version %d, %s", m.Version, m.Digest)
	}
	return &Bundle{Manifest: m, Project: p, Registry: r}, nil
}
