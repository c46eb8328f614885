package oci

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	remoteregistry "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/millrace/millrace/internal/failure"
)

// Place is where versions are copied to and from, and the tag there.
type Place struct {
	target oras.GraphTarget
	text   string // as it was written, without the tag
	layout bool
	Tag    string // empty where none was written
}

// Options are how a registry is reached.
type Options struct {
	PlainHTTP bool          // without TLS; a registry on this machine is always reached so
	Timeout   time.Duration // for the headers of one answer; 0 is none
}

// layoutPrefix marks a folder: oci:DIR or oci:DIR:TAG.
const layoutPrefix = "oci:"

// Open finds a place: HOST/NAME[:TAG], with the credentials that docker login has kept, or oci:DIR[:TAG] for an OCI image layout, which is made
// when create says so.
func Open(ctx context.Context, text string, create bool, o Options) (*Place, error) {
	if dir, ok := strings.CutPrefix(text, layoutPrefix); ok {
		return openLayout(ctx, dir, create)
	}
	ref, err := remoteregistry.ParseReference(text)
	if err != nil {
		return nil, failure.New(failure.BadRequest, text, "is no reference to an OCI registry").
			WithHint("write HOST/NAME:TAG, or oci:DIR:TAG for a folder")
	}
	repository, err := remote.NewRepository(ref.Registry + "/" + ref.Repository)
	if err != nil {
		return nil, failure.Wrap(failure.BadRequest, text, "opening repository", err)
	}
	stored, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, failure.Wrap(failure.Corrupt, text, "reading docker's credentials", err).WithHint("mend or remove the config.json of docker")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = o.Timeout
	repository.Client = &auth.Client{
		Client: &http.Client{Transport: retry.NewTransport(transport)}, Cache: auth.NewCache(), Credential: credentials.Credential(stored),
	}
	host, _, _ := strings.Cut(ref.Registry, ":")
	repository.PlainHTTP = o.PlainHTTP || host == "localhost" || host == "127.0.0.1"
	return &Place{target: repository, text: ref.Registry + "/" + ref.Repository, Tag: ref.Reference}, nil
}

func openLayout(ctx context.Context, dir string, create bool) (*Place, error) {
	tag := ""
	if at := strings.LastIndexByte(dir, ':'); at > strings.LastIndexByte(dir, '/') {
		dir, tag = dir[:at], dir[at+1:]
	}
	if !create {
		if _, err := os.Stat(dir); err != nil {
			return nil, failure.New(failure.NotFound, dir, "there is no such folder")
		}
		store, err := oci.NewFromFS(ctx, os.DirFS(dir))
		if err != nil {
			return nil, failure.Wrap(failure.Corrupt, dir, "opening OCI image layout", err)
		}
		return &Place{target: readOnly{store}, text: layoutPrefix + dir, layout: true, Tag: tag}, nil
	}
	store, err := oci.NewWithContext(ctx, dir)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, dir, "making OCI image layout", err)
	}
	return &Place{target: store, text: layoutPrefix + dir, layout: true, Tag: tag}, nil
}

// readOnly is a layout that is only copied from.
type readOnly struct{ *oci.ReadOnlyStore }

func (r readOnly) Push(context.Context, ocispec.Descriptor, io.Reader) error { return errReadOnly }
func (r readOnly) Tag(context.Context, ocispec.Descriptor, string) error     { return errReadOnly }

var errReadOnly = failure.New(failure.Internal, "", "a layout that was opened to be read is written to")

// String is the place with its tag.
func (p *Place) String() string {
	if p.Tag == "" {
		return p.text
	}
	return p.text + ":" + p.Tag
}
