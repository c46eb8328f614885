package registry_test

import (
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
)

func TestArms(t *testing.T) {
	r := open(t)
	one, two := version(t, r, "one"), version(t, r, "two")
	ctx := t.Context()
	set := func(digest string, percent float64, expected string) error {
		return r.SetArm(ctx, "late", registry.Challenger, digest, percent, expected, "try it")
	}
	for _, percent := range []float64{0, -1, 100.1} {
		if err := set(one, percent, ""); failure.Of(err) != failure.BadRequest {
			t.Errorf("%v%%: %v", percent, err)
		}
	}
	for _, step := range []error{set(one, 5, ""), set(one, 25, one), set(one, 25, one), set(two, 5, one)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	if err := set(one, 5, one); failure.Of(err) != failure.Conflict {
		t.Errorf("moved by who had not seen the last move: %v", err)
	}
	if err := r.EndAlias(ctx, "late", registry.Challenger, one, ""); failure.Of(err) != failure.Conflict {
		t.Errorf("ended by who had not seen the last move: %v", err)
	}
	history, err := r.History("late")
	if err != nil {
		t.Fatal(err)
	}
	if a := registry.ArmOf(history, registry.Challenger); a != (registry.Arm{two, 2, 5, len(history)}) || len(history) != 5 {
		t.Errorf("%+v of %d entries", a, len(history))
	}
	if err := r.EndAlias(ctx, "late", registry.Challenger, two, "worse"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Alias("late", registry.Challenger); failure.Of(err) != failure.NotFound {
		t.Errorf("%v", err)
	}
	if all, err := r.Aliases("late"); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	if err := r.EndAlias(ctx, "late", registry.Challenger, "", ""); failure.Of(err) != failure.NotFound {
		t.Errorf("%v", err)
	}
	if err := set(two, 5, ""); err != nil {
		t.Error(err)
	}
	if err := r.EndAlias(ctx, "late", registry.Champion, one, ""); failure.Of(err) != failure.BadRequest {
		t.Errorf("the champion: %v", err)
	}
}
