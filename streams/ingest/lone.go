package ingest

import (
	"context"

	"github.com/millrace/millrace/internal/failure"
)

// alone is a source for the workers of one version of a group that reads its source directly, beside the source's own workers: while it is
// filled and catches up, and for as long as it is read after it has been replaced. It does nothing else of what these do.
func (src *source) alone(g *group) *source {
	return &source{Source: src.Source, decoder: src.decoder, direct: []*group{g}, pace: src.pace, lone: true}
}

// dropRetired lets go of groups whose version was deleted.
func (w *sourceWorker) dropRetired(ctx context.Context) error {
	kept := w.direct[:0:0]
	for _, a := range w.direct {
		declared, err := a.stillDeclared(ctx)
		if err != nil {
			return err
		}
		if declared {
			kept = append(kept, a)
		}
	}
	w.direct = kept
	if w.src.lone && len(kept) == 0 {
		return failure.New(failure.Unavailable, w.src.Name, "the version that is computed from it is not kept any more")
	}
	return nil
}
