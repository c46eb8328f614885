package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	modelpack "github.com/modelpack/model-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	remoteregistry "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
)

// maxManifest is the largest OCI manifest that is read, as in most registries.
const maxManifest = 4 << 20

// Push copies a version to a place and gives the digest of its OCI manifest. Without a tag it is called by its number, in a layout by its model
// and number.
func Push(ctx context.Context, r *registry.Registry, v registry.Reference, to *Place, withDataset bool) (digest string, err error) {
	p, err := r.Pack(v.Digest)
	if err != nil {
		return "", err
	}
	if withDataset && len(p.Datasets) == 0 {
		return "", failure.New(failure.NotFound, v.String(), "the registry does not have its training rows").WithHint("push without --with-dataset")
	}
	roots := append([]ocispec.Descriptor{p.Model}, p.Evaluations...)
	if withDataset {
		roots = append(roots, p.Datasets...)
	}
	for _, root := range roots {
		if err := oras.CopyGraph(ctx, folder{r}, to.target, root, oras.DefaultCopyGraphOptions); err != nil {
			return "", to.failed("pushing to", err)
		}
	}
	if to.Tag == "" {
		to.Tag = strconv.Itoa(v.Number)
		if to.layout {
			to.Tag = v.Model + "-" + to.Tag
		}
	}
	plain := p.Model
	plain.Annotations = nil
	if err := to.target.Tag(ctx, plain, to.Tag); err != nil {
		return "", to.failed("tagging at", err)
	}
	return p.Model.Digest.String(), nil
}

// Pulled is a version that was copied, not yet numbered.
type Pulled struct {
	Model       string // name
	Digest      string // of the model artefact
	Manifest    string // digest of the OCI manifest
	Datasets    int    // how many artefacts of training rows came along
	Evaluations int    // how many evaluations of it did
}

// Pull copies a version from a place, with all that it was made of and its evaluations; with its training rows where the place has them and they are asked for. It
// becomes no version yet: look at it first, then registry.AddVersion.
func Pull(ctx context.Context, r *registry.Registry, from *Place, withDataset bool) (Pulled, error) {
	if from.Tag == "" {
		return Pulled{}, failure.New(failure.BadRequest, from.text, "the reference has no tag").WithHint("write %s:TAG", from.text)
	}
	root, err := from.target.Resolve(ctx, from.Tag)
	if err != nil {
		return Pulled{}, from.failed("finding", err)
	}
	manifest, err := from.manifest(ctx, root)
	if err != nil {
		return Pulled{}, err
	}
	name, artefact := manifest.Annotations[registry.AnnotationModel], manifest.Annotations[registry.AnnotationDigest]
	if manifest.ArtifactType != modelpack.ArtifactTypeModelManifest || name == "" || artefact == "" {
		return Pulled{}, failure.New(failure.Refused, from.String(), "is an OCI artefact of type %q that was not pushed by millrace", manifest.ArtifactType).
			WithHint("a model file of another tool is taken in by: millrace models import")
	}
	if err := oras.CopyGraph(ctx, from.target, folder{r}, root, oras.DefaultCopyGraphOptions); err != nil {
		return Pulled{}, from.failed("pulling from", err)
	}
	if err := adopt(r, manifest); err != nil {
		return Pulled{}, fmt.Errorf("taking over %s: %w", from, err)
	}
	if _, err := r.Manifest(artefact); err != nil {
		return Pulled{}, fmt.Errorf("taking over %s: %w", from, err)
	}
	pulled := Pulled{Model: name, Digest: artefact, Manifest: root.Digest.String()}
	referrers, err := remoteregistry.Referrers(ctx, from.target, root, "") // not all registries know a referrer's type
	if err != nil {
		return pulled, from.failed("looking for what belongs to the model at", err)
	}
	for _, d := range referrers {
		m, err := from.manifest(ctx, d)
		if err != nil {
			return pulled, err
		}
		evaluation := m.ArtifactType == registry.ArtifactTypeEvaluation
		if !evaluation && !(withDataset && m.ArtifactType == registry.ArtifactTypeDataset) {
			continue
		}
		if err := oras.CopyGraph(ctx, from.target, folder{r}, d, oras.DefaultCopyGraphOptions); err != nil {
			return pulled, from.failed("pulling what belongs to the model from", err)
		}
		if !evaluation {
			pulled.Datasets++
			continue
		}
		if err := adopt(r, m); err != nil {
			return pulled, fmt.Errorf("taking over an evaluation from %s: %w", from, err)
		}
		pulled.Evaluations++
	}
	return pulled, nil
}

func (p *Place) manifest(ctx context.Context, d ocispec.Descriptor) (m ocispec.Manifest, err error) {
	if d.MediaType != ocispec.MediaTypeImageManifest || d.Size > maxManifest {
		return m, failure.New(failure.Refused, p.String(), "is a %q of %d bytes, not the manifest of a model", d.MediaType, d.Size)
	}
	b, err := content.FetchAll(ctx, p.target, d)
	if err != nil {
		return m, p.failed("reading", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, failure.Wrap(failure.Corrupt, p.String(), "decoding manifest", err)
	}
	return m, nil
}

// adopt takes the artefacts' manifests over, each after what it was made of.
func adopt(r *registry.Registry, m ocispec.Manifest) error {
	var open []string
	for _, l := range m.Layers {
		if l.Annotations[registry.AnnotationArtefact] != "" {
			open = append(open, l.Digest.String())
		}
	}
	for len(open) > 0 {
		var later []string
		var why error
		for _, d := range open {
			if err := r.Adopt(d); failure.Of(err) == failure.NotFound && err != nil {
				later, why = append(later, d), err
			} else if err != nil {
				return err
			}
		}
		if len(later) == len(open) {
			return why
		}
		open = later
	}
	return nil
}

// failed says in our words what went wrong at a place.
func (p *Place) failed(doing string, err error) error {
	var own *failure.Error
	if errors.As(err, &own) {
		return fmt.Errorf("%s %s: %w", doing, p, err)
	}
	kind, hint := failure.Unavailable, ""
	var answer *errcode.ErrorResponse
	switch {
	case errors.Is(err, errdef.ErrNotFound):
		kind = failure.NotFound
	case errors.Is(err, content.ErrMismatchedDigest), errors.Is(err, content.ErrTrailingData), errors.Is(err, content.ErrInvalidDescriptorSize):
		kind = failure.Corrupt
	case errors.Is(err, auth.ErrBasicCredentialNotFound), errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		kind, hint = failure.Refused, "log in with: docker login, or oras login"
	}
	e := failure.Wrap(kind, p.String(), doing+" it", err)
	if hint != "" {
		e = e.WithHint("%s", hint)
	}
	return e
}
