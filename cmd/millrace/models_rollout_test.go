package main

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
)

func TestModelsRollout(t *testing.T) {
	s := newShelf(t)
	s.must("promote", "late@1", "--alias", "champion")
	says := func(want string, args ...string) {
		t.Helper()
		if out := s.must(args...); !strings.Contains(out, want) {
			t.Errorf("%v: %s; want %q", args, out, want)
		}
	}
	says("challenger is late@2 now, for 5% of the entities", "canary", "late@2", "5%")
	says("for 100% of the entities", "canary", "late@2", "100%")
	says("for 25% of the entities", "canary", "late@2", "25")
	says("shadow is late@3 now, for 100% of the entities", "shadow", "late@3")
	says("25%", "list", "late")
	s.refused(failure.BadRequest, "say for how many", "canary", "late@2")
	s.refused(failure.BadRequest, "is no percentage", "canary", "late@2", "many")
	s.refused(failure.BadRequest, "is no percentage above 0", "canary", "late@2", "0%")
	s.refused(failure.Refused, "it is the champion already", "canary", "late@1", "5%")
	says("late has no challenger now", "end", "late", "challenger", "--reason", "seen enough")
	says("seen enough", "list", "late")
	s.refused(failure.NotFound, "the model has no challenger", "end", "late", "challenger")
	s.refused(failure.BadRequest, "must be one of", "end", "late", "champion")
	if digest, _, err := s.registry().Alias("late", registry.Shadow); err != nil || digest != s.digests[2] {
		t.Errorf("shadow %s, %v", digest, err)
	}
}
