package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	modelpack "github.com/modelpack/model-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go"
	oci "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/millrace/millrace/internal/failure"
)

// Annotations of what is packed, beside those of OCI and ModelPack.
const (
	AnnotationModel    = "vnd.millrace.model"    // of a manifest: the model's name
	AnnotationDigest   = "vnd.millrace.digest"   // of a manifest: the model artefact's digest, that of its version
	AnnotationArtefact = "vnd.millrace.artefact" // of a layer that is an artefact's manifest: its kind
)

// ArtifactTypeEvaluation is the type of the OCI manifest that an evaluation of a model is packed in. Its subject is the model's.
const ArtifactTypeEvaluation = "application/vnd.millrace.evaluation.v1"

// ArtifactTypeDataset is the type of the OCI manifest that a model's training rows are packed in. Its subject is the model's.
const ArtifactTypeDataset = "application/vnd.millrace.dataset.v1"

// Pack is a version as an OCI artefact. The same artefacts give the same pack in every registry.
//
// The model's manifest follows the CNCF ModelPack specification (0.0.7): its layers are the model bundle with its golden rows as the weights,
// then the manifest and the content of everything it was made of, so that its lineage goes where it goes. Training rows, which are large and
// may be confidential, are manifests of their own that refer to the model's as their subject: whoever takes them along changes no digest. So are
// the evaluations that were made of the model, with the metrics and the gates' verdicts.
type Pack struct {
	Model       oci.Descriptor
	Evaluations []oci.Descriptor // those of the model that are in this registry
	Datasets    []oci.Descriptor // those whose rows are in this registry

	blobs map[digest.Digest][]byte // manifests and configs, to be kept
}

// Pack finds a version's OCI artefact: NotFound when something it was made of is not in the registry.
func (r *Registry) Pack(version string) (Pack, error) {
	p, err := r.pack(version)
	if err != nil {
		return p, fmt.Errorf("packing %s: %w", version, err)
	}
	return p, r.putPack(p)
}

// maxLayers bounds what a model was made of.
const maxLayers = 1024

func (r *Registry) pack(version string) (Pack, error) {
	p := Pack{blobs: map[digest.Digest][]byte{}}
	root, err := r.Manifest(version)
	if err != nil {
		return p, err
	}
	if root.Kind != KindModel {
		return p, failure.New(failure.NotFound, version, "is a %s, not a model", root.Kind)
	}
	artefacts, err := r.closure(version)
	if err != nil {
		return p, err
	}
	var layers, datasets []oci.Descriptor
	for _, a := range artefacts {
		b, err := a.Canonical()
		if err != nil {
			return p, err
		}
		p.blobs[digest.Digest(a.Digest)] = b
		layers = append(layers, oci.Descriptor{
			MediaType: modelpack.MediaTypeModelWeightConfigRaw, Digest: digest.Digest(a.Digest), Size: int64(len(b)),
			Annotations: map[string]string{AnnotationArtefact: a.Kind, modelpack.AnnotationFilepath: a.Kind + "-" + short(a.Digest) + ".manifest.json"},
		})
		if a.Content == "" {
			continue
		}
		content := oci.Descriptor{
			MediaType: modelpack.MediaTypeModelWeightConfigRaw, Digest: digest.Digest(a.Content), Size: a.Size,
			Annotations: map[string]string{modelpack.AnnotationFilepath: a.Kind + "-" + short(a.Digest) + fileExtension(a.MediaType)},
		}
		if a.Kind == KindDataset {
			content.MediaType = modelpack.MediaTypeModelDatasetRaw
			datasets = append(datasets, content)
			continue
		}
		if !r.HasBlob(a.Content) {
			return p, failure.New(failure.NotFound, a.Content, "the registry has not the content of %s %s", a.Kind, a.Digest)
		}
		if a.Digest == version {
			content.MediaType = modelpack.MediaTypeModelWeightRaw
		}
		layers = append(layers, content)
	}
	layers = distinct(layers)
	config := modelpack.Model{Descriptor: modelpack.ModelDescriptor{Name: root.Name, Revision: root.Code}, ModelFS: modelpack.ModelFS{Type: "layers"}, Config: modelpack.ModelConfig{Format: root.MediaType}}
	for _, l := range layers {
		config.ModelFS.DiffIDs = append(config.ModelFS.DiffIDs, l.Digest)
	}
	about, err := p.keep(modelpack.MediaTypeModelConfig, config)
	if err != nil {
		return p, err
	}
	p.Model, err = p.keep(oci.MediaTypeImageManifest, oci.Manifest{
		Versioned: ocispecs.Versioned{SchemaVersion: 2}, MediaType: oci.MediaTypeImageManifest, ArtifactType: modelpack.ArtifactTypeModelManifest,
		Config: about, Layers: layers, Annotations: map[string]string{AnnotationModel: root.Name, AnnotationDigest: version},
	})
	if err != nil {
		return p, err
	}
	p.Model.ArtifactType = modelpack.ArtifactTypeModelManifest
	if err := p.addEvaluations(r, version); err != nil {
		return p, err
	}
	return p, p.addDatasets(r, datasets)
}

func (p *Pack) addEvaluations(r *Registry, version string) error {
	all, err := r.Artefacts(KindEvaluation)
	if err != nil {
		return err
	}
	for _, a := range all {
		if of, ok := a.Input(KindModel); !ok || of != version || !r.HasBlob(a.Content) {
			continue
		}
		b, err := a.Canonical()
		if err != nil {
			return err
		}
		p.blobs[digest.Digest(a.Digest)] = b
		file := a.Kind + "-" + short(a.Digest)
		d, err := p.refer(ArtifactTypeEvaluation, oci.Descriptor{
			MediaType: modelpack.MediaTypeModelWeightConfigRaw, Digest: digest.Digest(a.Digest), Size: int64(len(b)),
			Annotations: map[string]string{AnnotationArtefact: a.Kind, modelpack.AnnotationFilepath: file + ".manifest.json"},
		}, oci.Descriptor{
			MediaType: modelpack.MediaTypeModelWeightConfigRaw, Digest: digest.Digest(a.Content), Size: a.Size,
			Annotations: map[string]string{modelpack.AnnotationFilepath: file + fileExtension(a.MediaType)},
		})
		if err != nil {
			return err
		}
		p.Evaluations = append(p.Evaluations, d)
	}
	return nil
}

func (p *Pack) addDatasets(r *Registry, contents []oci.Descriptor) error {
	for _, content := range contents {
		if !r.HasBlob(content.Digest.String()) {
			continue
		}
		d, err := p.refer(ArtifactTypeDataset, content)
		if err != nil {
			return err
		}
		p.Datasets = append(p.Datasets, d)
	}
	return nil
}

// refer makes a manifest of layers whose subject is the model's.
func (p *Pack) refer(artifactType string, layers ...oci.Descriptor) (oci.Descriptor, error) {
	p.blobs[oci.DescriptorEmptyJSON.Digest] = oci.DescriptorEmptyJSON.Data
	empty := oci.DescriptorEmptyJSON
	empty.Data = nil
	d, err := p.keep(oci.MediaTypeImageManifest, oci.Manifest{
		Versioned: ocispecs.Versioned{SchemaVersion: 2}, MediaType: oci.MediaTypeImageManifest, ArtifactType: artifactType, Config: empty, Layers: layers,
		Subject: &oci.Descriptor{MediaType: p.Model.MediaType, Digest: p.Model.Digest, Size: p.Model.Size},
	})
	d.ArtifactType = artifactType
	return d, err
}

// keep encodes a value as a blob.
func (p *Pack) keep(mediaType string, v any) (oci.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return oci.Descriptor{}, failure.Wrap(failure.Internal, mediaType, "encoding", err)
	}
	d := oci.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	p.blobs[d.Digest] = b
	return d, nil
}

// putPack keeps what a pack adds to the artefacts' contents.
func (r *Registry) putPack(p Pack) error {
	for d, b := range p.blobs {
		path, err := r.blobPath(d.String())
		if err != nil {
			return err
		}
		if err := r.putFile(path, b); err != nil {
			return err
		}
	}
	return nil
}

// closure is an artefact and all that it was made of, it first, the others in the order of their digests.
func (r *Registry) closure(root string) ([]Artefact, error) {
	found := map[string]Manifest{}
	open := []string{root}
	for len(open) > 0 {
		d := open[len(open)-1]
		open = open[:len(open)-1]
		if _, ok := found[d]; ok {
			continue
		}
		if len(found) == maxLayers {
			return nil, failure.New(failure.Refused, root, "was made of more than %d artefacts", maxLayers)
		}
		m, err := r.Manifest(d)
		if err != nil {
			return nil, err
		}
		found[d] = m
		for _, in := range m.Inputs {
			open = append(open, in.Digest)
		}
	}
	all := []Artefact{{root, found[root]}}
	delete(found, root)
	for d, m := range found {
		all = append(all, Artefact{d, m})
	}
	slices.SortFunc(all[1:], func(a, b Artefact) int {
		if a.Digest < b.Digest {
			return -1
		}
		return 1
	})
	return all, nil
}

// distinct drops layers with the digest of an earlier one: two artefacts may have the same content.
func distinct(layers []oci.Descriptor) []oci.Descriptor {
	seen := map[digest.Digest]bool{}
	return slices.DeleteFunc(layers, func(d oci.Descriptor) bool {
		twice := seen[d.Digest]
		seen[d.Digest] = true
		return twice
	})
}

func short(d string) string { return d[len(digestPrefix) : len(digestPrefix)+12] }

func fileExtension(mediaType string) string {
	switch {
	case mediaType == "application/vnd.apache.arrow.file":
		return ".arrow"
	case mediaType == "application/json" || len(mediaType) > 5 && mediaType[len(mediaType)-5:] == "+json":
		return ".json"
	default:
		return ".bin"
	}
}

// HasBlob reports whether the registry has a blob of the digest.
func (r *Registry) HasBlob(digest string) bool {
	path, err := r.blobPath(digest)
	if err != nil {
		return false
	}
	_, err = os.Stat(path)
	return err == nil
}

// Adopt takes an artefact over from another registry whose manifest is among the blobs already. Its inputs must be here, but for the champion that
// an evaluation compared with; its content need not: lineage is known without it. Corrupt when the blob is no manifest, or not in the one form that its digest was made of.
func (r *Registry) Adopt(digest string) error {
	path, err := r.blobPath(digest)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() > maxManifest {
		return failure.New(failure.NotFound, digest, "the registry has no such manifest among its blobs")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return failure.Wrap(failure.Unavailable, path, "reading manifest", err)
	}
	var m Manifest
	if DigestOf(b) != digest || json.Unmarshal(b, &m) != nil {
		return corrupt(digest)
	}
	if again, err := m.Digest(); err != nil || again != digest {
		return failure.New(failure.Corrupt, digest, "is no artefact's manifest").WithHint("it may be of a newer release")
	}
	for _, in := range m.Inputs {
		if _, err := r.Manifest(in.Digest); err != nil && !mayLack(m, in, err) {
			return fmt.Errorf("checking input %q of %s %s: %w", in.Role, m.Kind, m.Name, err)
		}
	}
	if path, err = r.manifestPath(digest); err != nil {
		return err
	}
	return r.putFile(path, b)
}

// mayLack reports whether an artefact is whole without an input that the registry does not have.
func mayLack(m Manifest, in Ref, err error) bool {
	return m.Kind == KindEvaluation && in.Role == RoleChampion && failure.Of(err) == failure.NotFound
}
